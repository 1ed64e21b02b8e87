"""The admin REST client: what it sends, and what it makes of every kind of answer."""

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from magnetar.client import rest
from magnetar.client.admin import Admin, Location
from magnetar.client.rest import AdminError
from magnetar.client.stored import MessageId
from magnetar.names import InvalidNameError


@dataclass
class Server:
    """Answers as a test tells it, and remembers what it was asked."""

    url: str
    answers: list[tuple[int, object]] = field(default_factory=list)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: set[object] = field(default_factory=set)
    hang_up_after_answer: bool = False
    hang_up_before_answer: bool = False


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            server.connections.add(self.client_address)
            super().handle_one_request()

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            server.asked.append((self.command, self.path, json.loads(body) if body else None))
            server.headers.append(dict(self.headers))
            if server.hang_up_before_answer:
                self.close_connection = True
                return
            status, value = server.answers.pop(0) if server.answers else (204, None)
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            content = b"" if status == 204 else content
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = server.hang_up_after_answer

        do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None: ...

    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http_server.server_port}"
    thread = threading.Thread(target=http_server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    http_server.shutdown()
    thread.join()
    http_server.server_close()


@pytest.fixture
def admin(server: Server) -> Iterator[Admin]:
    with Admin(server.url, timeout_s=5) as admin:
        yield admin


T = "/admin/v2/persistent/public/default/orders"

CALLS: list[tuple[Callable[[Admin], object], tuple[str, str, Any]]] = [
    (
        lambda a: a.create_tenant("t", ["c"]),
        ("PUT", "/admin/v2/tenants/t", {"adminRoles": [], "allowedClusters": ["c"]}),
    ),
    (
        lambda a: a.update_tenant("t", ["c"], ["r"]),
        ("POST", "/admin/v2/tenants/t", {"adminRoles": ["r"], "allowedClusters": ["c"]}),
    ),
    (
        lambda a: a.create_cluster("west", "http://west:8080"),
        (
            "PUT",
            "/admin/v2/clusters/west",
            {"serviceUrl": "http://west:8080", "brokerServiceUrl": None},
        ),
    ),
    (lambda a: a.delete_cluster("west"), ("DELETE", "/admin/v2/clusters/west", None)),
    (
        lambda a: a.split_bundle("t/n", "LARGEST"),
        ("PUT", "/admin/v2/namespaces/t/n/LARGEST/split", None),
    ),
    (lambda a: a.unload_namespace("t/n"), ("PUT", "/admin/v2/namespaces/t/n/unload", None)),
    (
        lambda a: a.clear_namespace("t/n", "a/b"),
        ("POST", "/admin/v2/namespaces/t/n/clearBacklog/a%2Fb", None),
    ),
    (
        lambda a: a.create_missed_partitions("orders"),
        ("POST", f"{T}/createMissedPartitions", None),
    ),
    (
        lambda a: a.set_topic_properties("orders", {"a": "b"}),
        ("PUT", f"{T}/properties", {"a": "b"}),
    ),
    (
        lambda a: a.set_subscription_properties("orders", "s", {"a": "b"}),
        ("PUT", f"{T}/subscription/s/properties", {"a": "b"}),
    ),
    (lambda a: a.delete_tenant("t"), ("DELETE", "/admin/v2/tenants/t?force=false", None)),
    (lambda a: a.create_namespace("t/n"), ("PUT", "/admin/v2/namespaces/t/n", None)),
    (
        lambda a: a.delete_namespace("t/n", force=True),
        ("DELETE", "/admin/v2/namespaces/t/n?force=true", None),
    ),
    (lambda a: a.permissions("t/n"), ("GET", "/admin/v2/namespaces/t/n/permissions", None)),
    (
        lambda a: a.grant("t/n/x", "r/1", ["produce"]),
        ("POST", "/admin/v2/persistent/t/n/x/permissions/r%2F1", ["produce"]),
    ),
    (
        lambda a: a.revoke("non-persistent://t/n/x", "r"),
        ("DELETE", "/admin/v2/non-persistent/t/n/x/permissions/r", None),
    ),
    (lambda a: a.policy("t/n", "messageTTL"), ("GET", "/admin/v2/namespaces/t/n/messageTTL", None)),
    (
        lambda a: a.set_policy("t/n", "messageTTL", 0),
        ("POST", "/admin/v2/namespaces/t/n/messageTTL", 0),
    ),
    (
        lambda a: a.remove_policy("t/n", "messageTTL"),
        ("DELETE", "/admin/v2/namespaces/t/n/messageTTL", None),
    ),
    (
        lambda a: a.set_retention("t/n", 5, -1),
        (
            "POST",
            "/admin/v2/namespaces/t/n/retention",
            {"retentionTimeInMinutes": 5, "retentionSizeInMB": -1},
        ),
    ),
    (
        lambda a: a.topics("t/n", mode="PERSISTENT"),
        ("GET", "/admin/v2/namespaces/t/n/topics?mode=PERSISTENT", None),
    ),
    (lambda a: a.create_topic("orders"), ("PUT", T, None)),
    (lambda a: a.create_topic("orders", 3), ("PUT", f"{T}/partitions", 3)),
    (
        lambda a: a.create_topic("orders", 3, {"a": "b"}),
        ("PUT", f"{T}/partitions", {"partitions": 3, "properties": {"a": "b"}}),
    ),
    (
        lambda a: a.create_topic("non-persistent://a/b/c d"),
        ("PUT", "/admin/v2/non-persistent/a/b/c%20d", None),
    ),
    (lambda a: a.update_partitions("orders", 4), ("POST", f"{T}/partitions", 4)),
    (lambda a: a.unload("orders"), ("PUT", f"{T}/unload", None)),
    (lambda a: a.subscriptions("orders"), ("GET", f"{T}/subscriptions", None)),
    (
        lambda a: a.create_subscription("orders", "a/b"),
        ("PUT", f"{T}/subscription/a%2Fb", "latest"),
    ),
    (
        lambda a: a.create_subscription("orders", "s", MessageId(3, 4)),
        ("PUT", f"{T}/subscription/s", {"ledgerId": 3, "entryId": 4, "partitionIndex": -1}),
    ),
    (
        lambda a: a.delete_subscription("orders", "s"),
        ("DELETE", f"{T}/subscription/s?force=false", None),
    ),
    (lambda a: a.skip("orders", "s", 5), ("POST", f"{T}/subscription/s/skip/5", None)),
    (lambda a: a.clear("orders", "s"), ("POST", f"{T}/subscription/s/skip_all", None)),
    (lambda a: a.expire("orders", "s", 9), ("POST", f"{T}/subscription/s/expireMessages/9", None)),
    (
        lambda a: a.reset("orders", "s", 1700),
        ("POST", f"{T}/subscription/s/resetcursor/1700", None),
    ),
    (
        lambda a: a.reset("orders", "s", MessageId(1, 2, 3)),
        (
            "POST",
            f"{T}/subscription/s/resetcursor",
            {"ledgerId": 1, "entryId": 2, "partitionIndex": 3},
        ),
    ),
]


@pytest.mark.parametrize(("call", "request_"), CALLS)
def test_a_call_is_one_request_in_pulsars_words(
    server: Server, admin: Admin, call: Callable[[Admin], object], request_: tuple[str, str, Any]
) -> None:
    call(admin)
    assert server.asked == [request_]
    assert server.headers[0]["Content-Type"] == "application/json"


def test_a_topic_is_deleted_as_what_it_is(server: Server, admin: Admin) -> None:
    server.answers = [(200, {"partitions": 0}), (204, None), (200, {"partitions": 3})]
    admin.delete_topic("orders")
    admin.delete_topic("orders", force=True)
    deletes = [asked[1] for asked in server.asked if asked[0] == "DELETE"]
    assert deletes == [f"{T}?force=false", f"{T}/partitions?force=true"]


def test_namespaces_of_all_tenants_are_collected(server: Server, admin: Admin) -> None:
    server.answers = [(200, ["a", "b"]), (200, ["a/x"]), (200, ["b/y", "b/z"])]
    assert admin.namespaces() == ["a/x", "b/y", "b/z"]


def test_the_statistics_of_a_partitioned_topic_are_found(server: Server, admin: Admin) -> None:
    server.answers = [(404, {"reason": "no"}), (200, {"partitions": 2}), (200, {"msgInCounter": 7})]
    assert admin.stats("orders") == {"msgInCounter": 7}


def test_positions_and_locations_are_read(server: Server, admin: Admin) -> None:
    server.answers = [
        (200, {"ledgerId": 1, "entryId": 2, "partitionIndex": -1}),
        (200, {"brokerUrl": "pulsar://h:1", "httpUrl": "http://h:2", "brokerUrlTls": None}),
        (200, 1234),
    ]
    assert admin.last_message_id("orders") == MessageId(1, 2)
    assert admin.lookup("orders") == Location("pulsar://h:1", "http://h:2")
    assert admin.backlog_size("orders", MessageId(0, 0)) == 1234


def test_messages_are_decoded(server: Server, admin: Admin) -> None:
    message = {
        "ledgerId": 3,
        "entryId": 4,
        "batchIndex": 1,
        "publishTime": 99,
        "payload": base64.b64encode(b"\x00\xff").decode(),
        "keyBytes": base64.b64encode(b"k").decode(),
        "chunk": {"index": 0, "count": 2},
    }
    server.answers = [(200, {"messages": [message]}), (404, {"reason": "no more"})]
    (found,) = admin.peek("orders-partition-2", "s", 3)
    assert found.id == MessageId(3, 4, 2, 1)
    assert (found.payload, found.key_bytes, found.chunk) == (b"\x00\xff", b"k", (0, 2))
    paths = [asked[1].split("orders-partition-2")[1] for asked in server.asked]
    assert paths == [f"/subscription/s/position/{n}?format=json" for n in (1, 2)]


def test_an_empty_backlog_is_said_to_be(server: Server, admin: Admin) -> None:
    server.answers = [(404, {"reason": "the backlog of 's' has no entry 1"})]
    with pytest.raises(AdminError, match="has no entry 1"):
        admin.peek("orders", "s")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"reason": "topic busy"}, "topic busy"),
        (b"plain words", "plain words"),
        (b"", "PUT /admin/v2/persistent/public/default/orders was refused with HTTP status 409"),
        ([], "[]"),
    ],
)
def test_a_refusal_carries_status_and_reason(
    server: Server, admin: Admin, answer: object, reason: str
) -> None:
    server.answers = [(409, answer)]
    with pytest.raises(AdminError) as error:
        admin.create_topic("orders")
    assert (error.value.status, error.value.reason) == (409, reason)


def test_an_answer_that_is_no_json_is_not_believed(server: Server, admin: Admin) -> None:
    server.answers = [(200, b"<html>")]
    with pytest.raises(AdminError, match="not JSON"):
        admin.tenants()


def test_an_answer_without_end_is_not_collected(
    server: Server, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "ANSWER_BYTES_MAX", 100)
    server.answers = [(200, b'"' + b"x" * 200 + b'"'), (200, [])]
    with pytest.raises(AdminError, match="more than 100 bytes"):
        admin.tenants()
    assert admin.tenants() == []


def test_nobody_there_is_said_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with Admin(f"http://127.0.0.1:{port}") as admin, pytest.raises(AdminError) as error:
        admin.tenants()
    assert error.value.status == 0
    assert "no broker answers" in error.value.reason
    assert "magnetar standalone" in error.value.reason


def test_silence_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Admin(url, timeout_s=0.05) as admin, pytest.raises(AdminError, match="no answer"):
            admin.tenants()


@pytest.mark.parametrize("url", ["ftp://x", "http://", "", "http://h:port", "http://h:99999"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(AdminError, match="is no admin address"):
        Admin(url)


def test_reading_keeps_one_connection(server: Server, admin: Admin) -> None:
    server.answers = [(200, [])] * 3
    for _ in range(3):
        admin.tenants()
    assert len(server.connections) == 1


def test_a_kept_connection_that_was_closed_meanwhile_is_opened_again(
    server: Server, admin: Admin
) -> None:
    server.hang_up_after_answer = True
    server.answers = [(200, ["a"]), (200, ["b"])]
    assert admin.tenants() == ["a"]
    assert admin.tenants() == ["b"]


def test_a_change_whose_fate_is_unknown_is_not_made_twice(server: Server, admin: Admin) -> None:
    server.answers = [(200, [])]
    admin.tenants()
    server.hang_up_before_answer = True
    with pytest.raises(AdminError, match="no broker answers"):
        admin.skip("orders", "s", 5)
    assert [asked[0] for asked in server.asked] == ["GET", "POST"]


@pytest.mark.parametrize("topic", ["a/b", "persistent://a/b", "x://a/b/c", "a/b/c/d", ""])
def test_a_name_that_is_no_topic_is_refused_before_anybody_is_asked(
    server: Server, admin: Admin, topic: str
) -> None:
    with pytest.raises(InvalidNameError):
        admin.stats(topic)
    assert not server.asked


def test_a_token_is_sent_along(server: Server) -> None:
    server.answers = [(200, [])]
    with Admin(server.url, token="t0ken") as admin:
        admin.tenants()
    assert server.headers[0]["Authorization"] == "Bearer t0ken"


@pytest.mark.parametrize(
    ("id_", "text"),
    [
        (MessageId(1, 2), "1:2"),
        (MessageId(1, 2, 3), "1:2:3"),
        (MessageId(1, 2, -1, 4), "1:2:-1:4"),
    ],
)
def test_a_message_id_reads_as_pulsars_clients_print_it(id_: MessageId, text: str) -> None:
    assert str(id_) == text
