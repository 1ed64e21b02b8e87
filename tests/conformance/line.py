"""One raw connection to a broker, for tests in which a client's own memory and pace matter.

    Line.ask(frame, kind)    send, and wait for the answer of that kind
    Line.entries(...)        what arrives for a consumer: (ledger, entry), metadata, payload

Frames come from `client_role`; nothing is read or sent that the test did not ask for, but
for answers to PING.
"""

import socket
from collections import deque
from collections.abc import Iterator
from time import perf_counter
from typing import NamedTuple, Self

from benchmarks.pulsar_load import PONG_FRAME
from magnetar.broker.entry import EntryId
from magnetar.broker.wire.pulsar import client_role
from magnetar.broker.wire.pulsar.frames import Frame, FrameReader
from magnetar.broker.wire.pulsar.generated.PulsarApi_pb2 import (
    BaseCommand,
    CommandSubscribe,
    MessageMetadata,
)

RECEIVE_BYTES = 1 << 20
ANSWER_S = 30.0
"""Whatever must come, on a machine that does other things too."""
EXCLUSIVE, SHARED = CommandSubscribe.Exclusive, CommandSubscribe.Shared


class Received(NamedTuple):
    """One entry as it came."""

    at: EntryId
    payload: bytes
    metadata: bytes

    @property
    def messages(self) -> int:
        """How many: more than one in a batch."""
        return MessageMetadata.FromString(self.metadata).num_messages_in_batch


class Line:
    """A connection that has introduced itself."""

    def __init__(
        self, port: int, *, receive_buffer: int | None = None, answer_s: float = ANSWER_S
    ) -> None:
        self.sock = socket.socket()
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(ANSWER_S)
        self._reader = FrameReader()
        self._frames: deque[Frame] = deque()
        try:
            self.sock.connect(("127.0.0.1", port))
            self.ask(client_role.connect(), BaseCommand.CONNECTED, answer_s)
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, *frames: bytes) -> None:
        """Send, whatever comes of it."""
        self.sock.sendall(b"".join(frames))

    def ask(self, frame: bytes, kind: int, limit_s: float = ANSWER_S) -> BaseCommand:
        """Send, and return the next command, which has to be of that kind."""
        answer = self.answer(frame, limit_s)
        assert answer.type == kind, answer
        return answer

    def answer(self, frame: bytes, limit_s: float = ANSWER_S) -> BaseCommand:
        """Send, and return the next command, whatever it says."""
        self.send(frame)
        return self.frame(limit_s).command

    def answers(self, kind: int, count: int) -> list[BaseCommand]:
        """Return so many commands, all of that kind."""
        found = [self.frame().command for _ in range(count)]
        assert all(each.type == kind for each in found), found
        return found

    def frame(self, limit_s: float = ANSWER_S) -> Frame:
        """Return the next frame that is no PING.

        Raises:
            TimeoutError: none came in time.
            ConnectionError: the broker has closed.
        """
        end = perf_counter() + limit_s
        while True:
            while self._frames:
                frame = self._frames.popleft()
                if frame.command.type != BaseCommand.PING:
                    return frame
                self.send(PONG_FRAME)
            self.sock.settimeout(max(end - perf_counter(), 0.001))
            try:
                data = self.sock.recv(RECEIVE_BYTES)
            finally:
                self.sock.settimeout(ANSWER_S)
            if not data:
                raise ConnectionResetError("the broker closed the connection")
            self._frames += self._reader.feed(data)

    def received(self, limit_s: float = ANSWER_S, at_least: int = 0) -> Iterator[Received]:
        """Yield entries as they come; end when none came for so long.

        The first `at_least` must come, and are waited for as long as for any answer.
        """
        came = 0
        while True:
            try:
                frame = self.frame(limit_s if came >= at_least else max(limit_s, ANSWER_S))
            except TimeoutError:
                return
            if frame.command.type == BaseCommand.MESSAGE and frame.payload is not None:
                message = frame.command.message
                place = EntryId(message.message_id.ledgerId, message.message_id.entryId)
                came += 1
                yield Received(place, frame.payload.payload, frame.payload.metadata)

    def subscribe(
        self,
        topic: str,
        subscription: str,
        kind: CommandSubscribe.SubType = SHARED,
        *,
        consumer_id: int = 0,
        permits: int = 0,
    ) -> None:
        """Open a consumer that begins at the start of the topic."""
        frame = client_role.subscribe(
            1, consumer_id, topic, subscription, kind, earliest=True, consumer_name="line"
        )
        self.ask(frame, BaseCommand.SUCCESS)
        if permits:
            self.send(client_role.flow(consumer_id, permits))

    def produce(self, topic: str, producer_id: int = 0, name: str | None = None) -> None:
        """Open a producer."""
        frame = client_role.producer(1, producer_id, topic, name=name)
        self.ask(frame, BaseCommand.PRODUCER_SUCCESS)
