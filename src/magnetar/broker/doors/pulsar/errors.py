"""Which of Pulsar's error codes stands for which refusal of the port.

Source: `ServerError` of the wire definition, and what the official clients do with each code
(retry, look up again, fail). A code that makes a client give up must not stand for something
that passes, and the other way round.
"""

from magnetar.broker import port
from magnetar.broker.access import rights
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.names import InvalidNameError

_CODES: dict[type[Exception], api.ServerError] = {
    port.TopicNotFoundError: api.TopicNotFound,
    # Pulsar has no code of its own for a missing namespace. TopicNotFound is not retried.
    port.NamespaceNotFoundError: api.TopicNotFound,
    port.SubscriptionNotFoundError: api.SubscriptionNotFound,
    port.ServiceNotReadyError: api.ServiceNotReady,
    port.PersistenceError: api.PersistenceError,
    port.MetadataError: api.MetadataError,
    port.ProducerBusyError: api.ProducerBusy,
    port.ProducerFencedError: api.ProducerFenced,
    port.ConsumerBusyError: api.ConsumerBusy,
    port.ConsumerAssignError: api.ConsumerAssignError,
    port.NotAllowedError: api.NotAllowedError,
    port.TopicTerminatedError: api.TopicTerminatedError,
    port.TransactionCoordinatorNotFoundError: api.TransactionCoordinatorNotFound,
    port.TransactionNotFoundError: api.TransactionNotFound,
    port.InvalidTransactionStatusError: api.InvalidTxnStatus,
    port.TransactionConflictError: api.TransactionConflict,
    port.TooManyRequestsError: api.TooManyRequests,
    port.IncompatibleSchemaError: api.IncompatibleSchema,
    InvalidNameError: api.InvalidTopicName,
    rights.AuthenticationError: api.AuthenticationError,
    rights.AuthorizationError: api.AuthorizationError,
}


def server_error(error: Exception) -> api.ServerError:
    """Return the code for what a port or a name parser raised; UnknownError for anything else."""
    if isinstance(error, port.QuotaExceededError):
        if error.hold:
            return api.ProducerBlockedQuotaExceededError
        return api.ProducerBlockedQuotaExceededException
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    return api.UnknownError
