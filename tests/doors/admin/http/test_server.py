"""The HTTP server: bounded heads, and a stop that lets go of everything."""

import asyncio
import contextlib
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from magnetar.broker.doors.admin.http import server as server_module
from magnetar.broker.doors.admin.http.guard import read_body
from magnetar.broker.doors.admin.http.server import HEAD_BYTES_MAX, HttpServer


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(scope["raw_path"])(scope, receive, send)


async def exchange(path: str, data: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()


def request(target: str, *headers: str) -> bytes:
    lines = [f"GET {target} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.fixture
async def path(run_folder: Path) -> str:
    return str(run_folder / "admin.sock")


async def test_a_path_arrives_undecoded(path: str) -> None:
    server = HttpServer(hello)
    await server.start(uds_path=path)
    answer = await exchange(path, request("/a%2Fb/../c"))
    await server.stop()
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"/a%2Fb/../c")


@pytest.mark.parametrize("where", ["url", "headers"])
async def test_an_endless_head_is_cut_off(path: str, where: str) -> None:
    server = HttpServer(hello)
    await server.start(uds_path=path)
    filler = "a" * HEAD_BYTES_MAX
    data = request(f"/{filler}") if where == "url" else request("/", f"X-Much: {filler}")
    answer = await exchange(path, data)
    await server.stop()
    assert answer.startswith(b"HTTP/1.1 400")


CHUNKED = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET ",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX",
        CHUNKED + b"1;",
        CHUNKED + b"1;a=",
        CHUNKED + b"1\r\nx\r\n0\r\nX: ",
        CHUNKED + b"0\r\nX: a\r\nX",
    ],
    ids=["method", "url", "value", "name", "size", "extension", "trailer", "second trailer"],
)
async def test_a_line_without_end_is_cut_off_before_it_ends(path: str, begun: bytes) -> None:
    async def reads_the_body(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass

    server = HttpServer(reads_the_body)
    await server.start(uds_path=path)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(begun)
    taken = 0
    with suppress(ConnectionError):
        while taken < 100 * HEAD_BYTES_MAX and not reader.at_eof():
            writer.write(b"a" * 4096)
            await writer.drain()
            await asyncio.sleep(0)
            taken += 4096
    writer.close()
    await server.stop()
    # What the kernel and asyncio had on the way when the server hung up, no more.
    assert taken < 10 * HEAD_BYTES_MAX


async def test_a_header_without_end_is_answered_with_400(path: str) -> None:
    server = HttpServer(hello)
    await server.start(uds_path=path)
    endless = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * HEAD_BYTES_MAX
    assert (await exchange(path, endless)).startswith(b"HTTP/1.1 400")
    await server.stop()


async def test_a_long_body_in_small_chunks_is_no_long_head(path: str) -> None:
    async def length(scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        await PlainTextResponse(str(len(body)))(scope, receive, send)

    server = HttpServer(length)
    await server.start(uds_path=path)
    body = b"1\r\nx\r\n" * HEAD_BYTES_MAX + b"0\r\nX-Sum: 1\r\n\r\n"
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert (await exchange(path, head + body)).endswith(str(HEAD_BYTES_MAX).encode())
    await server.stop()


async def test_a_monitor_is_served_while_others_hold_connections_without_asking(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "CONNECTIONS_MAX", 8)
    server = HttpServer(hello)
    await server.start(uds_path=path)
    silent = [await asyncio.open_unix_connection(path) for _ in range(20)]
    for _, writer in silent[::2]:
        writer.write(b"GET / HTTP/1.1\r\nHost:")
    assert (await exchange(path, request("/x"))).endswith(b"/x")
    assert await silent[1][0].read() == b""
    for _, writer in silent:
        writer.close()
    await server.stop()


async def test_whoever_waits_for_an_answer_makes_no_room_for_others(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "CONNECTIONS_MAX", 8)
    begun, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        begun.release()
        await go_on.wait()
        await hello(scope, receive, send)

    server = HttpServer(slow)
    await server.start(uds_path=path)
    asked = [asyncio.create_task(exchange(path, request(f"/{i}"))) for i in range(7)]
    for _ in asked:
        await begun.acquire()
    assert (await exchange(path, request("/x"))).startswith(b"HTTP/1.1 503")
    go_on.set()
    assert [answer[-1:] for answer in await asyncio.gather(*asked)] == [
        str(i).encode() for i in range(7)
    ]
    await server.stop()


@pytest.mark.parametrize("source", ["127.0.0.2", "127.0.0.1"])
async def test_a_host_that_has_most_connections_makes_room_for_another(
    monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """Such as one that reads no answers; whoever shares its address waits with it."""
    monkeypatch.setattr(server_module, "CONNECTIONS_MAX", 8)
    begun, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/x":
            begun.release()
            await go_on.wait()
        await hello(scope, receive, send)

    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    server = HttpServer(slow)
    await server.start(sockets=[listening])
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
    for _, writer in held:
        writer.write(request("/held"))
    for _ in range(7):
        await begun.acquire()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    writer.write(request("/x"))
    answer = await reader.read()
    if source == "127.0.0.2":
        assert answer.endswith(b"/x")
    else:
        assert answer.startswith(b"HTTP/1.1 503")
    go_on.set()
    for _, each in [*held, (reader, writer)]:
        each.transport.abort()
    await server.stop()


async def test_requests_that_nobody_waits_for_are_not_collected(path: str) -> None:
    """A client that asks and asks, and reads nothing, holds as much as any other."""
    server = HttpServer(hello)
    await server.start(uds_path=path)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5_000)
    held = 0
    with contextlib.suppress(ConnectionError):
        while await reader.read(65536):
            protocols: list[Any] = list(server._state.connections)
            held = max([held, *(len(each.pipeline) for each in protocols)])
    assert held <= server_module.PIPELINED_MAX
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    await server.stop()
    await asyncio.sleep(0.01)


async def test_some_requests_may_be_sent_ahead(path: str) -> None:
    server = HttpServer(hello)
    await server.start(uds_path=path)
    count = server_module.PIPELINED_MAX
    whole = b"".join(
        b"GET /q%02d HTTP/1.1\r\nHost: localhost\r\n\r\n" % each for each in range(count)
    )
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(whole)
    for each in range(count):
        assert (await reader.readuntil(b"/q%02d" % each)).startswith(b"HTTP/1.1 200")
    writer.close()
    await server.stop()


async def test_an_idle_client_makes_room_after_its_answer(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "CONNECTIONS_MAX", 3)
    server = HttpServer(hello)
    await server.start(uds_path=path)
    kept = [await asyncio.open_unix_connection(path) for _ in range(2)]
    for reader, writer in kept:
        writer.write(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readuntil(b"/x")).startswith(b"HTTP/1.1 200")
    assert (await exchange(path, request("/y"))).endswith(b"/y")
    assert await kept[0][0].read() == b""
    for _, writer in kept:
        writer.close()
    await server.stop()


async def test_a_head_that_comes_too_slowly_is_hung_up_on(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "HEAD_TIMEOUT_S", 0.05)
    server = HttpServer(hello)
    await server.start(uds_path=path)
    try:
        assert await exchange(path, b"GET / HTTP/1.1\r\nHost:") == b""
        assert await exchange(path, b"") == b""
    except ConnectionResetError:
        pass  # hung up on just as well
    await server.stop()


async def test_a_slow_answer_is_not_a_slow_head(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HEAD_TIMEOUT_S", 0.05)

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.15)
        await hello(scope, receive, send)

    server = HttpServer(slow)
    await server.start(uds_path=path)
    assert (await exchange(path, request("/x"))).endswith(b"/x")
    await server.stop()


@pytest.mark.parametrize(
    "data",
    [b"\x00\xff" * 50, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n"],
)
async def test_what_is_no_http_gets_an_error_and_costs_nobody_else_anything(
    path: str, data: bytes
) -> None:
    server = HttpServer(hello)
    await server.start(uds_path=path)
    assert (await exchange(path, data))[:12] in {b"HTTP/1.1 400", b""}
    assert (await exchange(path, request("/well"))).endswith(b"/well")
    await server.stop()


async def test_a_stop_lets_requests_finish_and_hangs_up_on_idle_clients(path: str) -> None:
    begun = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.sleep(0.1)
        await hello(scope, receive, send)

    server = HttpServer(slow)
    await server.start(uds_path=path)
    idle_reader, idle_writer = await asyncio.open_unix_connection(path)
    answer = asyncio.create_task(exchange(path, request("/x")))
    await begun.wait()
    await server.stop()
    assert (await answer).endswith(b"/x")
    assert await idle_reader.read() == b""
    idle_writer.close()
    with pytest.raises(OSError, match=r"refused|No such file"):
        await asyncio.open_unix_connection(path)


async def test_a_socket_left_by_a_killed_process_is_taken_over(path: str) -> None:
    first = HttpServer(hello)
    await first.start(uds_path=path)
    # The first is not stopped, as after SIGKILL; its name is simply taken.
    second = HttpServer(hello)
    await second.start(uds_path=path)
    assert (await exchange(path, request("/x"))).endswith(b"/x")
    await second.stop()
    await first.stop()
