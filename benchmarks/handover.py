"""How long a topic is away when it moves to another process, as a raw client sees it.

    python -m benchmarks.handover [--rounds N] [--topics N] [--window N] [--seconds S]

Every topic has a producer that keeps `--window` messages of 1 KB under way, on a connection of its
own. Meanwhile the broker goes from one process to two, three, two and one, again and again. A gap
is the time from the last receipt of the old owner to the first of the new one; the client does
what Pulsar's clients do: it goes where CLOSE_PRODUCER says, and sends again what has no receipt.
At the end one process is killed (SIGKILL), and the same gap is measured to the one that takes its
place, by clients that connect again every 5 ms, beside the longest silence of all other topics.

Every message is counted: what was acknowledged must be stored, in order. Results go to
`benchmarks/results/handover.json`.
"""

import argparse
import asyncio
import json
import os
import signal
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.pulsar_load import PONG_FRAME
from magnetar.broker.wire.pulsar import client_role
from magnetar.broker.wire.pulsar.frames import FrameReader
from magnetar.broker.wire.pulsar.generated.PulsarApi_pb2 import BaseCommand
from magnetar.cli.demo.broker import BrokerProcess, free_ports
from magnetar.client.address import PULSAR_PORT
from magnetar.client.admin import Admin

BODY = bytes(1024)
COUNTS = (2, 3, 2, 1)
RESULTS = Path(__file__).parent / "results" / "handover.json"
AGAIN_S = 0.005
STILL_S = 0.3
"""Between two changes."""


class Producer:
    """One topic's producer, on a connection of its own."""

    def __init__(self, topic: str, port: int, window: int) -> None:
        self.topic = topic
        self.gaps: list[float] = []
        self.breaks: list[float] = []
        self.silence_s = 0.0
        self.receipts = 0
        self._home = port
        self._port = port
        self._window = window
        self._next = 0
        self._unacked: deque[int] = deque()
        self._last_s = 0.0
        self._left: str | None = None
        self._stopping = False

    async def run(self) -> None:
        """Publish until it is stopped, wherever the topic is."""
        while not self._stopping:
            try:
                await self._stay()
            except (OSError, EOFError):
                self._left = self._left or "lost"
                self._port = self._home
                await asyncio.sleep(AGAIN_S)

    def stop(self) -> None:
        """Send nothing more; end once everything has its receipt."""
        self._stopping = True

    async def _stay(self) -> None:
        """Be where the topic is, until it leaves."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        frames = FrameReader()
        try:
            writer.write(client_role.connect())
            await _wait_for(reader, frames, BaseCommand.CONNECTED)
            if self._port == self._home:
                self._port = await self._looked_up(reader, writer, frames)
                if self._port != self._home:
                    return
            writer.write(client_role.producer(2, 0, self.topic, name="bench"))
            answer = await _wait_for(reader, frames, BaseCommand.PRODUCER_SUCCESS)
            if answer is None:
                self._port = self._home
                await asyncio.sleep(AGAIN_S)
                return
            for number in self._unacked:
                writer.write(self._frame(number, 1))
            self._send(writer)
            while not self._stopping or self._unacked:
                data = await reader.read(1 << 20)
                if not data:
                    raise EOFError
                for frame in frames.feed(data):
                    if self._leaves(frame.command, writer):
                        return
                self._send(writer)
        finally:
            writer.close()

    def _leaves(self, command: BaseCommand, writer: asyncio.StreamWriter) -> bool:
        """Take a command; return whether the topic is elsewhere now."""
        match command.type:
            case BaseCommand.SEND_RECEIPT:
                self._receipt(command.send_receipt.sequence_id)
            case BaseCommand.CLOSE_PRODUCER:
                url = command.close_producer.assignedBrokerServiceUrl
                self._left = "moved"
                self._port = urlsplit(url).port or self._home
                return True
            case BaseCommand.SEND_ERROR:
                raise ConnectionResetError(command.send_error.message)
            case BaseCommand.PING:
                writer.write(PONG_FRAME)
            case _:
                pass
        return False

    async def _looked_up(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, frames: FrameReader
    ) -> int:
        writer.write(client_role.lookup(1, self.topic))
        answer = await _wait_for(reader, frames, BaseCommand.LOOKUP_RESPONSE)
        url = answer.lookupTopicResponse.brokerServiceUrl if answer is not None else ""
        return urlsplit(url).port or self._home

    def _send(self, writer: asyncio.StreamWriter) -> None:
        room = self._window - len(self._unacked)
        if self._stopping or room <= 0:
            return
        writer.write(self._frame(self._next, room))
        self._unacked.extend(range(self._next, self._next + room))
        self._next += room

    def _frame(self, number: int, count: int) -> bytes:
        now_ms = int(time.time_ns() // 1_000_000)
        return bytes(
            client_role.sends(0, number, count, BODY, producer_name="bench", publish_time_ms=now_ms)
        )

    def _receipt(self, number: int) -> None:
        assert self._unacked, "a receipt for nothing"
        assert self._unacked[0] == number, f"receipt {number}, expected {self._unacked[0]}"
        self._unacked.popleft()
        self.receipts += 1
        now_s = time.perf_counter()
        if self._left is not None and self._last_s:
            (self.gaps if self._left == "moved" else self.breaks).append(now_s - self._last_s)
        elif self._last_s:
            self.silence_s = max(self.silence_s, now_s - self._last_s)
        self._left = None
        self._last_s = now_s


async def _wait_for(
    reader: asyncio.StreamReader, frames: FrameReader, kind: int
) -> BaseCommand | None:
    """Return the next command of a kind; None: an error came instead."""
    while True:
        data = await reader.read(1 << 16)
        if not data:
            raise EOFError
        for frame in frames.feed(data):
            if frame.command.type == kind:
                return frame.command
            if frame.command.type == BaseCommand.ERROR:
                return None


async def measured(broker: BrokerProcess, options: argparse.Namespace) -> dict[str, Any]:
    """Move topics about, then kill a process; return what was seen."""
    port = PULSAR_PORT + broker.ports.offset
    names = [f"persistent://public/default/handover-{n}" for n in range(options.topics)]
    producers = [Producer(name, port, options.window) for name in names]
    tasks = [asyncio.create_task(each.run()) for each in producers]
    await asyncio.sleep(1)
    began, before = time.perf_counter(), sum(each.receipts for each in producers)
    for _ in range(options.rounds):
        for count in COUNTS:
            await asyncio.to_thread(_scale, broker, count)
            await asyncio.sleep(STILL_S)
    rate = (sum(each.receipts for each in producers) - before) / (time.perf_counter() - began)
    gaps = sorted(gap for each in producers for gap in each.gaps)
    found = await asyncio.to_thread(_scale, broker, 2)
    await asyncio.sleep(1)
    for each in producers:
        each.silence_s = 0.0
        each.breaks.clear()
    for _ in range(options.kills):
        found = await asyncio.to_thread(_processes, broker)
        os.kill(found[1]["pid"], signal.SIGKILL)
        await asyncio.sleep(2)
    breaks = sorted(gap for each in producers for gap in each.breaks)
    others = max((each.silence_s for each in producers if not each.breaks), default=0.0)
    for each in producers:
        each.stop()
    await asyncio.wait_for(asyncio.gather(*tasks), 30)
    return {
        "topics": options.topics,
        "window": options.window,
        "messages_per_second": round(rate),
        "moves": len(gaps),
        "gap_ms": _quantiles(gaps),
        "kills": options.kills,
        "break_ms": _quantiles(breaks),
        "silence_of_others_ms": round(others * 1000, 1),
    }


def _quantiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    at = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {
        name: round(1000 * values[min(int(part * len(values)), len(values) - 1)], 1)
        for name, part in at.items()
    }


def _scale(broker: BrokerProcess, count: int) -> Any:
    with Admin(broker.ports.admin_url) as admin:
        return admin.scale(count)


def _processes(broker: BrokerProcess) -> Any:
    with Admin(broker.ports.admin_url) as admin:
        return admin.processes()


def main() -> None:
    """Measure, and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--topics", type=int, default=32)
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--kills", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        broker = BrokerProcess(Path(folder), free_ports(4), 1)
        broker.start()
        try:
            seen = asyncio.run(measured(broker, options))
        finally:
            broker.stop()
    print(json.dumps(seen, indent=2))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(seen, indent=2) + "\n")


if __name__ == "__main__":
    main()
