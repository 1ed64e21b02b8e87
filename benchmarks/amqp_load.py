"""Publish persistent messages to a durable RabbitMQ queue with publisher confirms.

    method frame   1 | channel u16 | size u32 | class u16 | method u16 | arguments | 0xce
    header frame   2 | channel u16 | size u32 | class u16 | 0 u16 | body size u64 | flags .. | 0xce
    body frame     3 | channel u16 | size u32 | bytes | 0xce

A confirm (basic.ack, 60.80) carries a delivery tag and whether it covers all earlier ones.
Source: the AMQP 0-9-1 specification, sections 2.3 and 4.2, and RabbitMQ's confirms.

`python -m benchmarks.amqp_load '<json>'` prints one JSON object, as pulsar_load does.
"""

import json
import socket
import struct
import sys
from typing import Any

from benchmarks.pipeline import Pipeline, keep_full, pieces_of

CONFIRM = (60, 80)


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Return one frame."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def method(channel: int, class_id: int, method_id: int, arguments: bytes = b"") -> bytes:
    """Return one method frame."""
    return frame(1, channel, struct.pack(">HH", class_id, method_id) + arguments)


def short(text: str) -> bytes:
    """Return a short string."""
    return bytes([len(text)]) + text.encode()


def table(entries: dict[str, str]) -> bytes:
    """Return a field table with long strings as values."""
    body = b"".join(
        short(key) + b"S" + struct.pack(">I", len(value)) + value.encode()
        for key, value in entries.items()
    )
    return struct.pack(">I", len(body)) + body


def connect(port: int, queue: str, queue_type: str) -> socket.socket:
    """Open connection and channel, declare the queue, turn confirms on."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=30)

    def wait() -> None:
        header = sock.recv(7, socket.MSG_WAITALL)
        sock.recv(struct.unpack(">BHI", header)[2] + 1, socket.MSG_WAITALL)

    sock.sendall(b"AMQP\x00\x00\x09\x01")
    wait()
    plain = b"\0guest\0guest"
    start_ok = table({}) + short("PLAIN") + struct.pack(">I", len(plain)) + plain + short("en_US")
    sock.sendall(method(0, 10, 11, start_ok))
    wait()
    sock.sendall(method(0, 10, 31, struct.pack(">HIH", 2047, 131072, 0)))
    sock.sendall(method(0, 10, 40, short("/") + b"\0\0"))
    wait()
    sock.sendall(method(1, 20, 10, b"\0"))
    wait()
    declare = b"\0\0" + short(queue) + b"\x02" + table({"x-queue-type": queue_type})
    sock.sendall(method(1, 50, 10, declare))
    wait()
    sock.sendall(method(1, 85, 10, b"\0"))
    wait()
    return sock


def message(queue: str, size_bytes: int) -> bytes:
    """Return the frames of one persistent message."""
    header = struct.pack(">HHQH", 60, 0, size_bytes, 0x1000) + b"\x02"  # delivery-mode 2
    bodies = b"".join(
        frame(3, 1, b"x" * min(131064, size_bytes - at)) for at in range(0, size_bytes, 131064)
    )
    return (
        method(1, 60, 40, b"\0\0" + short("") + short(queue) + b"\0") + frame(2, 1, header) + bodies
    )


class AmqpPipeline(Pipeline):
    """Counts publisher confirms."""

    def count(self, data: bytes) -> tuple[int, int]:
        """Return how many messages the confirms cover."""
        position, confirmed = 0, self.answered
        while position + 8 <= len(data):
            size = struct.unpack_from(">I", data, position + 3)[0]
            if position + 8 + size > len(data):
                break
            if data[position] == 1 and struct.unpack_from(">HH", data, position + 7) == CONFIRM:
                tag, multiple = struct.unpack_from(">QB", data, position + 11)
                confirmed = tag if multiple else confirmed + 1
            position += 8 + size
        return confirmed - self.answered, position


def publish(load: dict[str, Any]) -> dict[str, Any]:
    """Keep a window of messages unconfirmed on every connection."""
    window = max(1, min(load["window_entries"], load["window_bytes"] // load["size_bytes"]))
    pieces = pieces_of([message("bench", load["size_bytes"])], window)
    queue_type = load.get("queue_type", "classic")
    pipelines = [
        AmqpPipeline(connect(load["port"], "bench", queue_type), pieces, window)
        for _ in range(load["connections"])
    ]
    result = keep_full(pipelines, load["warm_up_s"], load["seconds"])
    return result | {"messages": result["requests"]}


if __name__ == "__main__":
    print(json.dumps(publish(json.loads(sys.argv[1]))), flush=True)
