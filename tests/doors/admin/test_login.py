"""HTTP with log-in: who calls, what they may, route by route."""

from functools import cache
from typing import Any

import pytest

from magnetar.broker.access.caller import Caller
from magnetar.broker.access.rights import Right
from magnetar.broker.doors.admin.app import TABLE, AdminApp
from magnetar.broker.doors.admin.context import Context
from magnetar.broker.doors.admin.http.siblings import CALLER_HEADER, PEER_HEADER, passed_on
from magnetar.broker.doors.admin.routes import Match
from magnetar.broker.metadata import paths
from magnetar.broker.metadata.memory import MemoryStore
from magnetar.broker.metadata.policies import Policies
from tests.access.conftest import HERE, THERE, Guard, furnish, token
from tests.doors.admin.conftest import Ask
from tests.doors.admin.expected_rights import TABLE as EXPECTED
from tests.doors.admin.expected_rights import Level, expected, may

ROLES = (
    "root", "admin", "stranger", "monitor", "producer", "consumer", "on-topic", "worker", "sourcer",
    "sinker", "packer", "keeper", "nobody", None,
)  # fmt: skip
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
    pytest.param(route, domain, id=f"{route.method} {route.template.replace('{domain}', domain)}")
    for route in TABLE
    for domain in (
        ["persistent", "non-persistent"] if "{domain}" in route.template else ["persistent"]
    )
]


@cache
def bearer(role: str | None) -> dict[str, str]:
    return {} if role is None else {"authorization": f"Bearer {token(role)}"}


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


async def wrong_cells(
    ask: Ask, app: AdminApp, method: str, template: str, domain: str
) -> list[tuple[str | None, str, int]]:
    """Return who is let in, or kept out, although Pulsar would not."""
    level = expected(method, template)
    assert level is not None, f"nobody has said who may {method} {template}"
    wrong = []
    for tenant in ("here", "there") if "{tenant}" in template else ("here",):
        path = path_of(template.replace("{domain}", domain), tenant)
        for role in ROLES:
            answer = await ask(app, method, path, headers=bearer(role))
            if role is None:
                right = 299 if level is Level.EVERYBODY else 401
            else:
                right = 299 if may(role, level, tenant, template, domain) else 403
            if answer.status != right:
                wrong.append((role, tenant, answer.status))
    return wrong


@pytest.mark.parametrize(("route", "domain"), CELLS)
async def test_every_route_lets_in_whom_pulsar_lets_in_and_nobody_else(
    ask: Ask, app: AdminApp, route: Any, domain: str
) -> None:
    assert await wrong_cells(ask, app, route.method, route.template, domain) == []


def test_nothing_is_expected_of_routes_that_are_not_there() -> None:
    """A line that fits no route says nothing, and would hide that one was renamed."""
    there = {route.template for route in TABLE}
    assert set(EXPECTED) <= there
    methods = {(route.method, route.template) for route in TABLE}
    by_method = {(m, t) for t, told in EXPECTED.items() if isinstance(told, dict) for m in told}
    assert by_method <= methods


@pytest.mark.parametrize(("route", "domain"), CELLS)
def test_a_right_about_something_has_a_path_that_names_it(route: Any, domain: str) -> None:
    about = {"{tenant}", "{namespace}", "{topic}"} & set(route.template.split("/"))
    match route.right:
        case Right.OPEN | Right.KNOWN | Right.METRICS | Right.SUPERUSER:
            pass
        case Right.TENANT:
            assert "{tenant}" in about
        case Right.HELD:
            raise AssertionError("nothing is held over HTTP")
        case _:
            assert {"{tenant}", "{namespace}"} <= about


STATS = "/admin/v2/{domain}/{tenant}/{namespace}/{topic}/stats"


async def test_a_missing_check_would_be_found(
    ask: Ask, app: AdminApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the matrix: a dispatcher that forgets to ask."""

    async def forgets(*_: Any) -> None:
        return

    monkeypatch.setattr(app._context.access, "authorize", forgets)
    wrong = await wrong_cells(ask, app, "GET", STATS, "non-persistent")
    assert ("nobody", "here", 299) in wrong
    assert ("producer", "there", 299) in wrong


@pytest.mark.parametrize(
    ("declared", "found"),
    [
        (Right.KNOWN, ("nobody", "here", 299)),
        (Right.CONSUME, ("producer", "here", 403)),
        (Right.NAMESPACE, ("consumer", "here", 403)),
        (Right.FUNCTIONS, ("worker", "here", 299)),
    ],
)
async def test_a_right_that_is_declared_wrongly_would_be_found(
    ask: Ask,
    app: AdminApp,
    monkeypatch: pytest.MonkeyPatch,
    declared: Right,
    found: tuple[str, str, int],
) -> None:
    """The other negative control: the table of routes says something, and not what Pulsar does."""
    find = app._routes.find
    monkeypatch.setattr(app._routes, "find", lambda *call: find(*call)._replace(right=declared))
    assert found in await wrong_cells(ask, app, "GET", STATS, "persistent")


async def test_a_route_that_nobody_thought_about_would_be_found(ask: Ask, app: AdminApp) -> None:
    with pytest.raises(AssertionError, match="nobody has said"):
        await wrong_cells(ask, app, "GET", "/admin/v2/{tenant}/secrets", "persistent")


async def test_a_subscription_that_is_kept_is_kept_over_http_too(
    ask: Ask, app: AdminApp, guard: Guard
) -> None:
    """What is refused for one topic is not to be had for all of them at once."""
    namespace, topic = "/admin/v2/namespaces/here/ns", "/admin/v2/persistent/here/ns/t"
    bundle = f"{namespace}/0x00000000_0xffffffff"
    by_name = [
        f"{topic}/subscription/%s/skip_all",
        f"{topic}/subscription/%s/resetcursor",
        f"{namespace}/clearBacklog/%s",
        f"{namespace}/unsubscribe/%s",
        f"{bundle}/clearBacklog/%s",
        f"{bundle}/unsubscribe/%s",
    ]
    for path in by_name:
        for name, status in (("kept", 403), ("other", 299)):
            answer = await ask(app, "POST", path % name, headers=bearer("consumer"))
            assert answer.status == status, path % name
    everything = [
        f"{topic}/all_subscription/expireMessages/1",
        f"{namespace}/clearBacklog",
        f"{bundle}/clearBacklog",
    ]
    for path in everything:
        assert (await ask(app, "POST", path, headers=bearer("consumer"))).status == 403

    def keep_none(policies: Policies) -> None:
        assert policies.grants is not None
        policies.grants.subscriptions = {}

    await guard.namespaces.update(HERE, keep_none)
    await guard.access.grantor.look([paths.namespace(HERE)])
    for path in everything:
        assert (await ask(app, "POST", path, headers=bearer("consumer"))).status == 299

    def by_prefix(policies: Policies) -> None:
        policies.subscription_auth_mode = "Prefix"

    await guard.namespaces.update(HERE, by_prefix)
    await guard.access.grantor.look([paths.namespace(HERE)])
    for path in everything:
        assert (await ask(app, "POST", path, headers=bearer("consumer"))).status == 403
    for path in by_name:
        for name, status in (("other", 403), ("consumer-1", 299)):
            answer = await ask(app, "POST", path % name, headers=bearer("consumer"))
            assert answer.status == status, path % name


@pytest.mark.parametrize("verb", ["grant", "revoke"])
async def test_grants_on_many_topics_are_for_who_administers_all_of_them(
    ask: Ask, new_context: Any, guard: Guard, verb: str
) -> None:
    app = AdminApp(new_context(guard.store, access=guard.access))
    path = f"/admin/v2/namespaces/{verb}PermissionsOnTopics"
    for role, tenants, status in (
        ("admin", ["here"], 204),
        ("admin", ["here", "there"], 403),
        ("admin", ["there", "here"], 403),
        ("on-topic", ["here"], 403),
        ("producer", ["here"], 403),
        ("stranger", ["absent"], 403),
        ("root", ["here", "there"], 204),
    ):
        before = [await guard.namespaces.get(each) for each in (HERE, THERE)]
        body = [
            {"topic": f"persistent://{each}/ns/t", "role": "nobody", "actions": ["consume"]}
            for each in tenants
        ]
        answer = await ask(app, "POST", path, body, headers=bearer(role))
        assert answer.status == status, (role, tenants)
        if status == 403:
            assert [await guard.namespaces.get(each) for each in (HERE, THERE)] == before


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
