"""WebSockets over the HTTPS port, with log-in and two processes: as Pulsar's documentation does it.

A client of any language does what the `websockets` library does here: TLS with the broker's CA, the
token in a header or in the address, or a client certificate instead. Its asyncio client is used:
the one with threads closes a socket that another thread still reads from, and with many of them one
reads what is for another, which TLS notices.
"""

import asyncio
import base64
import json
import ssl
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import jwt
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from magnetar.client.admin import Admin
from tests.conformance.talk import LIMIT_S
from tests.conformance.test_tls import HTTPS
from tests.conformance.test_tls_log_in import SECRET, Asking
from tests.doors.papers import NOW, Papers

WAIT_S = LIMIT_S
HTTP = 8080
ODD = "Müller, Anna + CN=admin/ops"
"""A common name with everything that a careless parser would take for something else."""


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    broker = Asking(tmp_path_factory.mktemp("asking"))
    try:
        yield broker
        assert broker.process.stop() == 0, broker.process.log_end()
    finally:
        broker.process.discard()


def url(asking: Asking, path: str, *, port: int = HTTPS, scheme: str = "wss") -> str:
    return f"{scheme}://localhost:{port + asking.process.ports.offset}/ws/v2/{path}"


def dial(asking: Asking, path: str, shown: Any = None, **options: Any) -> connect:
    return connect(
        url(asking, path), ssl=asking.papers.trust(shown), open_timeout=WAIT_S, **options
    )


async def hear(client: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(client.recv(), WAIT_S))


def bearer(role: str, **claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {jwt.encode({'sub': role, **claims}, SECRET, 'HS256')}"}


def path_of(topic: str) -> str:
    return topic.replace("://", "/")


async def there_and_back(asking: Asking, topic: str, shown: Any = None, **options: Any) -> None:
    """Subscribe, publish, receive and acknowledge."""
    path = path_of(topic)
    async with (
        dial(asking, f"consumer/{path}/s", shown, **options) as consumer,
        dial(asking, f"producer/{path}", shown, **options) as producer,
    ):
        for number in range(3):
            payload = base64.b64encode(str(number).encode()).decode()
            await producer.send(json.dumps({"payload": payload}))
            assert (await hear(producer))["result"] == "ok"
        for number in range(3):
            told = await hear(consumer)
            assert base64.b64decode(told["payload"]) == str(number).encode()
            await consumer.send(json.dumps({"messageId": told["messageId"]}))


async def refused(asking: Asking, path: str, shown: Any = None, **options: Any) -> int:
    with pytest.raises(InvalidStatus) as error:
        await dial(asking, path, shown, **options)
    return error.value.response.status_code


async def test_a_token_in_a_header_or_in_the_address_lets_in(asking: Asking) -> None:
    for topic in asking.topics():
        await there_and_back(asking, topic, additional_headers=bearer("admin"))
    token = jwt.encode({"sub": "admin"}, SECRET, "HS256")
    path = path_of(asking.topics()[0])
    async with dial(asking, f"producer/{path}?token={token}") as producer:
        await producer.send(json.dumps({"payload": ""}))
        assert (await hear(producer))["result"] == "ok"


async def test_a_client_certificate_is_a_log_in(asking: Asking) -> None:
    for topic in asking.topics():
        await there_and_back(asking, topic, asking.papers.client("admin"))


async def test_a_common_name_is_a_role_however_odd_it_is(asking: Asking) -> None:
    shown = asking.papers.write("odd", asking.papers.authority.client(ODD, NOW))
    topics = asking.topics()
    for topic in topics:
        assert await refused(asking, f"producer/{path_of(topic)}", shown) == 403
    with Admin(asking.https, credentials=asking.shown_by("admin")) as admin:
        path = f"/admin/v2/namespaces/public/default/permissions/{quote(ODD, safe='')}"
        admin.json("POST", path, ["produce", "consume"])
    for topic in topics:
        await there_and_back(asking, topic, shown)
    with Admin(asking.https, credentials=asking.shown_by("admin")) as admin:
        admin.json("DELETE", path)


async def test_who_proves_nothing_is_turned_away_before_the_upgrade(asking: Asking) -> None:
    path = f"producer/{path_of(asking.topics()[0])}"
    forged = jwt.encode({"sub": "admin"}, b"another secret of thirty-two bytes!", "HS256")
    ended = bearer("admin", exp=int(time.time()) - 60)
    peer = {"x-magnetar-peer": json.dumps({"address": "127.0.0.1:1", "common_name": "admin"})}
    caller = {"x-magnetar-caller": json.dumps(["admin", "token", None, None, ""])}
    for headers in ({}, {"Authorization": f"Bearer {forged}"}, ended, peer, caller):
        assert await refused(asking, path, additional_headers=headers) == 401, headers
    assert await refused(asking, path, additional_headers=bearer("nobody")) == 403


async def test_a_certificate_of_somebody_else_is_none(asking: Asking, tmp_path: Any) -> None:
    """Neither theirs for ours, nor ours for theirs."""
    path = f"producer/{path_of(asking.topics()[0])}"
    other = Papers(tmp_path / "other", "another CA")
    with pytest.raises((OSError, InvalidHandshake, ConnectionClosed, EOFError)):
        await dial(asking, path, other.client("admin"))
    with pytest.raises((OSError, InvalidHandshake, ConnectionClosed, EOFError)):
        await dial(asking, path, asking.papers.client("admin-2", expired=True))
    with pytest.raises(ssl.SSLCertVerificationError):
        await connect(url(asking, path), ssl=other.trust(), open_timeout=WAIT_S)
    with pytest.raises(ssl.SSLCertVerificationError):
        await connect(
            url(asking, path), ssl=asking.papers.trust(), server_hostname="elsewhere.example",
            open_timeout=WAIT_S,
        )  # fmt: skip


async def test_plain_on_the_tls_port_and_tls_on_the_plain_port_fail_at_once(asking: Asking) -> None:
    path = f"producer/{path_of(asking.topics()[0])}"
    began = time.monotonic()
    with pytest.raises((OSError, InvalidHandshake, ConnectionClosed, EOFError)):
        await connect(url(asking, path, scheme="ws"), open_timeout=WAIT_S)
    with pytest.raises((OSError, InvalidHandshake, ConnectionClosed, EOFError)):
        await connect(url(asking, path, port=HTTP), ssl=asking.papers.trust(), open_timeout=WAIT_S)
    assert time.monotonic() - began < WAIT_S, "neither side waited until it gave up"
    await there_and_back(asking, asking.topics()[0], asking.papers.client("admin"))


async def test_a_connection_that_lives_keeps_its_certificate_when_the_broker_gets_a_new_one(
    asking: Asking,
) -> None:
    path = f"producer/{path_of(asking.topics()[0])}"
    async with dial(asking, path, additional_headers=bearer("admin")) as old:
        before = _serial(old)
        asking.papers.server(clients=asking.papers.ca)  # written over what the broker reads
        deadline = time.monotonic() + WAIT_S
        while True:
            async with dial(asking, path, additional_headers=bearer("admin")) as new:
                after = _serial(new)
            if after != before or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.2)
        assert after != before
        await old.send(json.dumps({"payload": ""}))
        assert (await hear(old))["result"] == "ok"


def _serial(client: ClientConnection) -> str:
    return str(client.transport.get_extra_info("peercert")["serialNumber"])
