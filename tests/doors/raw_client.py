"""A Pulsar client that sends exactly what a test says, well-formed or not."""

import asyncio
import socket
from collections.abc import Iterable, Mapping
from typing import Any, Self

from crc32c import crc32c

from magnetar.broker.wire.pulsar.frames import (
    Frame,
    FrameReader,
    encode_command,
    encode_payload_frame,
)
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.generated.PulsarApi_pb2 import BaseCommand
from tests.waiting import LIMIT_S

# The sub-message's field number equals the number of its type.
_FIELDS = {
    field.number: field.name for field in BaseCommand.DESCRIPTOR.fields if field.name != "type"
}


def command(kind: str, **fields: Any) -> bytes:
    """A simple frame: `command("FLOW", consumer_id=1, messagePermits=10)`."""
    message = BaseCommand(type=kind)
    contents = getattr(message, _FIELDS[message.type])
    contents.SetInParent()
    for name, value in fields.items():
        if isinstance(value, list):
            getattr(contents, name).extend(value)
        elif hasattr(value, "DESCRIPTOR"):
            getattr(contents, name).CopyFrom(value)
        else:
            setattr(contents, name, value)
    return encode_command(message)


def connect(protocol_version: int = 21) -> bytes:
    return command("CONNECT", client_version="raw", protocol_version=protocol_version)


def send(
    producer_id: int,
    sequence_id: int,
    payload: bytes = b"hello",
    *,
    batch: int | None = None,
    highest: int | None = None,
    transaction: int | None = None,
    in_transaction: Mapping[str, int] | None = None,
    damaged: bool = False,
) -> bytes:
    """A SEND frame."""
    metadata = api.MessageMetadata(producer_name="p", sequence_id=sequence_id, publish_time=1)
    message = BaseCommand(type=BaseCommand.SEND)
    message.send.producer_id, message.send.sequence_id = producer_id, sequence_id
    if batch is not None:
        metadata.num_messages_in_batch = message.send.num_messages = batch
    if highest is not None:
        metadata.highest_sequence_id = message.send.highest_sequence_id = highest
    if transaction is not None:
        message.send.txnid_least_bits = transaction
    for name, value in (in_transaction or {}).items():
        setattr(message.send, name, value)
    frame = bytearray(encode_payload_frame(message, metadata.SerializeToString(), payload))
    if damaged:
        frame[-1] ^= 1
    return bytes(frame)


def message_payload(frame: Frame) -> bytes:
    assert frame.payload is not None
    return frame.payload.payload


def body_checksum(body: bytes) -> int:
    return crc32c(body)


class RawClient:
    """One connection to a door."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader()
        self._frames: list[Frame] = []
        self.ended = False

    @classmethod
    async def dial(
        cls,
        address: tuple[str, int],
        receive_buffer: int | None = None,
        send_buffer: int | None = None,
    ) -> Self:
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if send_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    async def connect(self, protocol_version: int = 21) -> Any:
        await self.send(connect(protocol_version))
        return await self.expect("CONNECTED")

    async def send(self, *frames: bytes) -> None:
        await self._loop.sock_sendall(self._socket, b"".join(frames))

    async def frame(self, timeout_s: float = LIMIT_S) -> Frame:
        """The next frame; PINGs are left out."""
        async with asyncio.timeout(timeout_s):
            while True:
                while not self._frames:
                    data = await self._loop.sock_recv(self._socket, 1 << 20)
                    if not data:
                        self.ended = True
                        raise ConnectionResetError("the broker closed the connection")
                    self._frames += self._reader.feed(data)
                frame = self._frames.pop(0)
                if frame.command.type != BaseCommand.PING:
                    return frame

    async def expect(self, kind: str, timeout_s: float = LIMIT_S) -> Any:
        """The contents of the next command, which has to be of this kind."""
        frame = await self.frame(timeout_s)
        name = BaseCommand.Type.Name(frame.command.type)
        assert name == kind, f"expected {kind}, got {frame.command}"
        return getattr(frame.command, _FIELDS[frame.command.type])

    async def ask(self, kind: str, answer: str, **fields: Any) -> Any:
        """Send a command and return the contents of its answer."""
        await self.send(command(kind, **fields))
        return await self.expect(answer)

    async def messages(self, count: int) -> list[Frame]:
        frames = [await self.frame() for _ in range(count)]
        assert {frame.command.type for frame in frames} <= {BaseCommand.MESSAGE}
        return frames

    async def nothing(self, for_s: float = 0.05) -> None:
        """See that nothing arrives for a while."""
        try:
            frame = await self.frame(for_s)
        except TimeoutError:
            return
        raise AssertionError(f"expected silence, got {frame.command}")

    async def closed(self, timeout_s: float = LIMIT_S) -> list[BaseCommand]:
        """Wait until the broker has closed; return what it still said."""
        said: list[BaseCommand] = []
        try:
            while True:
                said.append((await self.frame(timeout_s)).command)
        except ConnectionError:
            return said

    async def produce(self, producer_id: int, topic: str = "t", **fields: Any) -> Any:
        """Open a producer."""
        return await self.ask(
            "PRODUCER",
            "PRODUCER_SUCCESS",
            topic=topic,
            producer_id=producer_id,
            request_id=1000 + producer_id,
            **fields,
        )

    async def subscribe(self, consumer_id: int, topic: str = "t", **fields: Any) -> None:
        """Open a consumer, of a Shared subscription unless told otherwise."""
        fields.setdefault("subType", api.CommandSubscribe.Shared)
        fields.setdefault("subscription", "s")
        await self.ask(
            "SUBSCRIBE",
            "SUCCESS",
            topic=topic,
            consumer_id=consumer_id,
            request_id=2000 + consumer_id,
            **fields,
        )

    def close(self) -> None:
        self._socket.close()


def receipts(frames: Iterable[Frame]) -> list[tuple[int, int, int]]:
    """Producer, sequence and entry id of each receipt."""
    return [
        (
            frame.command.send_receipt.producer_id,
            frame.command.send_receipt.sequence_id,
            frame.command.send_receipt.message_id.entryId,
        )
        for frame in frames
    ]
