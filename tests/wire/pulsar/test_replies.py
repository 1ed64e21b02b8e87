"""Receipts and messages: bytes made by hand, read back by protobuf."""

from collections.abc import Sequence

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.port import Group, Selection
from magnetar.broker.run import ROW, Run
from magnetar.broker.wire.pulsar.frames import FRAME_BYTES_MAX, Frame, FrameReader
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.replies import (
    JOIN_BYTES_MAX,
    JOINED_BYTES_MAX,
    STRETCH_MIN,
    encode_messages,
    encode_receipts,
)
from tests.wire.pulsar import examples


def run_of(
    sequences: Sequence[tuple[int, int]] = (),
    bodies: Sequence[bytes] = (),
    base: int = 0,
) -> Run:
    """Return a run with these sequence ids (first, highest), or with these bodies."""
    bodies = bodies or [b""] * len(sequences)
    sequences = sequences or [(0, 0)] * len(bodies)
    rows, offset = bytearray(), base
    for (first, highest), body in zip(sequences, bodies, strict=True):
        rows += ROW.pack(offset, len(body), crc32c(body), 1, 0, 0, 0, 0, first, highest, 0, 0, 0, 0)
        offset += len(body)
    return Run(rows, b"".join(bodies), base)


def frames_in(data: bytes) -> list[Frame]:
    return FrameReader(2 * FRAME_BYTES_MAX).feed(data)


# --- receipts ------------------------------------------------------------------------------


def test_a_receipt_in_hex() -> None:
    data = encode_receipts([7], run_of([(300, 300)]), [Group(0, 0, 1, 10, 11)])
    assert data.hex(" ", 1).replace(" ", "") == ("000000130000000f08073a0b080710ac021a04080a100b")


def test_a_receipt_repeats_the_highest_sequence_id_only_when_it_is_another() -> None:
    data = encode_receipts([7], run_of([(5, 14), (15, 15)]), [Group(0, 0, 2, 10, 0)])
    first, second = (frame.command.send_receipt for frame in frames_in(data))
    assert first.highest_sequence_id == 14
    assert not second.HasField("highest_sequence_id")


def test_a_duplicate_gets_the_id_that_stands_for_none() -> None:
    data = encode_receipts([7], run_of([(1, 1)] * 30), [Group(0, 0, 30, -1, -1)])
    ids = {
        (f.command.send_receipt.message_id.ledgerId, f.command.send_receipt.message_id.entryId)
        for f in frames_in(data)
    }
    assert ids == {(2**64 - 1, 2**64 - 1)}


def test_receipts_follow_the_groups_and_name_each_group_s_producer() -> None:
    run = run_of([(n, n) for n in range(6)])
    groups = [Group(1, 4, 2, 20, 0), Group(0, 0, 1, 10, 5), Group(1, 2, 1, 20, 9)]
    receipts = [
        frame.command.send_receipt for frame in frames_in(encode_receipts([70, 71], run, groups))
    ]
    assert [
        (each.producer_id, each.sequence_id, each.message_id.ledgerId, each.message_id.entryId)
        for each in receipts
    ] == [(71, 4, 20, 0), (71, 5, 20, 1), (70, 0, 10, 5), (71, 2, 20, 9)]


edges = st.sampled_from([0, 1, 100, 127, 128, 16_380, 16_384, 2**21 - 3, 2**28 - 2, 2**35, 2**62])


@given(
    sequence=edges,
    entry=edges,
    ledger=edges,
    producer=st.sampled_from([0, 127, 128, 2**64 - 1]),
    count=st.sampled_from([1, STRETCH_MIN - 1, STRETCH_MIN, 130, 300]),
    step=st.sampled_from([0, 1, 1, 1, 100]),
    batch=st.sampled_from([0, 0, 9]),
)
def test_receipts_say_what_protobuf_would_have_said(  # the stretches of columns included
    sequence: int, entry: int, ledger: int, producer: int, count: int, step: int, batch: int
) -> None:
    sequences = [(sequence + n * step, sequence + n * step + batch) for n in range(count)]
    data = encode_receipts([producer], run_of(sequences), [Group(0, 0, count, ledger, entry)])
    expected = bytearray()
    for n, (first, highest) in enumerate(sequences):
        receipt = api.CommandSendReceipt(
            producer_id=producer,
            sequence_id=first,
            message_id=api.MessageIdData(ledgerId=ledger, entryId=entry + n),
        )
        if highest != first:
            receipt.highest_sequence_id = highest
        command = api.BaseCommand(type=api.BaseCommand.SEND_RECEIPT, send_receipt=receipt)
        expected += examples.frame(command.SerializeToString())
    assert data == expected


def test_sixteen_thousand_receipts_in_one_stretch_are_all_right() -> None:
    count = 2**14 + 300
    sequences = [(n + 16_000, n + 16_000) for n in range(count)]
    data = encode_receipts([1], run_of(sequences), [Group(0, 0, count, 5, 100)])
    receipts = [frame.command.send_receipt for frame in frames_in(data)]
    assert [each.sequence_id for each in receipts] == [first for first, _ in sequences]
    assert [each.message_id.entryId for each in receipts] == list(range(100, 100 + count))


@pytest.mark.parametrize("sequence_id", [-1, -5, -(2**63)])
def test_a_sequence_id_with_its_top_bit_set_comes_back_as_it_was_sent(sequence_id: int) -> None:
    data = encode_receipts([1], run_of([(sequence_id, sequence_id)]), [Group(0, 0, 1, 1, 1)])
    (frame,) = frames_in(data)
    assert frame.command.send_receipt.sequence_id == sequence_id % 2**64


# --- messages ------------------------------------------------------------------------------


def body_of(payload: bytes) -> bytes:
    return examples.entry(examples.metadata().SerializeToString(), payload, checksum=False)


def test_a_message_in_hex() -> None:
    body = body_of(b"hello")
    (data,) = encode_messages(7, -1, run_of(bodies=[body]), Selection(10, 11, range(1)))
    command = bytes.fromhex("0809 4a08 0807 1204 080a 100b")
    assert bytes(data) == examples.frame(
        command, b"\x0e\x01" + crc32c(body).to_bytes(4, "big") + body
    )


@given(
    st.lists(st.sampled_from([0, 1, 100, 5000, 130_000]), min_size=1, max_size=12)
    | st.lists(st.sampled_from([0, 1, 100, 3000]), min_size=STRETCH_MIN, max_size=40),
    st.data(),
    st.sampled_from([0, 100, 16_370, 2**21 - 5, 2**40]),
    st.sampled_from([-1, 0, 5, 300]),
    st.sampled_from([None, 0, 900]),
)
def test_messages_say_what_protobuf_would_have_said(
    sizes: list[int], data: st.DataObject, first_entry: int, partition: int, epoch: int | None
) -> None:
    run = run_of(bodies=[body_of(bytes(size)) for size in sizes], base=1000)
    every = range(len(sizes))
    rows = data.draw(
        st.one_of(st.just(every), st.lists(st.sampled_from(every), unique=True).map(sorted))
    )
    few = st.dictionaries(st.sampled_from(every), st.integers(0, 300), max_size=2)
    words = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3)
    seen_before = data.draw(st.booleans())
    redeliveries = data.draw(few) if seen_before else {}
    ack_sets = (
        data.draw(st.dictionaries(st.sampled_from(every), words, max_size=2)) if seen_before else {}
    )
    selection = Selection(77, first_entry, rows, redeliveries, ack_sets, epoch)
    expected = bytearray()
    for row in rows:
        message = api.CommandMessage(
            consumer_id=300,
            message_id=api.MessageIdData(ledgerId=77, entryId=first_entry + row),
            ack_set=ack_sets.get(row, ()),
        )
        if partition != -1:
            message.message_id.partition = partition
        if redeliveries.get(row):
            message.redelivery_count = redeliveries[row]
        if epoch is not None:
            message.consumer_epoch = epoch
        command = api.BaseCommand(type=api.BaseCommand.MESSAGE, message=message)
        body = bytes(run.body(row))
        expected += examples.frame(
            command.SerializeToString(), b"\x0e\x01" + crc32c(body).to_bytes(4, "big") + body
        )
    assert b"".join(encode_messages(300, partition, run, selection)) == expected


def test_small_bodies_are_copied_into_few_buffers_below_the_size_that_costs_page_faults() -> None:
    run = run_of(bodies=[body_of(bytes(1000))] * 500)
    buffers = encode_messages(1, -1, run, Selection(1, 0, range(500)))
    assert all(len(buffer) <= JOINED_BYTES_MAX + 100 for buffer in buffers)
    assert len(buffers) == 6


def test_a_body_that_alone_is_larger_than_a_buffer_gets_one_for_itself() -> None:
    sizes = [10] * 100 + [2 * JOINED_BYTES_MAX] + [10] * 100
    run = run_of(bodies=[body_of(bytes(size)) for size in sizes])
    buffers = encode_messages(1, -1, run, Selection(1, 0, range(len(sizes))))
    assert [len(buffer) > JOINED_BYTES_MAX for buffer in buffers] == [False, True, False]


def test_large_bodies_are_not_copied() -> None:
    run = run_of(bodies=[body_of(bytes(JOIN_BYTES_MAX))] * 2)
    buffers = encode_messages(1, -1, run, Selection(1, 0, range(2)))
    assert [isinstance(buffer, memoryview) for buffer in buffers] == [False, True, False, True]
    assert buffers[1].obj is run.buffer.obj  # type: ignore[union-attr]


def test_an_empty_selection_is_no_bytes() -> None:
    run = run_of(bodies=[b"x"])
    assert encode_messages(1, -1, run, Selection(1, 0, ())) == []
