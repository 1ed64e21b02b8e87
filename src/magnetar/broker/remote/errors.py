"""Which refusal of the port stands behind one of Pulsar's error codes.

What a sibling's door made a code of is made an error again, so that a client hears the same
whichever process it is connected to. Source: `ServerError` of the wire definition.
"""

from collections.abc import Mapping

from magnetar.broker import port
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api

_ERRORS: Mapping[int, type[port.PortError]] = {
    api.TopicNotFound: port.TopicNotFoundError,
    api.SubscriptionNotFound: port.SubscriptionNotFoundError,
    api.ServiceNotReady: port.ServiceNotReadyError,
    api.PersistenceError: port.PersistenceError,
    api.MetadataError: port.MetadataError,
    api.ProducerBusy: port.ProducerBusyError,
    api.ProducerFenced: port.ProducerFencedError,
    api.ConsumerBusy: port.ConsumerBusyError,
    api.ConsumerAssignError: port.ConsumerAssignError,
    api.NotAllowedError: port.NotAllowedError,
    api.TopicTerminatedError: port.TopicTerminatedError,
    api.TransactionCoordinatorNotFound: port.TransactionCoordinatorNotFoundError,
    api.TransactionNotFound: port.TransactionNotFoundError,
    api.InvalidTxnStatus: port.InvalidTransactionStatusError,
    api.TransactionConflict: port.TransactionConflictError,
    api.TooManyRequests: port.TooManyRequestsError,
    api.IncompatibleSchema: port.IncompatibleSchemaError,
}


def port_error(code: api.ServerError, message: str) -> port.PortError:
    """Return the error for a code; a code that none stands for becomes a plain `PortError`."""
    if code == api.ProducerBlockedQuotaExceededError:
        return port.QuotaExceededError(message, hold=True)
    if code == api.ProducerBlockedQuotaExceededException:
        return port.QuotaExceededError(message, hold=False)
    return _ERRORS.get(code, port.PortError)(message)
