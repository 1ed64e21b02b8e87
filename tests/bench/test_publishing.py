"""Receipts are counted without being opened, wherever the network cuts them."""

import socket
from collections.abc import Iterator

import pytest

from magnetar.bench.load import Load, RunError, Where
from magnetar.bench.pipeline import pieces_of
from magnetar.bench.publishing import Receipts, entry_frame, shares
from magnetar.broker.wire.pulsar import commands
from magnetar.broker.wire.pulsar.frames import FrameReader
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api

Command = api.BaseCommand


def receipt(producer: int, ledger: int, entry: int) -> bytes:
    command = api.BaseCommand(type=Command.SEND_RECEIPT)
    command.send_receipt.producer_id = producer
    command.send_receipt.sequence_id = entry
    command.send_receipt.message_id.ledgerId = ledger
    command.send_receipt.message_id.entryId = entry
    body = command.SerializeToString()
    return (len(body) + 4).to_bytes(4) + len(body).to_bytes(4) + body


@pytest.fixture
def pipeline() -> Iterator[Receipts]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Receipts(ours, pieces_of([b"x"], 4), 4)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 50, 100_000])
def test_every_receipt_is_counted_once_however_it_is_cut(pipeline: Receipts, step: int) -> None:
    # The numbers that look most like the beginning of a receipt, and some others.
    numbers = [7, 8, 0x3A, 0x3A07, 0x1D0788, 2**40, 2**63]
    data = b"".join(
        receipt(p, ledger, e) for p in (0, 7, 58) for ledger in numbers for e in numbers
    )
    data += commands.ping() + receipt(1, 2, 3)
    counted = sum(pipeline.count(data[i : i + step]) for i in range(0, len(data), step))
    assert counted == 3 * len(numbers) ** 2 + 1


def test_a_ping_is_answered(pipeline: Receipts) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Receipts(ours, pieces_of([b"x"], 4), 4).count(commands.ping())
        assert theirs.recv(100) == commands.pong()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (commands.error(1, api.TopicTerminatedError, "it is over"), "it is over"),
        (commands.send_error(1, 1, api.PersistenceError, "the disk is full"), "the disk is full"),
        (commands.close_producer(3), "closed a producer"),
        (receipt(1, 2**64 - 1, 2**64 - 1), "drops duplicates"),
    ],
)
def test_an_answer_that_spoils_the_count_ends_the_run(
    pipeline: Receipts, answer: bytes, reason: str
) -> None:
    with pytest.raises(RunError, match=reason):
        pipeline.count(receipt(1, 2, 3) + answer)


def test_entries_hold_as_many_messages_as_asked_and_their_checksum_is_right() -> None:
    where = Where(url="pulsar://x:1")
    load = Load(mode="publish", where=where, prefix="t", size_bytes=10, batch=3)
    (frame,) = FrameReader().feed(entry_frame(5, load))
    assert frame.command.send.num_messages == 3
    assert frame.payload is not None
    assert frame.payload.payload.count(b"x" * 10) == 3


def test_entries_are_divided_by_topics_and_none_is_lost() -> None:
    assert shares(100, [["a"], ["b", "c"], ["d"]]) == [25, 50, 25]
    assert sum(shares(101, [["a"], ["b"], ["c"]])) == 101
