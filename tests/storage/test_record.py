"""A record comes back as it was written, or is seen to be damaged."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.storage.record import (
    HEADER_SIZE,
    Kind,
    Part,
    aligned,
    body_is_valid,
    decode_directory,
    decode_note,
    decode_run,
    encode_directory,
    finish,
    head_is_valid,
    mark,
    parse_header,
    start,
)
from tests.storage.rig import run_of

PARTS = st.builds(
    Part,
    st.integers(0, 2**63),
    st.integers(0, 2**63),
    st.integers(0, 2**24),
    st.integers(1, 2**24),
    st.text(max_size=20),
)


def record_of(bodies: list[bytes], parts: list[Part]) -> memoryview:
    run = run_of(bodies)
    directory = encode_directory(parts)
    low, high = run.body_span()
    head = HEADER_SIZE + len(directory) + len(run.rows)
    record = bytearray(aligned(head + high - low))
    record[HEADER_SIZE:head] = directory + bytes(run.rows)
    record[head : head + high - low] = run.buffer[low:high]
    finish(
        memoryview(record), Kind.RUN, 7, 99, 5, 4,
        len(parts), len(directory), run.count, run.base + low, high - low,
    )  # fmt: skip
    return memoryview(record)


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=8), st.lists(PARTS, max_size=8))
def test_a_run_comes_back(bodies: list[bytes], parts: list[Part]) -> None:
    record = record_of(bodies, parts)
    header = parse_header(record)
    assert header is not None
    assert header.size == len(record)
    assert head_is_valid(header, record)
    assert body_is_valid(header, record)
    assert decode_directory(header, record) == parts
    run = decode_run(header, record)
    assert [bytes(run.body(row)) for row in range(run.count)] == bodies


GOLDEN = (
    "4d474a31cb2a2087020001004cbb719a070000000000000063000000000000000500000000000000"
    "04000000000000000100000028000000010000006700000005000000000000000300000000000000"
    "0400000000000000010000000000000002000000000000006d650000000000006700000005000000"
    "4cbb719a010000000000000000000000000000000000000000000000000000000000000000000000"
    "e80300000000000000000000000000000000000000000000050000000000000068656c6c6f000000"
)


def test_the_bytes_of_a_record_do_not_change_between_versions() -> None:
    record = record_of([b"hello"], [Part(3, 4, 0, 1, "me")])
    assert record.hex() == GOLDEN


def test_any_flipped_bit_is_seen() -> None:
    record = record_of([b"some", b"bodies"], [Part(1, 0, 0, 2, "producer")])
    header = parse_header(record)
    assert header is not None
    end = header.head_size + header.body
    random = Random(1)
    for at in range(end):
        damaged = bytearray(record)
        damaged[at] ^= 1 << random.randrange(8)
        found = parse_header(damaged)
        sound = (
            found is not None
            and head_is_valid(found, memoryview(damaged))
            and body_is_valid(found, memoryview(damaged))
        )
        assert not sound, f"byte {at}"


def test_a_damaged_body_leaves_the_head_readable() -> None:
    record = record_of([b"some", b"bodies"], [Part(1, 0, 0, 2, "producer")])
    header = parse_header(record)
    assert header is not None
    record[header.head_size + 1] ^= 1
    assert head_is_valid(header, record)
    assert not body_is_valid(header, record)


def test_bytes_that_are_no_record_are_told_apart() -> None:
    assert parse_header(b"") is None
    assert parse_header(bytes(HEADER_SIZE)) is None
    first = start(1, 2, 3, 2, 4096)
    assert parse_header(first[: HEADER_SIZE - 1]) is None
    huge = bytearray(first)
    huge[68 - 4 : 68] = b"\xff" * 4
    assert parse_header(huge) is None
    other = bytearray(first)
    other[10] = 9  # the version
    assert parse_header(other) is None


def test_a_bare_record_is_whole() -> None:
    record = mark(4, 5, 6, 6)
    header = parse_header(record)
    assert header is not None
    assert (header.kind, header.file, header.salt, header.number, header.synced) == (4, 4, 5, 6, 6)
    assert head_is_valid(header, memoryview(record))
    assert body_is_valid(header, memoryview(record))


@given(st.integers(0, 2**64 - 1), st.binary(max_size=50))
def test_a_note_comes_back(key: int, payload: bytes) -> None:
    record = bytearray(aligned(HEADER_SIZE + 8 + len(payload)))
    record[HEADER_SIZE : HEADER_SIZE + 8] = key.to_bytes(8, "little")
    record[HEADER_SIZE + 8 : HEADER_SIZE + 8 + len(payload)] = payload
    finish(memoryview(record), Kind.NOTE, 1, 1, 1, 0, 0, 8, 0, 0, len(payload))
    header = parse_header(record)
    assert header is not None
    assert decode_note(header, memoryview(record)) == (key, payload)
