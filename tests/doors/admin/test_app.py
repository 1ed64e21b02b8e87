"""The whole app under hostile calls: whatever comes, it answers, and nothing breaks."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from magnetar.broker.doors.admin import app as app_module
from magnetar.broker.doors.admin.app import NOUNS
from magnetar.broker.doors.admin.routes import Right
from tests.doors.admin.processes import Processes

ROUTES = [route for noun in NOUNS for route in noun.ROUTES]

segment = st.one_of(
    st.sampled_from(
        ["public", "default", "orders", "orders-partition-0", "s", "persistent", "0", "1", "-1",
         "99999999999999999999", "%00", "%ff", "..", "%2F", "a%2Fb", "%F0%9F%A6%80", "x" * 1100,
         "earliest", "0x00000000_0x40000000", "%", "%zz", "*", "\u0130"]
    ),
    st.text(max_size=8).map(lambda text: text.replace("/", "").replace("?", "")),
)  # fmt: skip

bodies = st.one_of(
    st.sampled_from(
        [b"", b"null", b"{", b"[]", b"0", b"-1", b"true", b'"earliest"', b'"x"', b"\xff\xfe",
         b"1e999",
         b"9" * 400, b'{"ledgerId": 0, "entryId": 0}', b'{"ledgerId": -5, "entryId": -5}',
         b'{"ledgerId": 9223372036854775807, "entryId": 9223372036854775807}',
         b'{"partitions": 3}', b"[" * 50_000, b'{"bundles": 7}', b'{"properties": 3}',
         b'{"ledgerId": 0, "entryId": 0, "properties": 7}',
         b'{"ledgerId": 0, "entryId": 0, "properties": {"a": 7}}']
    ),
    st.binary(max_size=20),
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda some: st.lists(some) | st.dictionaries(st.sampled_from(["limitSize", "x"]), some),
    ).map(lambda value: json.dumps(value).encode()),
)  # fmt: skip

queries = st.sampled_from(
    ["", "?force=true", "?force=maybe", "?%ff=%ff", "?" + "&".join(["a=b"] * 99),
     "?messagePosition=x", "?mode=%00", "?format=json", "?backlogQuotaType=",
     "?checkAllowAutoCreation=true", "?key=%FF"]
)  # fmt: skip


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, str, bytes]:
    route = draw(st.sampled_from(ROUTES))
    path = route.template.replace(
        "{domain}", draw(st.sampled_from(["persistent", "non-persistent"]))
    )
    parts = [draw(segment) if part.startswith("{") else part for part in path.strip("/").split("/")]
    method = draw(st.sampled_from([route.method] * 4 + ["GET", "PUT", "POST", "DELETE", "HEAD"]))
    return method, "/" + "/".join(parts) + draw(queries), draw(bodies)


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(calls=st.lists(calls(), min_size=1, max_size=6))
async def test_no_call_does_worse_than_a_refusal(
    ask: Any, one: Processes, calls: list[tuple[str, str, bytes]]
) -> None:
    for method, target, body in calls:
        headers = {"content-type": "application/json"}
        answer = await ask(one.front, method, target, body, headers)
        assert answer.status < 500 or answer.status == 501, (method, target, body, answer.body)
        assert answer.status < 400 or method == "HEAD" or answer.reason
    assert (await ask(one.front, "GET", "/admin/v2/brokers/health")).body == b"ok"


async def test_a_handler_that_takes_too_long_is_given_up(
    ask: Any, one: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "HANDLER_TIMEOUT_S", 0.05)

    async def forever(*_: object, **__: object) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(one.all[0].catalog, "topics", forever)
    path = "/admin/v2/namespaces/public/default/topics"
    assert (await ask(one.all[0].app, "GET", path)).status == 504


def test_every_route_says_which_right_it_will_need() -> None:
    assert all(isinstance(route.right, Right) for route in ROUTES)
    open_routes = {route.template for route in ROUTES if route.right is Right.OPEN}
    assert open_routes == {f"/admin/v2/{path}" for path in ("brokers/health", "brokers/ready")}


def test_nothing_is_changed_by_asking() -> None:
    """What GET does must be safe to repeat: clients and people do, and pages may be made to."""
    for route in ROUTES:
        if route.method == "GET":
            name = route.handler.__name__
            assert not name.startswith(("set", "delete", "create", "remove", "unset", "skip")), name
