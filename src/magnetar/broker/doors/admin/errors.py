"""What went wrong, as HTTP says it: the one table from errors to statuses.

    {"reason": "..."}     the body of every refusal, as in Pulsar

Handlers raise; nobody else decides a status. An error that is in no row is a bug: it is
logged with its traceback, and the caller learns only that.
"""

import logging
from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from magnetar.broker import port
from magnetar.broker.access import rights
from magnetar.broker.metadata import documents, facts, store
from magnetar.broker.metadata.tenants import TenantNotFoundError
from magnetar.names import InvalidNameError

logger = logging.getLogger(__name__)


class Refusal(Exception):  # noqa: N818 - it is the answer, not an accident
    """What a handler itself refuses, with the status to say it with."""

    def __init__(self, status: int, reason: str, *, allow: str | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.allow = allow


STATUS: dict[type[BaseException], int] = {
    # metadata
    documents.InvalidDocumentError: 400,
    facts.AlreadyExistsError: 409,
    facts.NotFoundError: 404,
    facts.NotEmptyError: 409,
    store.ConflictError: 409,
    store.StoreUnavailableError: 503,
    # names and the port
    InvalidNameError: 412,
    port.TopicNotFoundError: 404,
    port.NamespaceNotFoundError: 404,
    port.SubscriptionNotFoundError: 404,
    port.ServiceNotReadyError: 503,
    port.TopicMovedError: 503,
    port.PersistenceError: 500,
    port.MetadataError: 500,
    port.ProducerBusyError: 409,
    port.ProducerFencedError: 409,
    port.ConsumerBusyError: 412,
    port.ConsumerAssignError: 412,
    port.NotAllowedError: 405,
    port.TopicTerminatedError: 409,
    port.QuotaExceededError: 412,
    port.TransactionCoordinatorNotFoundError: 404,
    port.TransactionNotFoundError: 404,
    port.InvalidTransactionStatusError: 409,
    port.TransactionConflictError: 409,
    port.TooManyRequestsError: 429,
    port.SchemaNotFoundError: 404,
    port.IncompatibleSchemaError: 409,
    port.InvalidSchemaError: 422,
    TimeoutError: 504,
    rights.AuthenticationError: 401,
    rights.AuthorizationError: 403,
}


WORDS: dict[type[BaseException], str] = {
    TenantNotFoundError: "Tenant does not exist",
    port.NamespaceNotFoundError: "Namespace does not exist",
}
"""Reasons in Pulsar's words, which scripts and clients' own tests compare."""


Table = Mapping[type[BaseException], int]


def status_of(error: BaseException, table: Table = STATUS) -> int | None:
    """Return the status for an error, by the closest row of the table; None: it is a bug."""
    if isinstance(error, Refusal):
        return error.status
    for each in type(error).__mro__:
        if each in table:
            return table[each]
    return None


def refused(error: Exception, what: str, table: Table = STATUS) -> Response:
    """Return the answer for an error raised while `what` (method and path) was answered."""
    status = status_of(error, table)
    if status is None:
        logger.error("%s failed", what, exc_info=error)
        return reason(500, f"{what} failed inside the broker; its log says why")
    # While a process is restarted, everybody who asks for it gets 503; once is said elsewhere.
    # What this version has not, 501, is the caller's matter.
    level = logging.WARNING if status >= 500 and status not in {501, 503} else logging.DEBUG
    logger.log(level, "%s: %s", what, error)
    answer = reason(status, WORDS.get(type(error)) or str(error))
    if isinstance(error, Refusal) and error.allow is not None:
        answer.headers["Allow"] = error.allow
    if status == 503:
        answer.headers["Retry-After"] = "1"
    return answer


def reason(status: int, text: str) -> Response:
    """Return a refusal with Pulsar's body."""
    return Response(
        msgspec.json.encode({"reason": text}), status_code=status, media_type="application/json"
    )
