"""Which HTTP status stands for which refusal before the upgrade.

Source: Pulsar's WebSocket proxy, which maps the exceptions of the Java client the same way.
"""

from collections.abc import Mapping

from magnetar.broker import port
from magnetar.broker.access import rights
from magnetar.broker.doors.handshake import HandshakeError
from magnetar.broker.doors.websocket.options import NoSuchPathError, OptionError
from magnetar.names import InvalidNameError

_STATUS: Mapping[type[Exception], int] = {
    OptionError: 400,
    rights.AuthenticationError: 401,
    rights.AuthorizationError: 403,
    InvalidNameError: 400,
    NoSuchPathError: 404,
    port.TopicNotFoundError: 404,
    port.NamespaceNotFoundError: 404,
    port.SubscriptionNotFoundError: 404,
    port.ProducerBusyError: 409,
    port.ProducerFencedError: 409,
    port.ConsumerBusyError: 409,
    port.ConsumerAssignError: 409,
    port.QuotaExceededError: 503,
    port.TopicTerminatedError: 503,
    port.ServiceNotReadyError: 503,
    port.PersistenceError: 503,
    TimeoutError: 504,
}

EXPECTED = (port.PortError, InvalidNameError, OptionError, NoSuchPathError, HandshakeError)
"""What a client's address may lead to. Anything else is a bug."""

PASSING = (port.ServiceNotReadyError, port.PersistenceError, port.MetadataError, TimeoutError)
"""What a Pulsar client would try again by itself, so this door does it for its clients."""


def status_of(error: Exception) -> int:
    """Return the status for an error; 500 for what is in no row."""
    if isinstance(error, HandshakeError):
        return error.status
    for kind in type(error).__mro__:
        if kind in _STATUS:
            return _STATUS[kind]
    return 500


def reason_of(error: Exception) -> str:
    """Return what a client is told, in the words that Pulsar's proxy begins with."""
    if isinstance(error, OptionError | InvalidNameError):
        return f"Invalid query params: {error}"
    if isinstance(error, NoSuchPathError | HandshakeError | rights.AccessError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "Failed to create producer/consumer: the broker did not answer in time"
    return f"Failed to create producer/consumer: {error}"
