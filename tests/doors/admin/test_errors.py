"""From errors to statuses: one table, and every error that clients can cause has a row."""

import inspect
import json
import logging

import pytest

from magnetar.broker import port
from magnetar.broker.doors.admin.app import _STATUS
from magnetar.broker.doors.admin.errors import STATUS, Refusal, refused, status_of
from magnetar.broker.doors.admin.http.siblings import SiblingDownError
from magnetar.broker.metadata import facts, store
from magnetar.broker.metadata.documents import InvalidDocumentError
from magnetar.broker.metadata.tenants import TenantNotFoundError
from magnetar.broker.topics.topic import TopicBusyError
from magnetar.names import InvalidNameError

ROWS: list[tuple[Exception, int]] = [
    (InvalidNameError("x"), 412),
    (InvalidDocumentError("x"), 400),
    (facts.AlreadyExistsError("x"), 409),
    (facts.NotFoundError("x"), 404),
    (facts.NotEmptyError("x"), 409),
    (TenantNotFoundError("x"), 404),
    (store.ConflictError("key", "x"), 409),
    (store.StoreUnavailableError("x"), 503),
    (store.CorruptMetadataError("x"), 500),
    (port.TopicNotFoundError("x"), 404),
    (port.NamespaceNotFoundError("x"), 404),
    (port.SubscriptionNotFoundError("x"), 404),
    (port.ServiceNotReadyError("x"), 503),
    (port.PersistenceError("x"), 500),
    (port.MetadataError("x"), 500),
    (port.ProducerBusyError("x"), 409),
    (port.ProducerFencedError("x"), 409),
    (port.ConsumerBusyError("x"), 412),
    (port.ConsumerAssignError("x"), 412),
    (port.NotAllowedError("x"), 405),
    (port.TopicTerminatedError("x"), 409),
    (port.QuotaExceededError("x", hold=True), 412),
    (TopicBusyError("x"), 409),
    (SiblingDownError(1, "x"), 503),
    (TimeoutError("x"), 504),
    (Refusal(418, "x"), 418),
]


@pytest.mark.parametrize(("error", "status"), ROWS)
def test_an_error_has_the_status_that_pulsars_clients_know(error: Exception, status: int) -> None:
    answer = refused(error, "GET /x", _STATUS)
    assert answer.status_code == status
    assert "x" in json.loads(bytes(answer.body))["reason"]
    assert (answer.headers.get("retry-after") == "1") == (status == 503)


def test_every_error_of_the_port_has_a_row() -> None:
    for name, error in inspect.getmembers(port, inspect.isclass):
        if issubclass(error, port.PortError) and error is not port.PortError:
            assert error in STATUS, name


def test_an_error_in_no_row_is_a_bug_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    answer = refused(ZeroDivisionError("secret"), "GET /x")
    assert answer.status_code == 500
    assert b"secret" not in bytes(answer.body)
    assert "secret" in caplog.text


def test_a_restart_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        refused(SiblingDownError(1, "down"), "GET /x", _STATUS)
    assert not caplog.records


@pytest.mark.parametrize(("status", "lines"), [(501, 0), (404, 0), (500, 1)])
def test_a_call_for_what_there_is_not_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture, status: int, lines: int
) -> None:
    with caplog.at_level(logging.INFO):
        refused(Refusal(status, "no"), "GET /x")
    assert len(caplog.records) == lines


def test_a_closer_row_wins_over_one_further_up() -> None:
    assert issubclass(TopicBusyError, port.NotAllowedError)
    assert (status_of(TopicBusyError("x"), _STATUS), status_of(port.NotAllowedError("x"))) == (
        409,
        405,
    )
