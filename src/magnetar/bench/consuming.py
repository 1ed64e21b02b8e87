"""Reading a backlog: count what comes, acknowledge it, ask for more.

    MESSAGE   total u32 | size u32 | 08 09 4a .. | 08 consumer | 12 length id | ... | body

An acknowledgement repeats the bytes of the message id as they came, so that nothing has to be
decoded: a generator that makes an object of every message is slower than the broker that it
measures. All entries of one read are acknowledged together, as clients do within their group time.
"""

import selectors
import struct
import time
from collections.abc import Sequence
from typing import Any

from magnetar.bench.dial import Line, Lines
from magnetar.bench.load import Load, RunError
from magnetar.bench.pipeline import keep_full, say_measuring
from magnetar.bench.publishing import producers
from magnetar.bench.sockets import cpu_s, receive_now
from magnetar.broker.wire.pulsar import client_role, commands
from magnetar.broker.wire.pulsar.fields import encode_varint
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api

MESSAGE, PING = 0x09, 0x12
SIZES = struct.Struct(">II")
COMMAND_AT, CONSUMER_AT = 8, 13
"""Where a command begins in its frame, and a MESSAGE's consumer: its size is one byte."""
ID_FIELD = 0x12


class Reading:
    """What one connection has received; acknowledges and grants permits as it goes."""

    def __init__(self, line: Line, consumers: int, load: Load) -> None:
        self.sock = line.sock
        self.entries = 0
        self._load = load
        self._partial = b""
        self._since_flow = [0] * consumers
        self._flows = [client_role.flow(number, load.permits) for number in range(consumers)]

    def begin(self) -> None:
        """Ask for the first messages."""
        self.sock.settimeout(self._load.silence_s)
        self.sock.sendall(b"".join(self._flows))
        self.sock.setblocking(False)

    def receive(self) -> int:
        """Take what has arrived; return how many entries it completed."""
        data = receive_now(self.sock)
        if not data:
            return 0
        before, answers = self.entries, list[bytes]()
        for consumer, ids in self._take(data, answers).items():
            answers += self._settle(consumer, ids)
        if answers:
            self.sock.settimeout(self._load.silence_s)
            self.sock.sendall(b"".join(answers))
            self.sock.setblocking(False)
        return self.entries - before

    def _take(self, data: bytes, answers: list[bytes]) -> dict[int, list[bytes]]:
        """Return the message ids that the bytes complete, by consumer."""
        data = self._partial + data if self._partial else data
        position, end = 0, len(data)
        ids: dict[int, list[bytes]] = {}
        while position + CONSUMER_AT < end:
            total, size = SIZES.unpack_from(data, position)
            if position + 4 + total > end:
                break
            kind = data[position + 9]
            if kind == MESSAGE:
                consumer, at = data[position + CONSUMER_AT], position + CONSUMER_AT + 1
                if consumer > 127:
                    consumer, at = _varint(data, at - 1)
                if data[at] != ID_FIELD:
                    raise RunError("the broker writes its messages in an order that is not known")
                found = data[at + 1 : at + 2 + data[at + 1]]
                if consumer in ids:
                    ids[consumer].append(found)
                else:
                    ids[consumer] = [found]
            elif kind == PING:
                answers.append(commands.pong())
            else:
                _expected(data[position + COMMAND_AT : position + COMMAND_AT + size])
            position += 4 + total
        self._partial = data[position:]
        return ids

    def _settle(self, consumer: int, ids: list[bytes]) -> list[bytes]:
        """Return what is said about entries that came: acknowledged, and perhaps more of them."""
        self.entries += len(ids)
        cumulative = self._load.acknowledge == "cumulative"
        frames = [acknowledgement(consumer, ids[-1:] if cumulative else ids, cumulative=cumulative)]
        self._since_flow[consumer] += len(ids) * self._load.batch
        if self._since_flow[consumer] >= self._load.permits // 2:
            frames.append(client_role.flow(consumer, self._since_flow[consumer]))
            self._since_flow[consumer] = 0
        return frames


def acknowledgement(consumer: int, ids: Sequence[bytes], *, cumulative: bool) -> bytes:
    """Return an ACK frame for message ids, each with its length before it."""
    body = (
        b"\x08" + encode_varint(consumer) + (b"\x10\x01" if cumulative else b"\x10\x00")
        + b"\x1a" + b"\x1a".join(ids)
    )  # fmt: skip
    command = b"\x08\x0a\x52" + encode_varint(len(body)) + body
    return SIZES.pack(len(command) + 4, len(command)) + command


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of several bytes, and where it ends."""
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
        shift += 7


def _expected(command: bytes) -> None:
    """Take what may come besides messages; refuse what ends a run.

    Raises:
        RunError: the broker refuses, or hangs up.
    """
    told = api.BaseCommand.FromString(command)
    if told.type == api.BaseCommand.ERROR:
        raise RunError(f"the broker refused: {told.error.message}")
    if told.type == api.BaseCommand.CLOSE_CONSUMER:
        raise RunError("the broker closed a consumer", "see its log")


def subscribed(lines: Lines, load: Load, topics: Sequence[str]) -> list[Reading]:
    """Open every subscription of every topic, without permits yet."""
    owners = list(lines.owners(topics))
    kind = api.CommandSubscribe.Shared if load.shared else api.CommandSubscribe.Exclusive
    readings: list[Reading] = []
    for subscription in range(load.subscriptions):
        lots: dict[Line, list[str]] = {}
        for number, (topic, owner) in enumerate(owners):
            slot = subscription * load.connections + number % load.connections
            lots.setdefault(lines.to(slot, owner), []).append(topic)
        for line, mine in lots.items():
            line.ask(
                [
                    client_role.subscribe(
                        number, number, topic, f"bench-{subscription}", kind, earliest=True
                    )
                    for number, topic in enumerate(mine)
                ]
            )
            readings.append(Reading(line, len(mine), load))
    return readings


def consume(load: Load) -> dict[str, Any]:
    """Publish a backlog under subscriptions that wait, then let them read it."""
    topics = [load.topic(number) for number in range(load.topics)]
    for step in (_make_subscriptions, _fill):
        lines = Lines(load)
        step(lines, load, topics)
        lines.close()  # one that is not read from would be hung up on, in a long step
    entries = load.messages // load.batch
    lines = Lines(load)
    readings = subscribed(lines, load, topics)
    cpu, start = cpu_s(), time.perf_counter()
    say_measuring()
    read_all(readings, entries * load.subscriptions, load.silence_s)
    result = {
        "messages": entries * load.batch * load.subscriptions,
        "seconds": time.perf_counter() - start,
        "generator_cpu_s": cpu_s() - cpu,
        "times": {},
    }
    lines.close()
    return result


def _make_subscriptions(lines: Lines, load: Load, topics: Sequence[str]) -> None:
    subscribed(lines, load, topics)


def _fill(lines: Lines, load: Load, _: Sequence[str]) -> None:
    keep_full(producers(lines, load), 0.0, 0.0, load.silence_s)


def read_all(readings: Sequence[Reading], entries: int, silence_s: float) -> None:
    """Read until so many entries have come.

    Raises:
        RunError: nothing came any more.
    """
    selector = selectors.DefaultSelector()
    for reading in readings:
        reading.begin()
        selector.register(reading.sock, selectors.EVENT_READ, reading)
    heard, left = time.perf_counter(), entries
    while left > 0:
        for key, _ in selector.select(0.5):
            left -= key.data.receive()
            heard = time.perf_counter()
        if time.perf_counter() - heard > silence_s:
            raise RunError(
                f"{left:,} of {entries:,} entries did not come within {silence_s:g} s",
                "see the broker's log",
            )
