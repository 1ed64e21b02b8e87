"""What only Pulsar has is told apart from what nobody has."""

from typing import Any

import pytest

from magnetar.broker.doors.admin.absent import missing_feature
from tests.doors.admin.processes import Processes
from tests.doors.admin.pulsar_rest import calls

TOPIC = "/admin/v2/persistent/public/default/t"
NAMESPACE = "/admin/v2/namespaces/public/default"


@pytest.mark.parametrize(
    ("method", "path", "feature"),
    [
        ("POST", "/admin/v2/brokers/shutdown", "SIGTERM"),
        ("POST", "/topics/persistent/public/default/t", "publishing over HTTP"),
        ("GET", "/admin/v2/metadata/migration/status", "metadata"),
        ("POST", "/admin/v2/metadata/migration/start", "metadata"),
        ("GET", "/admin/v3/transactions/coordinatorInternalStats/0", "transactions"),
        ("GET", "/admin/v3/transactions/pendingAckInternalStats/a/b/c/d", "transactions"),
        ("GET", "/admin/v3/transactions/transactionBufferInternalStats/a/b/c", "transactions"),
    ],
)
async def test_what_pulsar_has_is_not_available_in_this_version(
    ask: Any, one: Processes, method: str, path: str, feature: str
) -> None:
    answer = await ask(one.front, method, path)
    assert answer.status == 501
    assert answer.reason.startswith("not available in this version: ")
    assert feature in answer.reason


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/admin/v2/worker/cluster", 409),
        ("GET", "/admin/v2/worker-stats/metrics", 409),
        ("POST", "/admin/v3/functions/public/default/f", 409),
        ("GET", "/admin/v2/functions/public/default", 409),
        ("GET", "/admin/v3/sources/builtinsources", 409),
        ("GET", "/admin/v3/sinks/public/default", 409),
        ("GET", "/admin/v3/packages/function/public/default", 503),
    ],
)
async def test_what_pulsar_has_only_where_it_is_switched_on_is_answered_as_if_it_was_not(
    ask: Any, one: Processes, method: str, path: str, status: int
) -> None:
    answer = await ask(one.front, method, path)
    assert (answer.status, answer.reason.endswith("not enabled in this broker")) == (status, True)


async def test_what_is_no_policy_is_not_taken_for_a_bundle(ask: Any, one: Processes) -> None:
    for method in ("GET", "POST", "PUT"):
        answer = await ask(one.front, method, f"{NAMESPACE}/nonsense", 5)
        assert (answer.status, "no policy" in answer.reason) == (404, True), method
    answer = await ask(one.front, "DELETE", f"{NAMESPACE}/nonsense")
    assert (answer.status, "no policy" in answer.reason) == (412, True)
    bundle = await ask(one.front, "POST", f"{NAMESPACE}/0x00000000_0x40000000", 5)
    assert bundle.status == 405


@pytest.mark.parametrize(
    "path",
    ["/", "/admin/v2/proxy-stats/connections", "/admin/v3/nonsense", f"{TOPIC}/nonsense",
     "/admin/v2/nonsense", "/admin/v2/namespaces//default/permissions"],
)  # fmt: skip
async def test_what_nobody_has_is_not_there(ask: Any, one: Processes, path: str) -> None:
    assert (await ask(one.front, "GET", path)).status == 404


async def test_no_call_that_pulsar_answers_is_taken_for_a_mistake(ask: Any, one: Processes) -> None:
    told: list[str] = []
    for method, path in calls():
        answer = await ask(one.front, method, path, b"" if method in {"GET", "DELETE"} else b"{}")
        if answer.status >= 400 and _no_such_call(answer):
            told.append(f"{method} {path}: {answer.status} {answer.reason}")
    assert told == []


@pytest.mark.parametrize(
    ("method", "path"), [("GET", f"{TOPIC}/nonsense"), ("PATCH", f"{TOPIC}/stats")]
)
async def test_a_call_that_pulsar_does_not_have_is_told_so(
    ask: Any, one: Processes, method: str, path: str
) -> None:
    assert _no_such_call(await ask(one.front, method, path))


def _no_such_call(answer: Any) -> bool:
    """Whether an answer says that the path or its method does not exist."""
    return answer.reason.startswith("there is no /") or "is not possible here" in answer.reason


async def test_settings_of_a_running_broker_are_not_taken_for_a_cluster(
    ask: Any, one: Processes
) -> None:
    assert (await ask(one.front, "GET", "/admin/v2/brokers/configuration")).status == 200
    assert (await ask(one.front, "GET", "/admin/v2/brokers/backlog-quota-check")).status == 204
    assert (await ask(one.front, "GET", "/admin/v2/brokers/west")).status == 404


async def test_a_subscription_may_have_such_a_word_as_its_name(ask: Any, one: Processes) -> None:
    answer = await ask(one.front, "PATCH", f"{TOPIC}/subscription/trim/skip_all")
    assert answer.status == 405


async def test_a_topic_may_have_such_a_word_as_its_name(ask: Any, one: Processes) -> None:
    path = "/admin/v2/persistent/public/default/permissions"
    assert (await ask(one.front, "GET", f"{path}/stats")).status == 404
    assert missing_feature(path.strip("/").split("/")) is None


async def test_a_missing_namespace_is_named_rather_than_its_topic(ask: Any, one: Processes) -> None:
    for tail in ("/partitions", "/stats", "/properties", "/internalStats", "/subscriptions"):
        answer = await ask(one.front, "GET", f"/admin/v2/persistent/nobody/nothing/t{tail}")
        assert (answer.status, answer.reason) == (404, "Namespace does not exist")
