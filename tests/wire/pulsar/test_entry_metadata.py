"""Broker entry metadata: in front of entries, for clients that know it, and passed on."""

from struct import pack, unpack_from

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.port import Selection
from magnetar.broker.run import BROKER_TIME, FIRST_INDEX, ROW, Run
from magnetar.broker.wire.pulsar.entry_metadata import (
    encode_block,
    encode_messages_with_block,
    read_block,
)
from magnetar.broker.wire.pulsar.frames import FRAME_BYTES_MAX, FrameError, FrameReader
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.relay import Delivery, read_answers
from magnetar.broker.wire.pulsar.replies import JOIN_BYTES_MAX, encode_messages
from tests.wire.pulsar import examples


def body(payload: bytes, messages: int = 1) -> bytes:
    fields = {"num_messages_in_batch": messages} if messages > 1 else {}
    about = examples.metadata(1, **fields).SerializeToString()
    return pack(">I", len(about)) + about + payload


def run_of(*entries: tuple[bytes, int, int, int]) -> Run:
    """A run of (payload, messages, first index, broker time)."""
    rows, bodies = bytearray(), bytearray()
    for payload, messages, index, time_ms in entries:
        whole = body(payload, messages)
        rows += ROW.pack(
            len(bodies), len(whole), crc32c(whole), messages, 0, 0, 0, 0, 1, 1, 7, 0, index, time_ms
        )
        bodies += whole
    return Run(rows, bodies)


def test_a_block_in_hex() -> None:
    assert encode_block(300, 5).hex() == "0e020000000508ac021005"


def test_a_block_comes_behind_the_command_and_before_the_checksum() -> None:
    run = run_of((b"hello", 1, 41, 1_700_000_000_000))
    said = b"".join(encode_messages_with_block(1, -1, run, Selection(7, 0, range(1))))
    total_size, command_size = unpack_from(">II", said)
    assert total_size == len(said) - 4
    at = 8 + command_size
    magic, size = unpack_from(">HI", said, at)
    assert magic == 0x0E02
    block = api.BrokerEntryMetadata.FromString(said[at + 6 : at + 6 + size])
    assert (block.broker_timestamp, block.index) == (1_700_000_000_000, 41)
    assert unpack_from(">H", said, at + 6 + size) == (0x0E01,)


def test_a_batch_has_the_index_of_its_last_message() -> None:
    run = run_of((b"x", 10, 100, 5))
    said = b"".join(encode_messages_with_block(1, -1, run, Selection(7, 0, range(1))))
    _, command_size = unpack_from(">II", said)
    block = read_block(memoryview(said), 8 + command_size, len(said))
    assert block is not None
    assert (block.broker_time_ms, block.last_index) == (5, 109)


ENTRIES = st.lists(
    st.tuples(
        st.one_of(st.binary(max_size=20), st.just(b"large" * JOIN_BYTES_MAX)),
        st.integers(1, 3),
        st.integers(0, 2**62),
        st.integers(0, 2**50),
    ),
    min_size=1,
    max_size=6,
)


@given(ENTRIES, st.data())
def test_without_the_blocks_it_is_what_everybody_gets(
    entries: list[tuple[bytes, int, int, int]], data: st.DataObject
) -> None:
    run = run_of(*entries)
    rows = sorted(data.draw(st.sets(st.integers(0, run.count - 1), min_size=1)))
    selection = Selection(3, 10, rows, {rows[0]: 2}, {rows[-1]: [-1]})
    with_blocks = b"".join(encode_messages_with_block(5, 2, run, selection))
    plain = b"".join(encode_messages(5, 2, run, selection))
    assert FrameReader(FRAME_BYTES_MAX).feed(with_blocks) == FrameReader(FRAME_BYTES_MAX).feed(
        plain
    )


@given(ENTRIES)
def test_what_another_process_owns_keeps_its_index_and_time(
    entries: list[tuple[bytes, int, int, int]],
) -> None:
    run = run_of(*entries)
    said = b"".join(encode_messages_with_block(5, -1, run, Selection(3, 0, range(run.count))))
    [delivery] = read_answers(said).answers
    assert isinstance(delivery, Delivery)
    assert delivery.run.i64(FIRST_INDEX).tolist() == run.i64(FIRST_INDEX).tolist()
    assert delivery.run.i64(BROKER_TIME).tolist() == run.i64(BROKER_TIME).tolist()


@pytest.mark.parametrize("block", [b"\x0e\x02\0\0\xff\xff", b"\x0e\x02\0\0\0\x02\xff\xff"])
def test_a_block_that_does_not_add_up_is_refused(block: bytes) -> None:
    run = run_of((b"hello", 1, 0, 0))
    said = b"".join(encode_messages(1, -1, run, Selection(7, 0, range(1))))
    total_size, command_size = unpack_from(">II", said)
    at = 8 + command_size
    damaged = pack(">I", total_size + len(block)) + said[4:at] + block + said[at:]
    with pytest.raises(FrameError):
        read_answers(damaged)
