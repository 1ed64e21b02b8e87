"""Entries passed on: SENDs out of a run, and answers into runs. The client's side of a stream.

    run ──▶ SEND     size u32 | size u32 | 08 06 32 n | 08 producer 10 sequence
                     [18 messages] [20 28 transaction] [30 highest sequence, if it differs]
                     | 0e 01 | crc32c u32 | body
    SEND_RECEIPT ──▶ Receipt
    MESSAGE *    ──▶ Delivery: neighbouring entries for one consumer are one run
    anything else ─▶ the command

Bodies and their checksums are those that are stored; nothing is opened, converted or
verified on the way. What a MESSAGE does not carry (sequence ids; index and the broker's time,
unless it has entry metadata) is 0 in the rows of its run. Source: the Pulsar binary protocol
specification.
"""

from collections.abc import Iterable
from itertools import repeat
from struct import Struct
from typing import NamedTuple

from google.protobuf.message import DecodeError

from magnetar.broker.entry import TransactionId
from magnetar.broker.port import Selection
from magnetar.broker.run import (
    CHECKSUM,
    HIGHEST_SEQUENCE_ID,
    LENGTH,
    MESSAGES,
    OFFSET,
    ROW,
    SEQUENCE_ID,
    TRANSACTION,
    Bytes,
    Run,
)
from magnetar.broker.wire.pulsar.entry_metadata import read_block
from magnetar.broker.wire.pulsar.fields import encode_varint, signed
from magnetar.broker.wire.pulsar.frames import (
    CHECKSUM_MAGIC,
    FRAME_BYTES_MAX,
    FrameError,
    decode_command,
)
from magnetar.broker.wire.pulsar.generated.PulsarApi_pb2 import BaseCommand, CommandMessage
from magnetar.broker.wire.pulsar.walker import read_metadata

SEND_BYTES_MAX = 96
"""What a SEND puts before a body at the most: sizes, six numbers of ten bytes, the checksum."""

_SIZES = Struct(">II")
_U32 = Struct(">I")
_ENTRY_HEAD = Struct(">HI")
_CHECKSUM_HEAD = Struct(">HII")

_RECEIPT_TYPE = b"\x08\x07"
_MESSAGE_TYPE = b"\x08\x09"


# --- there -------------------------------------------------------------------------------


def encode_sends(producer_id: int, run: Run) -> list[Bytes]:
    """Return a SEND for every row of a run, as pieces to be written one after the other.

    Large bodies are views of the run's buffer.
    """
    start = b"\x08" + encode_varint(producer_id) + b"\x10"
    buffer, base = run.buffer, run.base
    transactions: Iterable[bytes] = repeat(b"")
    if run.transactions is not None:
        texts = [b"", *map(_transaction_fields, run.transactions)]
        transactions = [texts[number] for number in run.u32(TRANSACTION).tolist()]
    pieces: list[Bytes] = []
    for offset, length, checksum, messages, sequence_id, highest, transaction in zip(
        run.u32(OFFSET).tolist(),
        run.u32(LENGTH).tolist(),
        run.u32(CHECKSUM).tolist(),
        run.u32(MESSAGES).tolist(),
        run.i64(SEQUENCE_ID).tolist(),
        run.i64(HIGHEST_SEQUENCE_ID).tolist(),
        transactions,
        strict=False,  # there may be no end of them
    ):
        contents = start + encode_varint(sequence_id)
        if messages != 1:
            contents += b"\x18" + encode_varint(messages)
        contents += transaction
        if highest != sequence_id:
            contents += b"\x30" + encode_varint(highest)
        size = len(contents) + 4
        pieces += (
            _SIZES.pack(size + 10 + length, size),
            b"\x08\x06\x32",
            encode_varint(len(contents)),
            contents,
            _ENTRY_HEAD.pack(CHECKSUM_MAGIC, checksum),
            buffer[offset - base : offset - base + length],
        )
    return pieces


def _transaction_fields(transaction: TransactionId) -> bytes:
    most, least = transaction
    return b"\x20" + encode_varint(least) + b"\x28" + encode_varint(most)


# --- and back ----------------------------------------------------------------------------


class Receipt(NamedTuple):
    """One SEND_RECEIPT."""

    producer_id: int
    sequence_id: int
    ledger: int
    """-1: the entry was not stored, because it was before or because its topic keeps nothing."""
    entry: int


class Delivery(NamedTuple):
    """Neighbouring entries for one consumer."""

    consumer_id: int
    run: Run
    selection: Selection


Answer = Receipt | Delivery | BaseCommand


class Answers(NamedTuple):
    """What the whole frames of a buffer said, in their order."""

    answers: list[Answer]
    consumed: int
    """Position after the last whole frame."""
    frame_bytes: int
    """Size of the partial frame at `consumed`, its size field included; 0: not known yet."""


def read_answers(data: bytes, frame_bytes_max: int = FRAME_BYTES_MAX) -> Answers:
    """Take the whole frames of `data`. The runs lie in it.

    Raises:
        FrameError: a frame is too large, or its contents do not add up.
    """
    answers: list[Answer] = []
    stretch = _Stretch(data)
    view = memoryview(data)
    at, end, frame_bytes = 0, len(data), 0
    while end - at >= _SIZES.size:
        total_size, command_size = _SIZES.unpack_from(data, at)
        if not command_size + _U32.size <= total_size <= frame_bytes_max:
            raise FrameError(
                f"frame of {total_size} bytes with a command of {command_size},"
                f" the limit is {frame_bytes_max}"
            )
        frame_end = at + _U32.size + total_size
        if frame_end > end:
            frame_bytes = _U32.size + total_size
            break
        command_end = at + _SIZES.size + command_size
        content = data[at + _SIZES.size : command_end]
        if content.startswith(_MESSAGE_TYPE):
            stretch.add(_parse(content).message, view, command_end, frame_end, answers)
        else:
            stretch.finish(answers)
            if content.startswith(_RECEIPT_TYPE):
                receipt = _parse(content).send_receipt
                answers.append(
                    Receipt(
                        receipt.producer_id,
                        signed(receipt.sequence_id),
                        signed(receipt.message_id.ledgerId),
                        signed(receipt.message_id.entryId),
                    )
                )
            else:
                answers.append(decode_command(content))
        at = frame_end
    stretch.finish(answers)
    return Answers(answers, at, frame_bytes)


class _Stretch:
    """Neighbouring entries of one consumer, while they are read."""

    __slots__ = ("_ack_sets", "_data", "_first", "_redeliveries", "_rows", "_whose")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._whose: tuple[int, int, int | None] | None = None
        """Consumer id, ledger and consumer epoch."""
        self._first = 0
        self._rows: list[bytes] = []
        self._redeliveries: dict[int, int] = {}
        self._ack_sets: dict[int, list[int]] = {}

    def add(
        self, message: CommandMessage, view: memoryview, at: int, end: int, answers: list[Answer]
    ) -> None:
        """Take one MESSAGE whose entry lies in `view[at:end]`."""
        whose = (
            message.consumer_id,
            signed(message.message_id.ledgerId),
            message.consumer_epoch if message.HasField("consumer_epoch") else None,
        )
        entry = signed(message.message_id.entryId)
        if whose != self._whose or entry != self._first + len(self._rows):
            self.finish(answers)
            self._whose, self._first = whose, entry
        row = len(self._rows)
        self._rows.append(_row(view, at, end))
        if message.redelivery_count:
            self._redeliveries[row] = message.redelivery_count
        if message.ack_set:
            self._ack_sets[row] = list(message.ack_set)

    def finish(self, answers: list[Answer]) -> None:
        """Hand over what there is."""
        if not self._rows or self._whose is None:
            return
        consumer_id, ledger, epoch = self._whose
        selection = Selection(
            ledger,
            self._first,
            range(len(self._rows)),
            self._redeliveries,
            self._ack_sets,
            epoch,
        )
        run = Run(bytearray().join(self._rows), self._data)
        answers.append(Delivery(consumer_id, run, selection))
        self._whose = None
        self._rows, self._redeliveries, self._ack_sets = [], {}, {}


def _row(view: memoryview, at: int, end: int) -> bytes:
    """Return the row of the entry in `view[at:end]`, which begins with its checksum."""
    try:
        block = read_block(view, at, end)
    except ValueError as error:
        raise FrameError(f"a MESSAGE with {error}") from error
    if block is not None:
        at = block.end
    if end - at < _CHECKSUM_HEAD.size:
        raise FrameError(f"a MESSAGE with an entry of {end - at} bytes")
    magic, checksum, metadata_size = _CHECKSUM_HEAD.unpack_from(view, at)
    body = at + _ENTRY_HEAD.size
    metadata = body + _U32.size
    if magic != CHECKSUM_MAGIC or metadata + metadata_size > end:
        raise FrameError("a MESSAGE whose entry has no checksum, or too much metadata")
    try:
        publish_time, deliver_at, key, flags, batch = read_metadata(
            view, metadata, metadata + metadata_size, 0, 0, 0
        )
    except IndexError as error:
        raise FrameError("a MESSAGE whose metadata runs past its end") from error
    first_index = 0 if block is None else block.last_index + 1 - (batch or 1)
    broker_time = 0 if block is None else block.broker_time_ms
    return ROW.pack(
        *(body, end - body, checksum, batch or 1, key, flags, 0, 0),
        *(0, 0, publish_time, deliver_at, first_index, broker_time),
    )


def _parse(content: bytes) -> BaseCommand:
    # Only numbers in these two: there is no text to check, as `decode_command` would.
    try:
        return BaseCommand.FromString(content)
    except DecodeError as error:
        raise FrameError(f"a command of {len(content)} bytes that protobuf cannot read") from error
