"""Admin REST keeps what its description says, whatever it is asked and in whatever order.

All routes are called with what may be sent and with what may not, on a broker that has topics,
partitions, messages and subscriptions. No answer is an error of the broker's own, each has the
shape that is described, and the broker is well afterwards. The long form makes more calls:

    TESTS_REST=full pytest tests/conformance/test_rest_fuzz.py
"""

import http.client
import json
import logging
import os
from collections.abc import Mapping
from contextlib import closing, suppress
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from magnetar.broker.wire.pulsar import client_role
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.generated.PulsarApi_pb2 import BaseCommand
from magnetar.client.admin import Admin
from magnetar.client.rest import AdminError
from magnetar.names import Domain
from tests.conformance.child import Child, running
from tests.conformance.line import Line
from tests.conformance.rest_words import PLACES, Call, Words, complaint, flaw

logger = logging.getLogger(__name__)

FULL = os.environ.get("TESTS_REST") == "full"
FURNISH_EVERY = 60
ROUNDS = 60 if FULL else 1
TOPICS = {"p": 3, "päck chen": 0, "t0": 0, "t1": 0}
"""By name, and how many partitions."""
SEED = int(os.environ.get("TESTS_REST_SEED", "3"))

pytestmark = pytest.mark.timeout(3600 if FULL else 120)


def furnish(broker: Child) -> None:
    """Make what most calls are about, as far as it is not there."""
    with broker.admin() as admin:
        for tenant, namespace in PLACES:
            with suppress(AdminError):
                admin.create_tenant(tenant)
            with suppress(AdminError):
                admin.create_namespace(f"{tenant}/{namespace}")
            for domain, (name, partitions) in product(Domain, TOPICS.items()):
                with suppress(AdminError):
                    topic = f"{domain.value}://{tenant}/{namespace}/{name}"
                    admin.create_topic(topic, partitions)
    for tenant, namespace in PLACES:
        for name in ("t0", "t1"):
            with suppress(AssertionError, TimeoutError):  # a policy may be against it
                publish(broker.port, f"persistent://{tenant}/{namespace}/{name}")


def publish(port: int, topic: str) -> None:
    with Line(port) as line:
        line.subscribe(topic, "s0")
        line.produce(topic)
        for number in range(3):
            metadata = api.MessageMetadata(
                producer_name="fuzz", sequence_id=number, publish_time=1_700_000_000_000
            )
            line.ask(client_role.send(0, metadata, b"x"), BaseCommand.SEND_RECEIPT, limit_s=1)


def answer_to(address: str, call: Call) -> tuple[int, str, bytes]:
    """Make a call; return status, type and body of its answer."""
    with closing(http.client.HTTPConnection(address, timeout=30)) as connection:
        connection.request(call.method, call.target, call.body or None, dict(call.headers))
        answer = connection.getresponse()
        return answer.status, answer.headers.get("content-type", ""), answer.read()


def description_of(admin: Admin) -> Mapping[str, Any]:
    connection = http.client.HTTPConnection(admin.url.partition("://")[2], timeout=30)
    connection.request("GET", "/admin/v2/openapi.json")
    told: Mapping[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return told


@pytest.mark.parametrize("workers", [1, 2], ids=["one process", "two processes"])
def test_no_call_makes_the_broker_fail_or_answer_in_another_shape_than_described(
    tmp_path: Path, workers: int
) -> None:
    wrong: list[str] = []
    statuses: dict[int, int] = {}
    with running(Child(tmp_path, workers=workers)) as broker:
        with broker.admin() as admin:
            description = description_of(admin)
        words, schemas = Words(description, SEED), description["components"]["schemas"]
        address = broker.ports.admin_url.partition("://")[2]
        for number in range(ROUNDS):
            for made, call in enumerate(words.round()):
                if made % FURNISH_EVERY == 0:
                    furnish(broker)
                status, kind, body = answer_to(address, call)
                statuses[status] = statuses.get(status, 0) + 1
                found = complaint(call, status, kind, body, schemas)
                if found:
                    wrong.append(f"round {number}: {call}: {found}")
        with broker.admin() as admin:
            assert admin.health() == "ok"
        log = broker.log.read_text(errors="replace")
        assert broker.stop() == 0, broker.log_end()
    logger.warning("answers by status: %s", dict(sorted(statuses.items())))
    assert wrong == [], "\n".join([f"seed {SEED}", *wrong[:20]])
    assert "Traceback" not in log, log[log.index("Traceback") :][:3000]
    assert statuses[204] > 20
    assert statuses[200] > 20


# --- the judge would notice -------------------------------------------------------------------


INTEGERS = {"type": "array", "items": {"type": "integer"}}
SCHEMAS = {
    "Reason": {
        "type": "object",
        "required": ["reason"],
        "properties": {"reason": {"type": "string"}},
    }
}
OPERATION = {
    "parameters": [],
    "responses": {
        "200": {"content": {"application/json": {"schema": INTEGERS}}},
        "204": {},
        "default": {"content": {"application/json": {"schema": {"$ref": "#/c/s/Reason"}}}},
    },
}  # fmt: skip
CALL = Call("GET", "/x", {}, b"", OPERATION)


@pytest.mark.parametrize(
    ("status", "kind", "body", "wrong"),
    [
        (200, "application/json", b"[1]", False),
        (204, "", b"", False),
        (404, "application/json", b'{"reason": "no"}', False),
        (501, "application/json", b'{"reason": "not yet"}', False),
        (500, "application/json", b'{"reason": "no"}', True),
        (503, "application/json", b'{"reason": "no"}', True),
        (200, "application/json", b'["1"]', True),
        (200, "application/json", b"[1", True),
        (200, "text/plain", b"1", True),
        (201, "application/json", b"[1]", True),
        (204, "", b"[]", True),
        (404, "application/json", b'{"error": "no"}', True),
    ],
)
def test_an_answer_that_is_not_as_described_is_noticed(
    status: int, kind: str, body: bytes, wrong: bool
) -> None:
    assert bool(complaint(CALL, status, kind, body, SCHEMAS)) is wrong


@pytest.mark.parametrize(
    ("value", "schema", "wrong"),
    [
        (True, {"type": "integer"}, True),
        (1, {"type": "number"}, False),
        (5, {"type": "integer", "maximum": 4}, True),
        ("a", {"anyOf": [{"type": "null"}, {"type": "string"}]}, False),
        (1, {"anyOf": [{"type": "null"}, {"type": "string"}]}, True),
        ("c", {"enum": ["a", "b"]}, True),
        ({"a": 1}, {"type": "object", "additionalProperties": {"type": "string"}}, True),
        ({"a": 1, "b": []}, {"type": "object", "properties": {"a": {"type": "integer"}}}, False),
    ],
)
def test_a_value_is_held_against_its_schema(value: Any, schema: Any, wrong: bool) -> None:
    assert bool(flaw(value, schema, {})) is wrong
