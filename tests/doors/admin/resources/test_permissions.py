"""Permissions over REST, as Pulsar's own tools set them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from magnetar.broker.doors.admin.app import AdminApp
from magnetar.broker.metadata.memory import MemoryStore
from tests.access.conftest import Guard, furnish, new_guard, token
from tests.doors.admin.conftest import Ask
from tests.doors.admin.processes import Processes

NAMESPACE = "/admin/v2/namespaces/there/ns"
TOPIC = "/admin/v2/persistent/there/ns/t"


@pytest.fixture
async def guard() -> AsyncIterator[Guard]:
    store = MemoryStore()
    await furnish(store)
    guard = new_guard(store)
    await guard.access.start()
    yield guard
    await guard.access.stop()


@pytest.fixture
async def app(new_context: Any) -> AdminApp:
    store = MemoryStore()
    await furnish(store)
    return AdminApp(new_context(store))


async def test_a_role_is_granted_and_revoked_on_a_namespace(ask: Ask, app: AdminApp) -> None:
    where = f"{NAMESPACE}/permissions"
    assert (await ask(app, "GET", where)).json == {}
    granted = await ask(app, "POST", f"{where}/anna", ["produce", "consume"])
    assert granted.status == 204
    assert (await ask(app, "GET", where)).json == {"anna": ["consume", "produce"]}
    assert (await ask(app, "DELETE", f"{where}/anna")).status == 204
    assert (await ask(app, "DELETE", f"{where}/anna")).status == 204
    assert (await ask(app, "GET", where)).json == {}


async def test_a_grant_replaces_the_one_before(ask: Ask, app: AdminApp) -> None:
    where = f"{NAMESPACE}/permissions"
    await ask(app, "POST", f"{where}/anna", ["produce", "functions"])
    await ask(app, "POST", f"{where}/anna", ["consume"])
    assert (await ask(app, "GET", where)).json == {"anna": ["consume"]}


async def test_a_topic_shows_its_own_grants_and_those_of_the_namespace(
    ask: Ask, app: AdminApp
) -> None:
    await ask(app, "POST", f"{NAMESPACE}/permissions/anna", ["produce"])
    assert (await ask(app, "POST", f"{TOPIC}/permissions/anna", ["consume"])).status == 204
    assert (await ask(app, "GET", f"{TOPIC}/permissions")).json == {"anna": ["consume", "produce"]}
    other = "/admin/v2/persistent/there/ns/other/permissions"
    assert (await ask(app, "GET", other)).json == {"anna": ["produce"]}
    assert (await ask(app, "DELETE", f"{TOPIC}/permissions/anna")).status == 204
    assert (await ask(app, "DELETE", f"{TOPIC}/permissions/anna")).status == 412


async def test_many_topics_are_granted_and_revoked_in_one_call(ask: Ask, app: AdminApp) -> None:
    told = [
        {"topic": f"persistent://there/ns/{name}", "role": "anna", "actions": ["produce"]}
        for name in ("t", "u")
    ]
    where = "/admin/v2/namespaces/grantPermissionsOnTopics"
    assert (await ask(app, "POST", where, told)).status == 204
    for name in ("t", "u"):
        path = f"/admin/v2/persistent/there/ns/{name}/permissions"
        assert (await ask(app, "GET", path)).json == {"anna": ["produce"]}
    revoked = [{"topic": "persistent://there/ns/t", "role": "anna"}]
    where = "/admin/v2/namespaces/revokePermissionsOnTopics"
    for _ in range(2):
        assert (await ask(app, "POST", where, revoked)).status == 204
    assert (await ask(app, "GET", f"{TOPIC}/permissions")).json == {}


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ([{"topic": "there/ns/t/x/y", "role": "anna", "actions": ["produce"]}], 412),
        ([{"topic": "there/ns/t", "role": "", "actions": ["produce"]}], 412),
        ([{"topic": "there/ns/t", "role": "anna", "actions": ["dance"]}], 400),
        ([{"topic": "there/missing/t", "role": "anna", "actions": ["produce"]}], 404),
        ({"topic": "there/ns/t"}, 400),
        (b"", 400),
    ],
)
async def test_nothing_is_granted_if_one_of_many_cannot_be(
    ask: Ask, app: AdminApp, told: Any, status: int
) -> None:
    fine = {"topic": "persistent://there/ns/t", "role": "anna", "actions": ["produce"]}
    body = [fine, *told] if isinstance(told, list) else told
    answer = await ask(app, "POST", "/admin/v2/namespaces/grantPermissionsOnTopics", body)
    assert answer.status == status
    assert (await ask(app, "GET", f"{TOPIC}/permissions")).json == {}


def bearer(role: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token(role)}"}


async def test_only_who_administers_every_one_of_the_topics_may_grant_on_them(
    ask: Ask, guard: Guard, new_context: Any
) -> None:
    app = AdminApp(new_context(guard.store, access=guard.access))
    ours, theirs = (
        {"topic": f"persistent://{tenant}/ns/t", "role": "anna", "actions": ["produce"]}
        for tenant in ("here", "there")
    )
    where = "/admin/v2/namespaces/grantPermissionsOnTopics"
    told = [([ours], 204), ([theirs], 403), ([ours, theirs], 403)]
    for body, status in told:
        answer = await ask(app, "POST", where, body, bearer("admin"))
        assert answer.status == status, body
    assert (await ask(app, "POST", where, [ours], bearer("nobody"))).status == 403


async def test_a_subscription_is_kept_for_some_roles(ask: Ask, app: AdminApp) -> None:
    where = f"{NAMESPACE}/permissions/subscription"
    assert (await ask(app, "POST", f"{where}/s", ["anna", "berta"])).status == 204
    assert (await ask(app, "GET", where)).json == {"s": ["anna", "berta"]}
    assert (await ask(app, "DELETE", f"{where}/s/anna")).status == 204
    assert (await ask(app, "GET", where)).json == {"s": ["berta"]}
    # As the Java client writes it.
    assert (await ask(app, "DELETE", f"{NAMESPACE}/permissions/s/berta")).status == 204
    assert (await ask(app, "GET", where)).json == {}


@pytest.mark.parametrize(
    ("body", "status"),
    [(["fly"], 412), ("produce", 400), ([1], 400), (b"", 400), ({"produce": True}, 400)],
)
async def test_a_grant_that_makes_no_sense_is_refused(
    ask: Ask, app: AdminApp, body: object, status: int
) -> None:
    for where in (NAMESPACE, TOPIC):
        assert (await ask(app, "POST", f"{where}/permissions/anna", body)).status == status


async def test_a_role_has_a_name_that_can_be_read(ask: Ask, app: AdminApp) -> None:
    for role in ("%00", "%0a", "x" * 1_100):
        answer = await ask(app, "POST", f"{NAMESPACE}/permissions/{role}", ["produce"])
        assert answer.status == 412


async def test_a_namespace_that_is_not_there_has_no_permissions(ask: Ask, app: AdminApp) -> None:
    for method in ("GET", "POST", "DELETE"):
        tail = "" if method == "GET" else "/anna"
        where = f"/admin/v2/namespaces/there/absent/permissions{tail}"
        assert (await ask(app, method, where, ["produce"])).status == 404


async def test_they_are_part_of_the_namespace_as_pulsar_shows_it(ask: Ask, app: AdminApp) -> None:
    body = {"auth_policies": {"namespace_auth": {"anonymous": ["produce", "consume"]}}}
    assert (await ask(app, "PUT", "/admin/v2/namespaces/there/made", body)).status == 204
    shown = (await ask(app, "GET", "/admin/v2/namespaces/there/made")).json["auth_policies"]
    assert shown["namespace_auth"] == {"anonymous": ["produce", "consume"]}
    assert shown["destination_auth"] == {}


@pytest.mark.parametrize("partitioned", [False, True])
async def test_what_was_granted_on_a_topic_goes_with_it(
    ask: Ask, any_number: Processes, partitioned: bool
) -> None:
    """Whoever makes a topic of the same name later has granted nothing."""
    front, public = any_number.front, "/admin/v2/persistent/public/default"
    what = f"{public}/t/partitions" if partitioned else f"{public}/t"
    assert (await ask(front, "PUT", what, 2 if partitioned else None)).status == 204
    for each in ("t", "t-partition-1", "t2"):
        granted = await ask(front, "POST", f"{public}/{each}/permissions/anna", ["consume"])
        assert granted.status == 204
    assert (await ask(front, "DELETE", what)).status == 204
    shown = [(await ask(front, "GET", f"{public}/{each}/permissions")).json for each in ("t", "t2")]
    assert shown == [{}, {"anna": ["consume"]}]
    assert (await ask(front, "GET", f"{public}/t-partition-1/permissions")).json == {}
