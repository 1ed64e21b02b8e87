"""Protobuf fields by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.wire.pulsar.fields import (
    encode_varint,
    int32,
    read_field,
    read_varint,
    signed,
)
from magnetar.broker.wire.pulsar.frames import FrameError
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api

EDGES = sorted(
    {
        edge + step
        for edge in (2**n for n in range(65))
        for step in (-1, 0, 1)
        if edge + step < 2**64
    }
)


def written_by_protobuf(value: int) -> bytes:
    return api.CommandReachedEndOfTopic(consumer_id=value).SerializeToString()[1:]


@pytest.mark.parametrize("value", EDGES)
def test_a_varint_is_what_protobuf_writes_wherever_it_grows_by_a_byte(value: int) -> None:
    written = written_by_protobuf(value)
    assert encode_varint(value) == written
    assert read_varint(memoryview(b"?" + written + b"\xff"), 1) == (value, 1 + len(written))


@given(st.integers(0, 2**64 - 1))
def test_a_varint_is_what_protobuf_writes_anywhere_between(value: int) -> None:
    assert encode_varint(value) == written_by_protobuf(value)
    assert read_varint(memoryview(encode_varint(value)), 0)[0] == value


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_negative_number_travels_as_its_64_bit_complement(value: int) -> None:
    number, _ = read_varint(memoryview(encode_varint(value)), 0)
    assert signed(number) == value


def test_a_varint_of_eleven_bytes_is_refused_and_one_of_ten_keeps_64_bits() -> None:
    assert read_varint(memoryview(b"\xff" * 9 + b"\x7f"), 0) == (2**64 - 1, 10)
    with pytest.raises(FrameError, match="more than 10 bytes"):
        read_varint(memoryview(b"\xff" * 20), 0)
    with pytest.raises(IndexError):
        read_varint(memoryview(b"\xff\xff"), 0)


def test_an_int32_is_the_low_32_bits() -> None:
    assert int32(2**64 - 1) == -1
    assert int32(2**31 - 1) == 2**31 - 1
    assert int32(2**31) == -(2**31)
    assert int32(2**32 + 5) == 5


def test_the_top_bit_is_the_sign() -> None:
    assert signed(2**63 - 1) == 2**63 - 1
    assert signed(2**63) == -(2**63)
    assert signed(2**64 - 1) == -1


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ("0805", (0x08, 5, 2)),
        ("1203616263", (0x12, 2, 5)),
        ("090102030405060708", (0x09, 0, 9)),
        ("0d01020304", (0x0D, 0, 5)),
        ("f2fe0300", (0xFF72, 4, 4)),
    ],
)
def test_a_field_of_any_kind_can_be_skipped(data: str, field: tuple[int, int, int]) -> None:
    raw = memoryview(bytes.fromhex(data))
    assert read_field(raw, 0, len(raw)) == field


@pytest.mark.parametrize(
    "data", ["0005", "0b05", "0c05", "0e05", "120361", "0901", "ffffffffff7f00"]
)
def test_what_is_no_field_is_refused(data: str) -> None:
    raw = memoryview(bytes.fromhex(data))
    with pytest.raises(FrameError):
        read_field(raw, 0, len(raw))
