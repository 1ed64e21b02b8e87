"""HTTP with log-in: who calls, what they may, route by route."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from magnetar.broker.access.caller import Caller
from magnetar.broker.access.permissions import meets
from magnetar.broker.access.rights import Right
from magnetar.broker.doors.admin.app import NOUNS, AdminApp
from magnetar.broker.doors.admin.context import Context
from magnetar.broker.doors.admin.routes import Match, Routes, demand_of
from magnetar.broker.doors.admin.siblings import CALLER_HEADER, PEER_HEADER, passed_on
from magnetar.broker.metadata.memory import MemoryStore
from magnetar.names import Domain
from tests.access.conftest import Guard, furnish, new_guard, token
from tests.doors.admin.conftest import Ask

ROUTES = [route for noun in NOUNS for route in noun.ROUTES]
ROLES = ["root", "admin", "stranger", "monitor", "producer", "consumer", "on-topic", "nobody", None]
PARAMETERS = {
    "{namespace}": "ns", "{topic}": "t", "{subscription}": "s", "{bundle}": "0x00000000_0xffffffff",
}  # fmt: skip


def path_of(template: str, tenant: str) -> str:
    """A path that a template leads to; what has no meaning here is `x`."""
    segments = [
        tenant if part == "{tenant}" else PARAMETERS.get(part, "x" if part[:1] == "{" else part)
        for part in template.split("/")
    ]
    return "/".join(segments)


CELLS = [
    pytest.param(route, template, id=f"{route.method} {template}")
    for route in ROUTES
    for template in (
        [route.template.replace("{domain}", domain.value) for domain in Domain]
        if "{domain}" in route.template
        else [route.template]
    )
]


def bearer(role: str | None) -> dict[str, str]:
    return {} if role is None else {"authorization": f"Bearer {token(role)}"}


@pytest.fixture
async def guard() -> AsyncIterator[Guard]:
    store = MemoryStore()
    await furnish(store)
    guard = new_guard(store)
    await guard.access.start()
    yield guard
    await guard.access.stop()


class _Reached(Exception):  # noqa: N818 - it is good news
    """The call came as far as its handler."""


@pytest.fixture
def app(guard: Guard, new_context: Any, monkeypatch: pytest.MonkeyPatch) -> AdminApp:
    """The app with every route, and handlers that only say that they were reached."""
    context: Context = new_context(guard.store, access=guard.access)
    app = AdminApp(context)
    find = app._routes.find

    def find_and_note(method: str, path: str) -> Match[Any]:
        async def reached(_: Any) -> Any:
            raise _Reached

        return find(method, path)._replace(handler=reached)

    monkeypatch.setattr(app._routes, "find", find_and_note)
    monkeypatch.setattr("magnetar.broker.doors.admin.app._STATUS", {_Reached: 299, **_statuses()})
    return app


def _statuses() -> Any:
    from magnetar.broker.doors.admin import app as module

    return module._STATUS


@pytest.mark.parametrize(("route", "template"), CELLS)
async def test_every_route_lets_in_whom_its_right_lets_in_and_nobody_else(
    ask: Ask, app: AdminApp, guard: Guard, route: Any, template: str
) -> None:
    for tenant in ("here", "there"):
        path = path_of(template, tenant)
        found = Routes(ROUTES).find(route.method, path)
        demand = demand_of(found)
        for role in ROLES:
            answer = await ask(app, route.method, path, headers=bearer(role))
            if route.right is Right.OPEN:
                expected = 299
            elif role is None:
                expected = 401
            else:
                expected = 299 if meets(role, demand, guard.access.grantor.known) else 403
            assert answer.status == expected, (role, tenant)


@pytest.mark.parametrize(("route", "template"), CELLS)
def test_a_right_about_something_has_a_path_that_names_it(route: Any, template: str) -> None:
    about = {"{tenant}", "{namespace}", "{topic}"} & set(template.split("/"))
    match route.right:
        case Right.OPEN | Right.KNOWN | Right.METRICS | Right.SUPERUSER:
            pass
        case Right.TENANT:
            assert "{tenant}" in about
        case Right.HELD:
            raise AssertionError("nothing is held over HTTP")
        case _:
            assert {"{tenant}", "{namespace}"} <= about


async def test_a_missing_check_would_be_found(
    ask: Ask, app: AdminApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the matrix: a route that forgets to ask lets a stranger in."""

    async def forgets(*_: Any) -> None:
        return

    monkeypatch.setattr(app._context.access, "authorize", forgets)
    path = "/admin/v2/persistent/here/ns/t/stats"
    assert (await ask(app, "GET", path, headers=bearer("nobody"))).status == 299


async def test_what_there_is_not_is_told_to_those_who_logged_in(ask: Ask, app: AdminApp) -> None:
    for path, status in (("/admin/v2/nothing", 404), ("/admin/v2/functions/x", 409)):
        assert (await ask(app, "GET", path)).status == 401
        assert (await ask(app, "GET", path, headers=bearer("nobody"))).status == status


async def test_401_says_how_to_log_in(ask: Ask, app: AdminApp) -> None:
    answer = await ask(app, "GET", "/admin/v2/tenants")
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.reason


@pytest.mark.parametrize(
    "header",
    ["Bearer", "Bearer x.y.z", "Basic !", "Basic cm9vdDpyb290", "Digest abc", "bearer  ",
     "x" * 20_000],
)  # fmt: skip
async def test_a_credential_that_is_none_is_401(ask: Ask, app: AdminApp, header: str) -> None:
    answer = await ask(app, "GET", "/admin/v2/tenants", headers={"authorization": header})
    assert answer.status == 401
    assert header not in answer.reason


async def test_foreign_and_absent_tenants_look_alike(ask: Ask, app: AdminApp) -> None:
    answers = [
        await ask(app, "GET", f"/admin/v2/{path}", headers=bearer("producer"))
        for path in ("namespaces/there", "namespaces/absent", "tenants/there", "tenants/absent")
    ]
    assert {answer.status for answer in answers} == {403}
    assert len({answer.body for answer in answers}) == 1


@pytest.mark.parametrize(
    "path",
    ["persistent/HERE/ns/t", "persistent/here/NS/t", "persistent/here%2Fns/ns/t",
     "persistent/there/../here/ns/t", "persistent/h%D0%B5re/ns/t", "persistent/here/ns%2Ft/t"],
)  # fmt: skip
async def test_a_name_that_only_looks_like_ones_own_is_not(
    ask: Ask, app: AdminApp, path: str
) -> None:
    answer = await ask(app, "GET", f"/admin/v2/{path}/stats", headers=bearer("producer"))
    assert answer.status in {403, 404, 412}


async def test_a_sibling_calls_in_the_name_of_the_client(ask: Ask, app: AdminApp) -> None:
    path = "/admin/v2/persistent/here/ns/t/stats"
    for role, status in (("producer", 299), ("stranger", 403)):
        named = {CALLER_HEADER: Caller(role, "token").to_text()}
        assert (await ask(app, "GET", path, headers=named)).status == status


def test_nobody_outside_can_say_in_whose_name_they_call() -> None:
    shown = [(CALLER_HEADER.encode(), b"x"), (PEER_HEADER.encode(), b"y"), (b"accept", b"z")]
    assert passed_on(shown) == [(b"accept", b"z")]
    assert passed_on([(CALLER_HEADER.title().encode(), b"x")]) == []


async def test_a_proxy_speaks_for_somebody(ask: Ask, app: AdminApp, guard: Guard) -> None:
    path = "/admin/v2/persistent/here/ns/t/stats"
    headers = {**bearer("proxy"), "x-original-principal": "producer"}
    assert (await ask(app, "GET", path, headers=headers)).status == 403, "the proxy may not"
    assert (await ask(app, "GET", path, headers=bearer("proxy"))).status == 401
    headers = {**bearer("producer"), "x-original-principal": "root"}
    assert (await ask(app, "GET", path, headers=headers)).status == 401


async def test_without_log_in_nobody_is_asked(ask: Ask, new_context: Any) -> None:
    store = MemoryStore()
    await furnish(store)
    app = AdminApp(new_context(store))
    assert (await ask(app, "GET", "/admin/v2/tenants")).status == 200
