"""The audit topic: every no, every change of who may do what, and every change of policy.

    persistent://pulsar/system/audit     one JSON object per message

    {"time": "...", "event": "denied",  "role": "anna", "from": "192.0.2.1:5", "method": "token",
     "action": ["produce"], "resource": ["persistent://t/n/x"]}
    {"time": "...", "event": "refused", "from": ..., "method": ..., "reason": ...}      at log-in
    {"time": "...", "event": "changed", "role": ..., "call": "POST /admin/v2/...", "status": 204,
     "before": {...}, "after": {...}}

It is written like any other topic, so it is synced, kept by retention, read by those who may
consume from it (superusers), and appended to by nobody else. The same thing said again within
REPEAT_S is said once, and of different things that are refused to one role, or at log-in to one
host, so many in a minute: who is refused must not decide how much is written, nor push out what
others did. How many were left out is said with the next one. Values that are secrets by their
names are not repeated. What cannot be written is counted and logged; nobody waits for it: an
audit that is full, or a disk that is, must not decide who may work.
"""

import asyncio
import json
import logging
import re
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from magnetar.broker.access.attempts import host_of
from magnetar.broker.access.caller import BROKER, Caller
from magnetar.broker.access.rights import (
    Demand,
    Resource,
    SubscriptionOf,
    SubscriptionsOf,
    TenantName,
)
from magnetar.broker.clock import Clock, iso_time
from magnetar.broker.metrics import Metrics
from magnetar.broker.port import Group, Port, PortError, Producer, ProducerRequest
from magnetar.broker.run import Run
from magnetar.broker.wire.pulsar import client_role
from magnetar.broker.wire.pulsar.codec import walk
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.names import TopicName

logger = logging.getLogger(__name__)

TOPIC = TopicName.parse("persistent://pulsar/system/audit")

REPEAT_S = 60.0
REPEATS_MAX = 10_000
"""Things remembered to have been said."""
NOES_PER_SOURCE_MAX = 60
"""Refusals of one role, or of one host at log-in, noted within REPEAT_S."""
NOES_MAX = 600
"""... of all of them."""
SOURCES_MAX = 1_000
"""Sources remembered. Who was quiet the longest is forgotten first."""
RESOURCES_SHOWN_MAX = 20
"""Of one refused command, which may name a thousand."""
WAITING_MAX = 1_000
"""Events that wait to be written. Beyond it the oldest is given up."""
EVENT_BYTES_MAX = 64 * 1024
_SECRET = re.compile(r"secret|password|credential|token|private.?key|auth.*param", re.IGNORECASE)
"""Names of what nobody repeats, such as `s3ManagedLedgerOffloadCredentialSecret`."""
RETRY_S = 5.0
"""After what could not be written."""


@dataclass(slots=True)
class _Tally:
    """What one source was refused within REPEAT_S."""

    since_s: float
    noted: int = 0
    omitted: int = 0


class Audit:
    """Writes to the audit topic."""

    def __init__(self, port: Port, worker: int, clock: Clock, metrics: Metrics) -> None:
        self._port = port
        self._clock = clock
        self._name = f"audit-{worker}"
        self._waiting: deque[bytes] = deque()
        self._said: OrderedDict[object, float] = OrderedDict()
        self._tallies: OrderedDict[object, _Tally] = OrderedDict()
        self._all = _Tally(float("-inf"))
        self._producer: Producer | None = None
        self._sequence_id = 0
        self._writing: asyncio.Task[None] | None = None
        self._lost = metrics.counter(
            "magnetar_audit_lost_total", "Events that could not be written to the audit topic."
        )
        self._omitted = metrics.counter(
            "magnetar_audit_omitted_total", "Refusals not noted, because there were too many."
        )

    # --- events

    def denied(self, caller: Caller, demands: Sequence[Demand]) -> None:
        """Note that somebody may not do what they asked."""
        actions = [each.right.value for each in demands]
        about = [_shown(each.resource) for each in demands]
        if self._is_news(("denied", caller.names, tuple(actions), tuple(about))):
            if len(about) > RESOURCES_SHOWN_MAX:
                rest = len(about) - RESOURCES_SHOWN_MAX
                about = [*about[:RESOURCES_SHOWN_MAX], f"and {rest} more"]
                actions = list(dict.fromkeys(actions))
            told = _who(caller) | {"action": actions, "resource": about}
            self._no("denied", (caller.names, caller.method), told)

    def refused(self, method: str, address: str, why: str) -> None:
        """Note that somebody could not log in."""
        host = host_of(address)
        if self._is_news(("refused", method, host, why)):
            told = {"from": address, "method": method[:64], "reason": why}
            self._no("refused", host, told)

    def changed(
        self, caller: Caller, call: str, status: int, before: object = None, after: object = None
    ) -> None:
        """Note that somebody changed something, or tried to."""
        told = _who(caller) | {"call": call[:2048], "status": status}
        if before != after:
            told |= {"before": without_secrets(before), "after": without_secrets(after)}
        self._add("changed", told)

    def _no(self, event: str, source: object, told: Mapping[str, Any]) -> None:
        """Note a refusal, if there is room for one more of this source and of all."""
        now = self._clock.monotonic()
        tally = self._tallies.setdefault(source, _Tally(now))
        self._tallies.move_to_end(source)
        if len(self._tallies) > SOURCES_MAX:
            self._tallies.popitem(last=False)
        omitted = 0
        for each in (tally, self._all):
            if now - each.since_s >= REPEAT_S:
                omitted = max(omitted, each.omitted)
                each.since_s, each.noted, each.omitted = now, 0, 0
        if tally.noted >= NOES_PER_SOURCE_MAX or self._all.noted >= NOES_MAX:
            tally.omitted += 1
            self._all.omitted += 1
            self._omitted.value += 1
            return
        tally.noted += 1
        self._all.noted += 1
        self._add(event, {**told, "omitted": omitted} if omitted else told)

    def _is_news(self, what: object) -> bool:
        now = self._clock.monotonic()
        if now - self._said.get(what, float("-inf")) < REPEAT_S:
            return False
        self._said[what] = now
        self._said.move_to_end(what)
        if len(self._said) > REPEATS_MAX:
            self._said.popitem(last=False)
        return True

    # --- writing

    def _add(self, event: str, told: Mapping[str, Any]) -> None:
        whole = {"time": iso_time(self._clock.wall_ms()), "event": event} | dict(told)
        text = json.dumps(whole, ensure_ascii=False, default=str)
        if len(text) > EVENT_BYTES_MAX:
            whole |= {"before": "too long", "after": "too long"}
            text = json.dumps(whole, ensure_ascii=False, default=str)[:EVENT_BYTES_MAX]
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.popleft()
            self._lost.value += 1
        self._waiting.append(text.encode("utf-8", "replace"))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        while self._waiting:
            try:
                producer = self._producer or await self._open()
                await self._publish(producer, self._waiting[0])
            except PortError as error:
                logger.warning("the audit topic cannot be written, will try again: %s", error)
                await self._close()
                await asyncio.sleep(RETRY_S)
            else:
                self._waiting.popleft()

    async def _open(self) -> Producer:
        await self._port.partitions(TOPIC, create=True)
        request = ProducerRequest(topic=TOPIC, name=self._name, epoch=1, caller=BROKER.to_text())
        self._producer = producer = await self._port.open_producer(request, self)
        # Later than anything before, also where the clock was set back, for deduplication.
        self._sequence_id = max(producer.last_sequence_id, self._clock.wall_ms())
        return producer

    async def _publish(self, producer: Producer, text: bytes) -> None:
        """Return once an event is durable.

        Raises:
            PortError: it is not.
        """
        self._sequence_id += 1
        metadata = api.MessageMetadata(
            producer_name=producer.name,
            sequence_id=self._sequence_id,
            publish_time=self._clock.wall_ms(),
        )
        frame = client_role.send(0, metadata, text)
        run = walk(memoryview(bytearray(frame)), 0, len(frame), {0: 0}).run
        assert run is not None
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(_: Run, groups: Sequence[Group]) -> None:
            errors = [group.error for group in groups if group.error is not None]
            if durable.done():
                return
            if errors:
                durable.set_exception(errors[0])
            else:
                durable.set_result(None)

        self._port.publish(run, [producer], done)
        await durable

    async def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(PortError):
                await producer.close()

    async def stop(self) -> None:
        """Write what waits, for a moment, and close."""
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=1.0)
            self._writing.cancel()
        self._lost.value += len(self._waiting)
        await self._close()

    # --- the port calls these

    def ready(self, topic_epoch: int) -> None:
        """Do nothing: the producer does not wait for anybody."""

    def closed(self, reason: PortError) -> None:  # noqa: ARG002 - the port's signature
        """Open another producer for the next event: the topic has moved."""
        self._producer = None


def without_secrets(told: object) -> object:
    """Return facts as they are, with nothing in the place of what is secret by its name."""
    if isinstance(told, Mapping):
        return {
            name: "(not shown)" if each and _SECRET.search(str(name)) else without_secrets(each)
            for name, each in told.items()
        }
    if isinstance(told, list):
        return [without_secrets(each) for each in told]
    return told


def _who(caller: Caller) -> dict[str, Any]:
    told = {"role": caller.role, "from": caller.address, "method": caller.method}
    return told if caller.original is None else told | {"original": caller.original}


def _shown(resource: Resource) -> str:
    match resource:
        case None:
            return "broker"
        case TenantName(tenant):
            return tenant
        case SubscriptionOf(place, name) | SubscriptionsOf(place, name):
            return f"{place} {name}"
        case _:
            return str(resource)
