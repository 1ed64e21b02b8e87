"""The audit topic: who was denied what, and who changed what."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from magnetar.broker.access import audit as audit_module
from magnetar.broker.access.audit import (
    NOES_MAX,
    NOES_PER_SOURCE_MAX,
    REPEAT_S,
    RESOURCES_SHOWN_MAX,
    SOURCES_MAX,
    TOPIC,
    WAITING_MAX,
    Audit,
)
from magnetar.broker.access.authentication import Credentials
from magnetar.broker.access.caller import Caller
from magnetar.broker.access.rights import AuthenticationError, AuthorizationError, Demand, Right
from magnetar.broker.clock import ManualClock
from magnetar.broker.metrics import Metrics
from magnetar.broker.port import PersistenceError
from magnetar.names import TopicName
from tests.access.conftest import Guard
from tests.doors.fake_port import FakePort

ANNA = Caller("anna", "token", address="192.0.2.1:5")
DEMAND = (Demand(Right.PRODUCE, TopicName.parse("t/n/a")),)


class Rig:
    def __init__(self) -> None:
        self.port, self.clock, self.metrics = FakePort(), ManualClock(), Metrics()
        self.port.namespaces.add("pulsar/system")
        self.audit = Audit(self.port, 0, self.clock, self.metrics)

    def written(self) -> list[dict[str, Any]]:
        topic = self.port.topic_table.get(str(TOPIC))
        rows = [] if topic is None else range(len(topic.rows))
        return [json.loads(_payload(bytes(topic.run(row, 1).body(0)))) for row in rows]  # type: ignore[union-attr]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - the audit has no event for tests
                await asyncio.sleep(0.002)


def _payload(body: bytes) -> bytes:
    size = int.from_bytes(body[:4], "big")
    return body[4 + size :]


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_a_denial_says_who_what_and_from_where(rig: Rig) -> None:
    rig.audit.denied(ANNA, DEMAND)
    await rig.until(lambda: len(rig.written()) == 1)
    (event,) = rig.written()
    assert event.pop("time").endswith("Z")
    assert event == {
        "event": "denied", "role": "anna", "from": "192.0.2.1:5", "method": "token",
        "action": ["produce"], "resource": ["persistent://t/n/a"],
    }  # fmt: skip
    await rig.audit.stop()


async def test_a_change_says_what_was_before_and_after(rig: Rig) -> None:
    proxied = Caller("proxy", "token", original="anna")
    rig.audit.changed(proxied, "POST /x", 204, {"a": 1}, {"a": 2})
    rig.audit.changed(ANNA, "PUT /unload", 204, {"a": 1}, {"a": 1})
    await rig.until(lambda: len(rig.written()) == 2)
    first, second = rig.written()
    assert (first["original"], first["before"], first["after"]) == ("anna", {"a": 1}, {"a": 2})
    assert "before" not in second
    await rig.audit.stop()


async def test_the_same_denial_is_noted_once_a_minute(rig: Rig) -> None:
    for _ in range(3):
        rig.audit.denied(ANNA, DEMAND)
        rig.audit.refused("token", "192.0.2.1:5", "no")
        rig.audit.refused("token", "192.0.2.1:6", "no")
    rig.audit.denied(Caller("berta"), DEMAND)
    await rig.until(lambda: len(rig.written()) == 3)
    rig.clock.advance(REPEAT_S + 1)
    rig.audit.denied(ANNA, DEMAND)
    await rig.until(lambda: len(rig.written()) == 4)
    await rig.audit.stop()


async def test_what_cannot_be_written_is_tried_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "RETRY_S", 0.01)
    rig.port.failures["publish"] = PersistenceError("no room")
    rig.audit.denied(ANNA, DEMAND)
    await asyncio.sleep(0.05)
    del rig.port.failures["publish"]
    before = len(rig.written())  # the fake has a row for each attempt, refused ones too
    await rig.until(lambda: len(rig.written()) > 0 and not rig.audit._waiting)
    assert len(rig.written()) - before <= 1
    await rig.audit.stop()


async def test_an_audit_that_cannot_be_written_is_bounded_and_says_so(rig: Rig) -> None:
    rig.port.namespaces.clear()
    for number in range(WAITING_MAX + 7):
        rig.audit.changed(ANNA, f"POST /{number}", 204)
    assert len(rig.audit._waiting) == WAITING_MAX
    await rig.audit.stop()
    text = "".join(rig.metrics.render())
    assert f"magnetar_audit_lost_total {WAITING_MAX + 7}" in text


async def test_an_event_that_is_too_long_is_cut(rig: Rig) -> None:
    rig.audit.changed(ANNA, "POST /x", 204, {"a": "x" * 100_000}, {})
    await rig.until(lambda: len(rig.written()) == 1)
    assert rig.written()[0]["before"] == "too long"
    await rig.audit.stop()


async def test_every_no_is_noted_and_no_yes(guard: Guard, rig: Rig) -> None:
    guard.access.audit = guard.access.authenticator.audit = rig.audit
    demand = (Demand(Right.PRODUCE, TopicName.parse("here/ns/t")),)
    await guard.access.authorize(Caller("producer"), demand)
    with pytest.raises(AuthorizationError):
        await guard.access.authorize(Caller("consumer"), demand)
    with pytest.raises(AuthenticationError):
        await guard.access.authenticator.authenticate(
            Credentials("token", b"s3cret.s3cret.s3cret", address="192.0.2.1:5")
        )
    await rig.until(lambda: len(rig.written()) == 2)
    assert [event["event"] for event in rig.written()] == ["denied", "refused"]
    assert "s3cret" not in json.dumps(rig.written())
    await rig.audit.stop()


async def test_who_is_refused_does_not_decide_how_much_is_written(rig: Rig) -> None:
    """A role without rights asks for ever new things, a host shows ever new nonsense."""
    for number in range(5_000):
        topic = TopicName.parse(f"t/n/{number}")
        rig.audit.denied(Caller("mallory", "token"), (Demand(Right.PRODUCE, topic),))
        rig.audit.refused(f"method-{number}", "192.0.2.9:5", "no")
    rig.audit.denied(ANNA, DEMAND)
    rig.audit.changed(ANNA, "POST /x", 204)
    await rig.until(lambda: not rig.audit._waiting)
    written = rig.written()
    assert len(written) == 2 * NOES_PER_SOURCE_MAX + 2
    assert [each.get("role") for each in written[-2:]] == ["anna", "anna"], "nobody is pushed out"
    rig.clock.advance(REPEAT_S)
    rig.audit.denied(Caller("mallory", "token"), DEMAND)
    await rig.until(lambda: len(rig.written()) > len(written))
    assert rig.written()[-1]["omitted"] >= 5_000 - NOES_PER_SOURCE_MAX
    await rig.audit.stop()


async def test_many_who_are_refused_do_not_either(rig: Rig) -> None:
    for number in range(3 * NOES_MAX):
        rig.audit.refused("token", f"192.0.{number % 256}.{number // 256}:5", "no")
    rig.audit.changed(ANNA, "POST /x", 204)
    await rig.until(lambda: not rig.audit._waiting)
    assert len(rig.written()) == NOES_MAX + 1
    assert len(rig.audit._tallies) <= SOURCES_MAX
    await rig.audit.stop()


async def test_a_command_about_a_thousand_topics_is_noted_and_can_be_read(rig: Rig) -> None:
    long = [TopicName.parse(f"t/n/{'x' * 500}{number}") for number in range(1_000)]
    rig.audit.denied(ANNA, [Demand(Right.PRODUCE, each) for each in long])
    await rig.until(lambda: len(rig.written()) == 1)
    assert rig.written()[0]["resource"][-1] == f"and {1_000 - RESOURCES_SHOWN_MAX} more"
    await rig.audit.stop()


async def test_what_is_secret_by_its_name_is_not_repeated(rig: Rig) -> None:
    offload = {"managedLedgerOffloadDriver": "S3", "s3ManagedLedgerOffloadCredentialSecret": "hush"}
    rig.audit.changed(ANNA, "POST /x", 204, {"a": [offload]}, {"a": [], "password": "hush"})
    await rig.until(lambda: len(rig.written()) == 1)
    assert "hush" not in json.dumps(rig.written())
    assert rig.written()[0]["before"]["a"][0]["managedLedgerOffloadDriver"] == "S3"
    await rig.audit.stop()
