"""Publishing as fast as receipts come back, and counting them without opening any.

    SEND_RECEIPT   total u32 | size u32 | 08 07 3a .. | producer | sequence | message id

Every command begins with its type, and with the tag of the field that holds it: three bytes that
stand nowhere else in a receipt. Searching for them costs a few nanoseconds per receipt. Only for a
broker that writes the type first, as protobuf libraries do.
"""

import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError

from magnetar.bench.dial import Line, Lines
from magnetar.bench.load import Load, RunError
from magnetar.bench.pipeline import Piece, Pipeline, keep_full, pieces_of
from magnetar.broker.wire.pulsar import client_role, commands
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api

RECEIPT, PING = b"\x08\x07\x3a", b"\x08\x12\x92"
REFUSALS = {
    b"\x08\x08\x42": "refused an entry",
    b"\x08\x0e\x72": "refused a request",
    b"\x08\x0f\x7a": "closed a producer",
}
"""SEND_ERROR, ERROR and CLOSE_PRODUCER: after any of them the counts mean nothing."""
KEPT = len(RECEIPT) - 1
"""Bytes of one read that may be the beginning of what the next one completes."""
DROPPED = b"\x08" + b"\xff" * 9 + b"\x01"
"""Ledger -1, the message id of a duplicate."""


class Receipts(Pipeline):
    """Counts receipts, and answers pings."""

    def __init__(
        self, sock: socket.socket, pieces: Sequence[Piece], window: int, limit: int = 0
    ) -> None:
        super().__init__(sock, pieces, window, limit)
        self._tail = b""

    def count(self, data: bytes) -> int:
        """Return how many receipts the bytes hold.

        Raises:
            RunError: the broker said something else, or drops what we publish.
        """
        data = self._tail + data
        self._tail = data[-KEPT:]
        for beginning, meaning in REFUSALS.items():
            if (at := data.find(beginning)) >= 0:
                raise RunError(f"the broker {meaning}: {_reason_in(data, at)}", "see its log")
        if DROPPED in data:
            raise RunError(
                "the namespace drops duplicates, and a generator sends nothing else",
                "turn deduplication off for it, or name another with --namespace",
            )
        if PING in data:
            self.say(commands.pong())
        return data.count(RECEIPT)


def _reason_in(data: bytes, at: int) -> str:
    """Return why the broker refuses, in the command that begins there."""
    size = int.from_bytes(data[max(0, at - 4) : at])
    try:
        told = api.BaseCommand.FromString(data[at : at + size])
    except DecodeError:
        return "its reason was cut off"
    return told.error.message or told.send_error.message or "without a reason"


def entry_frame(producer_id: int, load: Load) -> bytes:
    """Return a SEND frame of one entry."""
    metadata = api.MessageMetadata(
        producer_name=f"bench-{producer_id}",
        sequence_id=0,
        publish_time=time.time_ns() // 1_000_000,
    )
    payload = b"x" * load.size_bytes
    if load.batch > 1:
        metadata.num_messages_in_batch = load.batch
        single = api.SingleMessageMetadata(payload_size=load.size_bytes).SerializeToString()
        payload = (struct.pack(">I", len(single)) + single + payload) * load.batch
    return client_role.send(producer_id, metadata, payload)


def producers(lines: Lines, load: Load) -> list[Receipts]:
    """Open all producers; return one pipeline per connection with its share of the topics."""
    numbers = {load.topic(number): number for number in range(load.topics)}
    lots: dict[Line, list[str]] = {}
    for topic, owner in lines.owners(list(numbers)):
        slot = numbers.get(topic, 0) % load.connections
        lots.setdefault(lines.to(slot, owner), []).append(topic)
        if load.topics < load.connections:
            for extra in range(slot + load.topics, load.connections, load.topics):
                lots.setdefault(lines.to(extra, owner), []).append(topic)
    entries = shares(load.messages // load.batch, list(lots.values()))
    return [
        _opened(line, topics, load, limit)
        for (line, topics), limit in zip(lots.items(), entries, strict=True)
    ]


def shares(entries: int, lots: Sequence[Sequence[str]]) -> list[int]:
    """Divide entries among connections, as evenly among their topics as it goes."""
    topics = sum(map(len, lots))
    ends = [entries * sum(map(len, lots[: i + 1])) // topics for i in range(len(lots))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _opened(line: Line, topics: Sequence[str], load: Load, limit: int) -> Receipts:
    asked = [client_role.producer(number, number, topic) for number, topic in enumerate(topics)]
    line.ask(asked)
    frames = [entry_frame(number, load) for number in range(len(topics))]
    return Receipts(line.sock, pieces_of(frames, load.window), load.window, limit)


def publish(load: Load) -> dict[str, Any]:
    """Keep every connection's window full; count what is acknowledged after the warm-up."""
    lines = Lines(load)
    pipelines = producers(lines, load)
    warm_up_s = 0.0 if load.messages else load.warm_up_s
    result = keep_full(pipelines, warm_up_s, load.seconds, load.silence_s)
    lines.close()
    return result | {"messages": result.pop("requests") * load.batch}
