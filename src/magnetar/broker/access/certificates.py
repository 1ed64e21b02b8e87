"""Log-in by client certificate: TLS has verified it, and its common name is the role."""

from magnetar.broker.access.authentication import Credentials
from magnetar.broker.access.caller import Caller
from magnetar.broker.access.revocations import Revocations
from magnetar.broker.access.rights import AuthenticationError


class ClientCertificates:
    """Logs in by the common name of a certificate."""

    def __init__(self, revocations: Revocations | None = None) -> None:
        self._revocations = revocations

    async def authenticate(self, credentials: Credentials) -> Caller:
        """Return whose certificate it is.

        Raises:
            AuthenticationError: none was shown, or its role is revoked.
        """
        if not credentials.common_name:
            raise AuthenticationError("there is no client certificate; TLS has to come with one")
        caller = Caller(credentials.common_name, "tls")
        if not self.still(caller):
            raise AuthenticationError("the role has been revoked")
        return caller

    def still(self, caller: Caller) -> bool:
        """Return whether a caller has not been revoked."""
        return self._revocations is None or not self._revocations.has(caller)

    async def refresh(self) -> None:
        """Do nothing: TLS looks after its files itself."""
