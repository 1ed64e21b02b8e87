"""The guard: a web page of another site reaches loopback, but gets no answer there."""

import asyncio
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.http.guard import (
    BODY_BYTES_MAX,
    SMALL_BODY_BYTES_MAX,
    Bodies,
    Guard,
    read_body,
    without_port,
)


class Door:
    """What stands behind the guard: counts who came through."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        await PlainTextResponse("in")(scope, receive, send)


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def guarded(door: Door) -> ASGIApp:
    return Guard(door, ["broker.example"])


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]", "[::1]:8080", "broker.example.:80"],
)
async def test_our_own_names_are_let_in(ask: Any, guarded: ASGIApp, host: str) -> None:
    assert (await ask(guarded, "GET", "/x", headers={"host": host})).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "",
     "[::2]:8080", "localhost@evil.example", "10.0.0.1", "l\u043ecalhost"],
)  # fmt: skip
async def test_a_name_that_is_not_ours_is_refused(
    ask: Any, guarded: ASGIApp, door: Door, host: str
) -> None:
    answer = await ask(guarded, "GET", "/x", headers={"host": host})
    assert (answer.status, door.calls) == (403, 0)
    assert "not this broker" in answer.reason


async def test_without_an_allow_list_every_name_is_let_in(ask: Any, door: Door) -> None:
    assert (await ask(Guard(door, None), "GET", "/x", headers={"host": "any"})).status == 200


async def test_two_host_headers_are_refused(door: Door) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"host", b"evil.example")]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    await Guard(door, None)(scope, None, send)  # type: ignore[arg-type]
    assert (sent[0]["status"], door.calls) == (400, 0)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8080", 200),
        ("https://localhost:8080", 200),
        ("http://localhost:3000", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("", 403),
    ],
)
async def test_a_page_may_call_only_from_our_own_address(
    ask: Any, guarded: ASGIApp, origin: str, status: int
) -> None:
    headers = {"host": "localhost:8080", "origin": origin}
    for method in ("GET", "POST"):
        assert (await ask(guarded, method, "/x", headers=headers)).status == status


async def test_no_answer_may_be_read_by_other_sites(ask: Any, guarded: ASGIApp) -> None:
    answer = await ask(guarded, "GET", "/x", headers={"origin": "http://localhost:8080"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/vnd.partitioned-topic-metadata+json", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data", 415),
        ("application/jsonx", 415),
    ],
)
async def test_a_body_must_say_that_it_is_json(
    ask: Any, guarded: ASGIApp, kind: str, status: int
) -> None:
    for method in ("PUT", "POST", "DELETE"):
        answer = await ask(guarded, method, "/x", b"{}", headers={"content-type": kind})
        assert answer.status == status


async def test_a_body_that_is_packed_is_not_taken_for_json(ask: Any, guarded: ASGIApp) -> None:
    kind = {"content-type": "application/json"}
    for encoding, status in [("gzip", 415), ("br", 415), ("identity", 200)]:
        headers = kind | {"content-encoding": encoding}
        answer = await ask(guarded, "POST", "/x", b"{}", headers=headers)
        assert answer.status == status
    assert (await ask(guarded, "GET", "/x", headers={"content-encoding": "gzip"})).status == 200


async def test_an_empty_body_needs_no_content_type(ask: Any, guarded: ASGIApp) -> None:
    for method in ("PUT", "POST", "DELETE"):
        assert (await ask(guarded, method, "/x")).status == 200
        form = {"content-type": "text/plain"}
        assert (await ask(guarded, method, "/x", headers=form)).status == 415


async def test_a_body_that_says_it_is_too_long_is_refused_unread(
    ask: Any, guarded: ASGIApp, door: Door
) -> None:
    headers = {"content-length": str(BODY_BYTES_MAX + 1)}
    answer = await ask(guarded, "PUT", "/x", b"{}", headers=headers)
    assert (answer.status, door.calls) == (413, 0)


async def test_a_body_that_is_too_long_without_saying_so_is_cut_off() -> None:
    from magnetar.broker.doors.admin.errors import Refusal

    read = 0

    async def receive() -> Any:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": bytes(64 * 1024), "more_body": True}

    with pytest.raises(Refusal, match="more than"):
        await read_body(receive)
    assert read == BODY_BYTES_MAX // (64 * 1024) + 1


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("a:1", "a"),
        ("a", "a"),
        ("[::1]:1", "[::1]"),
        ("[::1]", "[::1]"),
        ("a:b", "a:b"),
        ("a.", "a"),
    ],
)
def test_the_port_is_cut_off_a_host(host: str, name: str) -> None:
    assert without_port(host) == name


async def test_large_bodies_that_stop_half_way_are_bounded_together() -> None:
    """And whoever has little to say is heard all the same."""
    bodies, stalled = Bodies(4 * BODY_BYTES_MAX), asyncio.Event()

    def sender(size: int, *, stalls: bool) -> Receive:
        parts = [b"x" * min(65536, size - at) for at in range(0, size, 65536)]

        async def receive() -> Message:
            if parts:
                await asyncio.sleep(0)
                more = stalls or len(parts) > 1
                return {"type": "http.request", "body": parts.pop(), "more_body": more}
            await stalled.wait()
            return {"type": "http.disconnect"}

        return receive

    attempts = [
        asyncio.create_task(bodies.read(sender(BODY_BYTES_MAX, stalls=True))) for _ in range(100)
    ]
    await asyncio.sleep(0.1)
    refused = [each for each in attempts if each.done()]
    assert len(refused) >= 90
    assert bodies.bytes <= 4 * BODY_BYTES_MAX + 100 * SMALL_BODY_BYTES_MAX
    assert await bodies.read(sender(20_000, stalls=False)) == b"x" * 20_000
    stalled.set()
    told = await asyncio.gather(*attempts, return_exceptions=True)
    assert {each.status for each in told if isinstance(each, Refusal)} == {400, 503}
    assert bodies.bytes == 0
    assert len(await bodies.read(sender(BODY_BYTES_MAX, stalls=False))) == BODY_BYTES_MAX
