"""What is passed on is what was stored, in both directions."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.port import Selection
from magnetar.broker.run import CHECKSUM, OFFSET, PRODUCER, Run
from magnetar.broker.wire.pulsar import commands, replies
from magnetar.broker.wire.pulsar.frames import FrameError, encode_payload_frame
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.relay import (
    SEND_BYTES_MAX,
    Delivery,
    Receipt,
    encode_sends,
    read_answers,
)
from magnetar.broker.wire.pulsar.walker import MESSAGES_PER_BATCH_MAX, walk

I64 = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(0, 300))


@st.composite
def sends(draw: st.DrawFn) -> bytes:
    """One SEND as a client would write it."""
    metadata = api.MessageMetadata(
        producer_name=draw(st.text(min_size=1, max_size=10)),
        sequence_id=draw(st.integers(0, 2**63)),
        publish_time=draw(st.integers(0, 2**60)),
    )
    command = api.BaseCommand(type=api.BaseCommand.SEND)
    command.send.producer_id = 3
    command.send.sequence_id = draw(I64) & 2**64 - 1
    if draw(st.booleans()):
        command.send.highest_sequence_id = draw(I64) & 2**64 - 1
    if draw(st.booleans()):
        command.send.txnid_most_bits = draw(st.integers(0, 2**64 - 1))
        command.send.txnid_least_bits = draw(st.integers(0, 2**64 - 1))
    if draw(st.booleans()):
        command.send.num_messages = draw(st.integers(1, MESSAGES_PER_BATCH_MAX))
    if draw(st.booleans()):
        metadata.num_messages_in_batch = draw(st.integers(1, 2000))
    if draw(st.booleans()):
        metadata.partition_key = draw(st.text(max_size=10))
    if draw(st.booleans()):
        metadata.deliver_at_time = draw(st.integers(0, 2**50))
    return encode_payload_frame(command, metadata.SerializeToString(), draw(st.binary()))


def run_from(frames: Sequence[bytes]) -> Run:
    data = bytearray(b"".join(frames))
    run = walk(memoryview(data), 0, len(data), {3: 0}).run
    assert run is not None
    return run


def alike(run: Run) -> list[tuple[object, ...]]:
    """The rows, apart from where the bodies lie, and the bodies."""
    return [
        (
            *each._replace(offset=0, producer=0, transaction=0),
            (None, *(run.transactions or ()))[each.transaction],
            bytes(run.body(row)),
        )
        for row, each in enumerate(run.envelopes())
    ]


@given(st.lists(sends(), min_size=1, max_size=8), st.integers(0, 2**63))
def test_the_owner_reads_the_same_rows_that_were_read_here(
    frames: list[bytes], producer_id: int
) -> None:
    run = run_from(frames)
    passed_on = bytearray(b"".join(encode_sends(producer_id, run)))
    taken = walk(memoryview(passed_on), 0, len(passed_on), {producer_id: 9})
    assert taken.run is not None
    assert taken.consumed == len(passed_on)
    assert alike(taken.run) == alike(run)
    assert set(taken.run.u32(PRODUCER)) == {9}


@given(sends(), st.integers(0, 2**64 - 1))
def test_a_send_is_never_larger_than_its_body_and_a_fixed_size(
    frame: bytes, producer_id: int
) -> None:
    run = run_from([frame])
    assert len(b"".join(encode_sends(producer_id, run))) <= len(run.body(0)) + SEND_BYTES_MAX


@given(
    st.lists(sends(), min_size=1, max_size=6),
    st.data(),
    st.integers(0, 2**62),
    st.one_of(st.none(), st.integers(0, 2**62)),
)
def test_a_delivery_holds_what_the_owner_selected(
    frames: list[bytes], data: st.DataObject, ledger: int, epoch: int | None
) -> None:
    run = run_from(frames)
    rows = sorted(data.draw(st.sets(st.integers(0, run.count - 1), min_size=1)))
    redeliveries = {rows[0]: 3} if data.draw(st.booleans()) else {}
    ack_sets = {rows[-1]: [-1, 5]} if data.draw(st.booleans()) else {}
    selection = Selection(ledger, 100, rows, redeliveries, ack_sets, epoch)
    said = b"".join(replies.encode_messages(8, -1, run, selection))
    taken = read_answers(said)
    assert taken.consumed == len(said)
    got: dict[int, tuple[int, bytes, int, tuple[int, ...]]] = {}
    for each in taken.answers:
        assert isinstance(each, Delivery)
        assert (each.consumer_id, each.selection.ledger, each.selection.epoch) == (8, ledger, epoch)
        for row in each.selection.rows:
            got[each.selection.first_entry + row] = (
                each.run.u32(CHECKSUM)[row],
                bytes(each.run.body(row)),
                each.selection.redeliveries.get(row, 0),
                tuple(each.selection.ack_sets.get(row, ())),
            )
            theirs = each.run.envelope(row)
            ours = run.envelope(each.selection.first_entry - 100 + row)
            assert theirs[6:8] == (0, 0)
            assert (theirs.publish_time_ms, theirs.deliver_at_ms, theirs.key_hash) == (
                ours.publish_time_ms,
                ours.deliver_at_ms,
                ours.key_hash,
            )
    assert got == {
        100 + row: (
            run.u32(CHECKSUM)[row],
            bytes(run.body(row)),
            redeliveries.get(row, 0),
            tuple(ack_sets.get(row, ())),
        )
        for row in rows
    }


def plain(*sequence_ids: int) -> Run:
    frames: list[bytes] = []
    for sequence in sequence_ids:
        metadata = api.MessageMetadata(producer_name="p", sequence_id=sequence, publish_time=1)
        command = api.BaseCommand(type=api.BaseCommand.SEND)
        command.send.producer_id, command.send.sequence_id = 3, sequence
        frames.append(encode_payload_frame(command, metadata.SerializeToString(), b"hello"))
    return run_from(frames)


def messages(consumer_id: int, first_entry: int, rows: Sequence[int]) -> bytes:
    selection = Selection(7, first_entry, rows)
    return b"".join(replies.encode_messages(consumer_id, -1, plain(*range(10)), selection))


def test_neighbours_are_one_delivery_and_a_gap_begins_another() -> None:
    said = messages(1, 0, range(4)) + messages(1, 4, range(2)) + messages(1, 9, range(1))
    taken = read_answers(said + messages(2, 10, range(1))).answers
    found = [
        (each.consumer_id, each.selection.first_entry, each.run.count)
        for each in taken
        if isinstance(each, Delivery)
    ]
    assert found == [(1, 0, 6), (1, 9, 1), (2, 10, 1)]


def test_answers_keep_their_order_and_a_partial_frame_waits() -> None:
    at = api.MessageIdData(ledgerId=7, entryId=4)
    receipt = api.BaseCommand(type=api.BaseCommand.SEND_RECEIPT)
    receipt.send_receipt.producer_id, receipt.send_receipt.sequence_id = 1, 2
    receipt.send_receipt.message_id.CopyFrom(at)
    from magnetar.broker.wire.pulsar.frames import encode_command

    whole = messages(1, 0, range(1)) + encode_command(receipt) + commands.pong()
    partial = messages(1, 1, range(1))
    kinds = [Delivery, Receipt, api.BaseCommand]
    for cut in range(len(partial)):
        taken = read_answers(whole + partial[:cut])
        assert [type(each) for each in taken.answers] == kinds
        assert taken.consumed == len(whole)
        assert taken.frame_bytes in {0, len(partial)}
    assert taken.answers[1] == Receipt(1, 2, 7, 4)
    assert taken.frame_bytes == len(partial)


def test_large_bodies_are_views_and_nothing_is_copied() -> None:
    run = plain(1)
    pieces = encode_sends(1, run)
    assert isinstance(pieces[-1], memoryview)
    assert run.u32(OFFSET)[0] > 0


@pytest.mark.parametrize("at", [0, 4, -12, -20, -28])
def test_damage_is_refused_or_at_least_changes_no_length(at: int) -> None:
    said = bytearray(messages(1, 0, range(1)))
    said[at] ^= 0xFF
    try:
        taken = read_answers(bytes(said))
    except FrameError:
        return
    assert taken.consumed in {0, len(said)}


@given(st.binary(max_size=200))
def test_noise_is_refused_or_waits_for_more(noise: bytes) -> None:
    try:
        taken = read_answers(noise)
    except FrameError:
        return
    assert 0 <= taken.consumed <= len(noise)


def test_a_frame_above_the_limit_is_refused_before_it_is_there() -> None:
    said = messages(1, 0, range(1))
    with pytest.raises(FrameError, match="limit"):
        read_answers(said[:8], frame_bytes_max=len(said) - 5)
    assert read_answers(said, frame_bytes_max=len(said) - 4).consumed == len(said)
