"""Who a client is, and whom it trusts.

    token              a JSON web token, itself or in a file, which is read again when it is needed
    basic              user:password
    certificate, key   a client certificate, in PEM: with no other credential it is the log-in
    trust              the certificates of the CAs whose brokers are trusted; None: the system's

Host names are always checked, and there is nothing to turn that off with. What can be told from
here of a log-in or a certificate that was not accepted is put into words here too.
"""

import base64
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOKEN_BYTES_MAX = 16 * 1024
TRUST_ADVICE = "name the broker's CA with --tls-trust-certs FILE"


class CredentialsError(ValueError):
    """A credential cannot be read. The message says which and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a client shows, and what it wants to be shown. Never in a log: its text says nothing."""

    token: str | None = None
    token_file: Path | None = None
    basic: str | None = None
    """`user:password`."""
    certificate: Path | None = None
    key: Path | None = None
    trust: Path | None = None

    def __repr__(self) -> str:
        return "Credentials(...)"

    def __post_init__(self) -> None:
        if self.basic is not None and ":" not in self.basic:
            raise CredentialsError("a user and a password are written user:password")
        if (self.certificate is None) != (self.key is None):
            raise CredentialsError("a client certificate comes with its key, and the reverse")

    def current_token(self) -> str | None:
        """Return the token as it is now.

        Raises:
            CredentialsError: its file cannot be read, or holds something else.
        """
        text = self.token
        if text is None and self.token_file is not None:
            try:
                text = self.token_file.read_text("ascii")
            except OSError as error:
                raise CredentialsError(f"{self.token_file}: {error.strerror}") from error
            except UnicodeDecodeError:
                raise CredentialsError(f"{self.token_file} holds no token") from None
        if text is None:
            return None
        text = text.strip()
        if not text or len(text) > TOKEN_BYTES_MAX or not text.isprintable():
            raise CredentialsError("that is no token: it is empty, too long, or no plain text")
        return text

    def header(self) -> str | None:
        """Return what stands in an HTTP call's Authorization header; None: nothing.

        Raises:
            CredentialsError: the token cannot be read.
        """
        if (token := self.current_token()) is not None:
            return f"Bearer {token}"
        if self.basic is not None:
            return f"Basic {base64.b64encode(self.basic.encode()).decode('ascii')}"
        return None

    def tls(self) -> ssl.SSLContext:
        """Return how a TLS connection is begun.

        Raises:
            CredentialsError: a file cannot be used.
        """
        try:
            context = ssl.create_default_context(cafile=str(self.trust) if self.trust else None)
        except (OSError, ssl.SSLError) as error:
            raise CredentialsError(
                f"{self.trust}: cannot be used as trusted certificates"
                f" ({getattr(error, 'reason', None) or error.strerror})"
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate is not None:
            try:
                context.load_cert_chain(self.certificate, self.key)
            except (OSError, ssl.SSLError) as error:
                raise CredentialsError(
                    f"{self.certificate} and {self.key}: no certificate and its key in PEM"
                    f" ({getattr(error, 'reason', None) or error.strerror})"
                ) from error
        return context

    def of_official_client(self) -> dict[str, Any]:
        """Return the options of `pulsar.Client` that say the same.

        Raises:
            CredentialsError: the token cannot be read.
        """
        import pulsar  # noqa: PLC0415 - loaded by who uses it

        options: dict[str, Any] = {"tls_validate_hostname": True}
        if self.trust is not None:
            options["tls_trust_certs_file_path"] = str(self.trust)
        if self.certificate is not None:
            options["tls_certificate_file_path"] = str(self.certificate)
            options["tls_private_key_file_path"] = str(self.key)
        if self.current_token() is not None:
            # A function: the client asks again when the broker wants a fresh one.
            options["authentication"] = pulsar.AuthenticationToken(self._token_or_nothing)
        elif self.basic is not None:
            user, _, password = self.basic.partition(":")
            options["authentication"] = pulsar.AuthenticationBasic(user, password)
        elif self.certificate is not None:
            shown = (str(self.certificate), str(self.key))
            options["authentication"] = pulsar.AuthenticationTLS(*shown)
        return options

    def _token_or_nothing(self) -> str:
        try:
            return self.current_token() or ""
        except CredentialsError:
            return ""  # the broker says what it thinks of that

    def expired_ms(self, now_ms: int) -> int | None:
        """Return when the token ended (ms since 1970); None: it has not, or nobody can tell."""
        try:
            token = self.current_token()
        except CredentialsError:
            return None
        ends = _claims(token).get("exp") if token else None
        if isinstance(ends, bool) or not isinstance(ends, int | float) or not 0 <= ends < 2**40:
            return None
        return int(ends * 1000) if ends * 1000 <= now_ms else None


def _claims(token: str) -> dict[str, Any]:
    """Return what a token claims; nothing if it cannot be read."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return {}
    return claims if isinstance(claims, dict) else {}


def tls_trouble(error: ssl.SSLError, host: str) -> tuple[str, str]:
    """Return what went wrong in a TLS handshake with a host, and what to do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        if code in _OTHER_HOST:
            return (
                f"the certificate is not for {host}",
                "dial a name that it is for, or give the broker a certificate for this one",
            )
        if code == _EXPIRED:
            return "the broker's certificate has expired", "its operator has to renew it"
        return f"the broker's certificate is not trusted: {error.verify_message}", TRUST_ADVICE
    if error.reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}:
        return f"{host} does not speak TLS there", "is it the port of pulsar:// or http://?"
    if error.reason in _ASKED_FOR_CERTIFICATE:
        return (
            "the broker does not accept the client certificate",
            "name another with --client-certificate FILE --client-key FILE",
        )
    return f"no TLS connection to {host}: {error.reason or error}", "see the broker's log"


_EXPIRED = 10
_OTHER_HOST = frozenset({62, 64})
"""X509_V_ERR_CERT_HAS_EXPIRED, ..._HOSTNAME_MISMATCH, ..._IP_ADDRESS_MISMATCH of OpenSSL."""
_ASKED_FOR_CERTIFICATE = frozenset(
    {
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "TLSV1_ALERT_UNKNOWN_CA",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
    }
)
