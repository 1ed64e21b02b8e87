"""The public port: every call reaches the process it belongs to, also while one is down."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from magnetar.broker.doors.admin.errors import reason
from magnetar.broker.doors.admin.http import forward as forward_module
from magnetar.broker.doors.admin.http.exposition import Family, labels, sample
from magnetar.broker.doors.admin.http.forward import Forward, serve_forward
from magnetar.broker.doors.admin.http.guard import BODY_BYTES_MAX
from magnetar.broker.doors.admin.http.server import HttpServer
from magnetar.broker.doors.admin.http.siblings import HERE, SiblingDownError, Siblings
from magnetar.broker.ownership import owner_of
from tests.doors.admin.processes import Processes


class Worker:
    """A broker process that tells what reached it."""

    def __init__(self, number: int, path: str) -> None:
        self.number = number
        self.path = path
        self.ill = ""
        self.server: HttpServer | None = None
        self.seen: list[str] = []

    async def start(self) -> None:
        self.server = HttpServer(self)
        await self.server.start(uds_path=self.path)

    async def stop(self) -> None:
        if self.server:
            await self.server.stop()
            self.server = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        answer = await self.answer(request)
        await answer(scope, receive, send)

    async def answer(self, request: Request) -> Response:
        path = request.scope["raw_path"].decode()
        self.seen.append(f"{request.method} {path}")
        if path == "/metrics":
            mine = labels({"worker": str(self.number)})
            text = Family("a_total", "Help.", "counter").head() + sample("a_total", mine, 1)
            text += Family(f"b{self.number}", "Help.", "gauge").head()
            return PlainTextResponse(text + sample(f"b{self.number}", mine, 2))
        if path == "/admin/v2/brokers/health":
            return reason(503, self.ill) if self.ill else PlainTextResponse("ok")
        if path == "/admin/v2/brokers/ready":
            return PlainTextResponse("ok")
        if path.endswith("/breaks"):
            return StreamingResponse(self.breaks())
        if path.endswith("/refused"):
            return JSONResponse({"reason": "no"}, 409, headers={"X-Pulsar-Thing": "é"})
        return JSONResponse(
            {
                "worker": self.number,
                "method": request.method,
                "path": path,
                "query": request.scope["query_string"].decode(),
                "here": request.headers.get(HERE),
                "body": (await request.body()).decode(),
            }
        )

    async def breaks(self) -> AsyncIterator[bytes]:
        yield b"half"
        assert self.server
        for connection in list(self.server._state.connections):
            connection.transport.abort()


@pytest.fixture
async def workers(run_folder: Path) -> AsyncIterator[list[Worker]]:
    workers = [Worker(i, str(run_folder / f"worker-{i}.sock")) for i in range(3)]
    for worker in workers:
        await worker.start()
    yield workers
    for worker in workers:
        await worker.stop()


@pytest.fixture
def forward(workers: list[Worker]) -> Forward:
    return Forward(Siblings([worker.path for worker in workers]))


@pytest.mark.parametrize("domain", ["persistent", "non-persistent"])
async def test_a_topics_call_reaches_its_owner(ask: Any, forward: Forward, domain: str) -> None:
    owners = set()
    for i in range(20):
        path = f"/admin/v2/{domain}/public/default/topic-{i}/stats"
        answer = await ask(forward, "GET", path + "?x=%20y")
        assert answer.json["worker"] == owner_of(f"{domain}://public/default/topic-{i}", 3)
        assert (answer.json["path"], answer.json["query"]) == (path, "x=%20y")
        owners.add(answer.json["worker"])
    assert owners == {0, 1, 2}


async def test_a_name_counts_decoded_and_with_its_partition(ask: Any, forward: Forward) -> None:
    for escaped, name in [("%C3%BC", "ü"), ("a%3Ab", "a:b"), ("x-partition-7", "x-partition-7")]:
        answer = await ask(forward, "DELETE", f"/admin/v2/persistent/a/b/{escaped}")
        assert answer.json["worker"] == owner_of(f"persistent://a/b/{name}", 3)


async def test_other_calls_go_to_process_0_with_their_body(ask: Any, forward: Forward) -> None:
    answer = await ask(forward, "PUT", "/admin/v2/namespaces/a/b", {"bundles": {}})
    assert answer.json["worker"] == 0
    assert json.loads(answer.json["body"]) == {"bundles": {}}


async def test_refusals_and_headers_come_back_as_they_were(ask: Any, forward: Forward) -> None:
    answer = await ask(forward, "POST", "/admin/v2/tenants/refused")
    assert (answer.status, answer.reason) == (409, "no")
    assert "x-pulsar-thing" in answer.headers
    assert "transfer-encoding" not in answer.headers


async def test_a_call_that_wants_only_the_head_gets_it(ask: Any, forward: Forward) -> None:
    answer = await ask(forward, "HEAD", "/admin/v2/tenants")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/metrics", 200),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/admin/v2/brokers/health", 200),
        ("/admin/v2/clusters", 200),
        ("/admin/v2/clusters/nowhere", 404),
        ("/admin/v2/namespaces/public/default/clearBacklog", 405),
    ],
)
async def test_head_is_answered_as_get_without_the_body(
    one: Processes, run_folder: Path, path: str, status: int
) -> None:
    server, uds_path = HttpServer(one.front), str(run_folder / "front.sock")
    await server.start(uds_path=uds_path)
    answers: list[tuple[bytes, list[bytes], bytes]] = []
    for method in ("GET", "HEAD"):
        reader, writer = await asyncio.open_unix_connection(uds_path)
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        status_line, *headers = head.split(b"\r\n")
        described = [each for each in headers if not each.startswith(b"transfer-encoding")]
        answers.append((status_line, described, body))
        writer.close()
    await server.stop()
    get, only_head = answers
    assert get[0].split()[1] == str(status).encode()
    assert get[2]
    assert only_head == (*get[:2], b"")


@pytest.mark.parametrize("path", ["/a b", "/\x01", "/\u00fc", "/a\r\nHost: evil"])
async def test_a_path_that_would_not_survive_the_way_is_refused(
    ask: Any, forward: Forward, workers: list[Worker], path: str
) -> None:
    assert (await ask(forward, "GET", path)).status == 400
    assert not any(worker.seen for worker in workers)


async def test_nobody_outside_can_speak_as_a_sibling(ask: Any, forward: Forward) -> None:
    answer = await ask(forward, "PUT", "/admin/v2/namespaces/a/b", headers={HERE: "1"})
    assert answer.json["here"] is None


async def test_another_process_answers_when_process_0_is_down(
    ask: Any, forward: Forward, workers: list[Worker]
) -> None:
    await workers[0].stop()
    assert (await ask(forward, "GET", "/admin/v2/tenants")).json["worker"] == 1


async def test_nobody_answers_for_an_owner_that_is_down(
    ask: Any, forward: Forward, workers: list[Worker]
) -> None:
    owner = owner_of("persistent://a/b/c", 3)
    await workers[owner].stop()
    answer = await ask(forward, "GET", "/admin/v2/persistent/a/b/c/stats")
    assert answer.status == 503
    assert f"broker process {owner} does not answer" in answer.reason
    assert answer.headers["retry-after"] == "1"


async def test_all_down_is_said_as_such(ask: Any, forward: Forward, workers: list[Worker]) -> None:
    for worker in workers:
        await worker.stop()
    for path in ("/admin/v2/tenants", "/metrics", "/readyz", "/admin/v2/brokers/health"):
        assert (await ask(forward, "GET", path)).status == 503
    assert (await ask(forward, "GET", "/healthz")).status == 200


async def test_a_call_that_may_have_been_carried_out_is_not_made_again(
    ask: Any, run_folder: Path, workers: list[Worker]
) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    deaf = await asyncio.start_unix_server(hang_up, run_folder / "deaf.sock")
    forward = Forward(Siblings([str(run_folder / "deaf.sock"), workers[1].path]))
    answer = await ask(forward, "PUT", "/admin/v2/tenants/x")
    deaf.close()
    assert (answer.status, workers[1].seen) == (503, [])


async def test_metrics_of_all_processes_are_one_text(ask: Any, forward: Forward) -> None:
    answer = await ask(forward, "GET", "/metrics")
    families = {family.name: family.samples for family in parse(answer.body.decode())}
    assert [each.labels["worker"] for each in families["a"]] == ["0", "1", "2"]
    assert set(families) == {"a", "b0", "b1", "b2"}
    assert answer.body.count(b"# TYPE a_total") == 1
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")


async def test_metrics_leave_out_a_process_that_is_down(
    ask: Any, forward: Forward, workers: list[Worker]
) -> None:
    await workers[1].stop()
    answer = await ask(forward, "GET", "/metrics")
    assert {family.name for family in parse(answer.body.decode())} == {"a", "b0", "b2"}


async def test_health_needs_every_process(
    ask: Any, forward: Forward, workers: list[Worker]
) -> None:
    assert (await ask(forward, "GET", "/admin/v2/brokers/health")).body == b"ok"
    assert (await ask(forward, "GET", "/readyz")).status == 200
    workers[2].ill = "the disk is full"
    answer = await ask(forward, "GET", "/admin/v2/brokers/health")
    assert (answer.status, answer.reason) == (503, "the disk is full")
    for path in ("/readyz", "/admin/v2/brokers/ready"):
        assert (await ask(forward, "GET", path)).status == 200, "it serves consumers"
    workers[0].ill = "the disk is full"
    workers[1].ill = "something else"
    answer = await ask(forward, "GET", "/admin/v2/brokers/health")
    assert answer.reason == "the disk is full; something else", "what all say is said once"


async def test_a_body_that_is_too_long_reaches_nobody(
    ask: Any, forward: Forward, workers: list[Worker]
) -> None:
    answer = await ask(forward, "PUT", "/admin/v2/tenants/x", bytes(BODY_BYTES_MAX + 1))
    assert answer.status == 413
    assert not any(worker.seen for worker in workers)


async def test_a_client_that_never_sends_its_body_is_not_waited_for(
    forward: Forward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward_module, "BODY_TIMEOUT_S", 0.05)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.sleep(3600)

    scope = {"type": "http", "method": "PUT", "path": "/x", "raw_path": b"/x", "query_string": b"",
             "headers": [], "asgi": {"spec_version": "2.4"}}  # fmt: skip
    await forward(scope, receive, send)
    assert sent[0]["status"] == 504


async def test_calls_in_parallel_are_bounded_and_all_answered(workers: list[Worker]) -> None:
    siblings = Siblings([worker.path for worker in workers], own=0, calls_max=3)
    assert siblings.others == [1, 2]
    answers = await asyncio.gather(*(siblings.ask(1, "GET", f"/{i}") for i in range(30)))
    assert [answer["path"] for answer in answers] == [f"/{i}" for i in range(30)]  # type: ignore[index]
    assert answers[0]["here"] == "1"  # type: ignore[index]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-le", b"SSH-2.0\r\n\r\n"])
async def test_a_process_that_breaks_off_counts_as_down(run_folder: Path, answer: bytes) -> None:
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(speak, run_folder / "a.sock")
    with pytest.raises(SiblingDownError):
        await Siblings([str(run_folder / "a.sock")]).call(0, "GET", "/")
    server.close()


class TestOverASocket:
    """The whole way: a TCP client, the guard, the forwarder, a process."""

    async def call(self, port: int, data: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data.replace("\n", "\r\n").encode())
        try:
            return await asyncio.wait_for(reader.read(), 30)
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    @pytest.fixture
    async def port(self, workers: list[Worker]) -> AsyncIterator[int]:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            server = await serve_forward([sock], [worker.path for worker in workers])
            yield sock.getsockname()[1]
            await server.stop()

    async def test_answers_do_not_wait_for_acknowledgements_of_the_network(
        self, workers: list[Worker]
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.bind(("127.0.0.1", 0))
            server = await serve_forward([sock], [worker.path for worker in workers])
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await server.stop()

    async def test_a_call_comes_through(self, port: int) -> None:
        answer = await self.call(
            port, f"GET /admin/v2/tenants HTTP/1.1\nHost: 127.0.0.1:{port}\nConnection: close\n\n"
        )
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"worker":0' in answer

    async def test_a_page_of_another_site_does_not(self, port: int, workers: list[Worker]) -> None:
        answer = await self.call(
            port, "GET /admin/v2/tenants HTTP/1.1\nHost: evil.example\nConnection: close\n\n"
        )
        assert answer.startswith(b"HTTP/1.1 403")
        assert not workers[0].seen

    async def test_an_answer_that_breaks_off_ends_the_connection(self, port: int) -> None:
        answer = await self.call(
            port, "GET /admin/v2/breaks HTTP/1.1\nHost: localhost\nConnection: close\n\n"
        )
        assert not answer.endswith(b"0\r\n\r\n"), "a half must not look like a whole"
