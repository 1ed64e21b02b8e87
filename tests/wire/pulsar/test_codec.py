"""The two implementations of the hot commands: whatever they are given, they do the same.

The tests of each function run against both (see conftest). Here they are compared with each other
where no test says what should come out: on sessions that are long, cut, damaged, or mere noise.
"""

import os
import subprocess
import sys
from array import array
from collections.abc import Mapping
from random import Random
from types import ModuleType
from typing import Any

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker import compiled
from magnetar.broker.entry import EntryId
from magnetar.broker.port import Group, Selection
from magnetar.broker.run import ROW, Run
from magnetar.broker.wire.pulsar import client_role, codec, replies, walker
from magnetar.broker.wire.pulsar.frames import FRAME_BYTES_MAX, FrameError
from tests.wire.pulsar import examples
from tests.wire.pulsar.test_walker_on_damage import damaged

SESSIONS = int(os.environ.get("TESTS_FUZZ_SESSIONS", "20000")) // 2
SLOTS = {0: 9, 3: 0, 127: 1, 128: 2, 300: 4, 2**64 - 1: 3}
NOW_MS = 1_763_880_000_000


def said(
    module: ModuleType,
    data: bytes,
    start: int = 0,
    end: int | None = None,
    slots: Mapping[int, int] = SLOTS,
    frame_bytes_max: int = FRAME_BYTES_MAX,
) -> Any:
    """What a walk says, in values that can be compared; or that it refused.

    How it words that may depend on the frame behind a damaged one that is too short.
    """
    # Memory of just this size: a sanitizer sees one byte too many (a bytearray ends with a zero).
    buffer = memoryview(array("B", data))
    try:
        taken = module.walk(
            buffer, start, len(data) if end is None else end, slots, frame_bytes_max
        )
    except FrameError:
        return "refused"
    run, command = taken.run, taken.command
    return taken._replace(
        run=run and (bytes(run.rows), run.base, run.count, run.transactions, run.buffer is buffer),
        acks=[each._replace(ids=list(each.ids)) for each in taken.acks],
        command=command and command.SerializeToString(),
    )


def check_same(kernel: ModuleType, data: bytes, **more: Any) -> None:
    """See that both say the same of each stretch between two cold commands."""
    start = more.pop("start", 0)
    while True:
        plain = said(walker, data, start, **more)
        assert said(kernel, data, start, **more) == plain, (data.hex(), start, more)
        if isinstance(plain, str) or not plain.more:
            return
        start = plain.consumed


# --- the walk ------------------------------------------------------------------------------


def test_both_walkers_say_the_same_of_whole_cut_and_damaged_sessions(kernel: ModuleType) -> None:
    random = examples.seeded(20_261_123)
    for _ in range(SESSIONS):
        data = (
            damaged(random)
            if random.random() < 0.7
            else b"".join(examples.random_frame(random) for _ in range(random.randrange(9)))
        )
        check_same(kernel, data)
        check_same(kernel, data, end=random.randrange(len(data) + 1))
        # What lies around the part to be walked is none of its business.
        around = random.randbytes(random.randrange(20))
        check_same(kernel, around + data + around, start=len(around), end=len(around + data))


@given(st.lists(st.binary(max_size=80), max_size=6), st.integers(0, 80))
def test_both_walkers_say_the_same_of_noise(
    kernel: ModuleType, pieces: list[bytes], frame_bytes_max: int
) -> None:
    for data in (b"".join(pieces), b"".join(examples.frame(b"", each) for each in pieces)):
        check_same(kernel, data)
        check_same(kernel, data, frame_bytes_max=frame_bytes_max)


@given(st.binary(max_size=40), st.binary(max_size=60), st.sampled_from([0x06, 0x0A, 0x0B]))
def test_both_walkers_say_the_same_of_noise_where_a_hot_command_should_be(
    kernel: ModuleType, contents: bytes, entry: bytes, kind: int
) -> None:
    tag = {0x06: 0x32, 0x0A: 0x52, 0x0B: 0x5A}[kind]
    command = bytes((0x08, kind, tag, len(contents))) + contents
    check_same(kernel, examples.frame(command, entry))
    check_same(kernel, examples.frame(command) + examples.send())


@given(st.binary(max_size=60), st.binary(max_size=9), st.booleans())
def test_both_walkers_say_the_same_of_noise_where_metadata_should_be(
    kernel: ModuleType, metadata: bytes, payload: bytes, checksum: bool
) -> None:
    usual = examples.metadata().SerializeToString()
    for made in (metadata, usual + metadata, metadata + usual):
        entry = examples.entry(made, payload, checksum=checksum)
        check_same(kernel, examples.frame(bytes.fromhex("0806 3204 0803 1007"), entry))


LIKE_FIELDS = bytes.fromhex("4001") * 8
"""A payload in which a reader that goes too far finds fields that it would believe."""

HURT = {
    "a SEND": examples.send(payload=LIKE_FIELDS),
    "a SEND of all kinds of fields": examples.send(
        300,
        2**40,
        LIKE_FIELDS,
        examples.metadata(
            2**40, partition_key="key", ordering_key=b"order", num_messages_in_batch=300
        ),
        num_messages=300,
        highest_sequence_id=2**40 + 299,
    ),
    "an ACK": client_role.ack(7, [EntryId(1, 127), EntryId(1, 128), EntryId(5, 2**40)]),
    "an ACK of neighbours": client_role.ack(7, [EntryId(300, n) for n in range(120, 135)]),
    "an ACK that is to be answered": client_role.ack(7, [EntryId(1, 2)], request_id=300),
    "a FLOW": client_role.flow(7, 1000),
}


@pytest.mark.parametrize("what", HURT)
def test_both_walkers_say_the_same_when_any_one_byte_is_another(
    kernel: ModuleType, what: str
) -> None:
    """Also behind a checksum made afresh, and with nothing or another frame behind it."""
    frame = HURT[what]
    entry_at = 8 + int.from_bytes(frame[4:8])
    near = [*range(-9, 10), *range(16, 80, 7), -128, 128, *(1 << bit for bit in range(7))]
    for at in range(len(frame)):
        for step in near:
            data = bytearray(frame)
            data[at] = (data[at] + step) % 256
            if at >= entry_at + 6:
                data[entry_at + 2 : entry_at + 6] = crc32c(data[entry_at + 6 :]).to_bytes(4)
            check_same(kernel, bytes(data))
            if step in {-1, 1, 128}:
                check_same(kernel, examples.send() + data + examples.send())


@pytest.mark.parametrize("cut", range(0, 140, 3))
def test_a_read_that_ends_anywhere_is_gone_on_with_from_there(kernel: ModuleType, cut: int) -> None:
    data = examples.send() + client_role.ack(7, [EntryId(1, 2)]) + examples.send(sequence_id=8)
    check_same(kernel, data, end=min(cut, len(data)))


def test_thousands_of_frames_of_many_producers_are_one_run(kernel: ModuleType) -> None:
    slots = {number: number * 2 for number in range(300)}
    random = Random(7)
    data = b"".join(
        examples.send(random.randrange(310), number, b"x" * random.randrange(50))
        for number in range(5_000)
    )
    check_same(kernel, data, slots=slots)


def test_transactions_are_numbered_across_frames_as_they_come(kernel: ModuleType) -> None:
    data = b"".join(
        examples.send(3, number, txnid_most_bits=number % 3, txnid_least_bits=number % 2)
        for number in range(1, 20)
    )
    check_same(kernel, examples.send() + data + examples.send())


def test_the_limits_of_a_walk_are_compared_with_its_buffer(kernel: ModuleType) -> None:
    for start, end in ((0, 11), (-1, 5), (6, 5), (11, 11)):
        with pytest.raises(ValueError, match="of a buffer of 10"):
            kernel.walk(memoryview(bytes(10)), start, end, {})


# --- replies -------------------------------------------------------------------------------

numbers = st.integers(0, 63).flatmap(lambda bits: st.integers(0, 2**bits))


def run_of(rows: list[tuple[int, int]], bodies: list[bytes], base: int) -> Run:
    packed, offset = bytearray(), base
    for (first, highest), body in zip(rows, bodies, strict=True):
        packed += ROW.pack(
            offset, len(body), crc32c(body), 1, 0, 0, 0, 0, first, highest, 0, 0, 0, 0
        )
        offset += len(body)
    return Run(packed, b"".join(bodies), base)


@given(st.data())
def test_both_write_the_same_receipts(kernel: ModuleType, data: st.DataObject) -> None:
    producers = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3))
    groups, sequences = list[Group](), list[tuple[int, int]]()
    for _ in range(data.draw(st.integers(0, 4))):
        count = data.draw(st.integers(0, 40))
        first = data.draw(st.integers(-(2**63), 2**63 - 50) | numbers.map(lambda n: n // 2))
        step = data.draw(st.sampled_from([0, 1, 1, 3]))
        ledger = data.draw(st.just(-1) | numbers)
        entry = -1 if ledger < 0 else data.draw(numbers.map(lambda n: n // 2))
        slot = data.draw(st.integers(0, len(producers) - 1))
        groups.append(Group(slot, len(sequences), count, min(ledger, 2**63 - 1), entry))
        more = data.draw(st.sampled_from([0, 0, 9]))
        sequences += [(first + i * step % 40, first + i * step % 40 + more) for i in range(count)]
    run = run_of(sequences, [b""] * len(sequences), 0)
    expected = replies.encode_receipts(producers, run, groups)
    assert kernel.encode_receipts(producers, run, groups) == expected


@given(st.data())
def test_both_write_the_same_messages(kernel: ModuleType, data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([0, 10, 3000, 5000]))
    bodies = [
        bytes([number % 256]) * (size + number % 7)
        for number in range(data.draw(st.integers(0, 60)))
    ]
    run = run_of([(0, 0)] * len(bodies), bodies, data.draw(st.sampled_from([0, 100])))
    rows = data.draw(
        st.builds(range, st.integers(0, len(bodies)), st.just(len(bodies)), st.integers(1, 3))
        | st.lists(st.integers(0, max(len(bodies) - 1, 0)), max_size=len(bodies), unique=True).map(
            sorted
        )
    )
    selection = Selection(
        ledger=data.draw(numbers.map(lambda n: min(n, 2**63 - 1))),
        first_entry=data.draw(numbers.map(lambda n: n // 2)),
        rows=rows if bodies else range(0),
        redeliveries=data.draw(st.sampled_from([{}, {}, {1: 2}])),
        epoch=data.draw(st.none() | numbers),
    )
    consumer, partition = data.draw(numbers), data.draw(st.sampled_from([-1, 0, 200]))
    expected = replies.encode_messages(consumer, partition, run, selection)
    made = kernel.encode_messages(consumer, partition, run, selection)
    assert b"".join(made) == b"".join(expected)
    assert all(len(each) <= max(replies.JOINED_BYTES_MAX, 6000) for each in made)


def test_rows_that_lead_nowhere_are_refused_and_not_followed(kernel: ModuleType) -> None:
    run = run_of([(1, 1)] * 3, [b"abc"] * 3, 0)
    with pytest.raises(IndexError, match="rows 2 to 4 of a run of 3"):
        kernel.encode_receipts([7], run, [Group(0, 2, 2, 1, 1)])
    with pytest.raises(IndexError, match="slot 1 of 1"):
        kernel.encode_receipts([7], run, [Group(1, 0, 2, 1, 1)])
    with pytest.raises(IndexError, match="row 3 of a run of 3"):
        kernel.encode_messages(7, -1, run, Selection(1, 1, range(4)))
    short = Run(run.rows, run.buffer[:8])
    with pytest.raises(IndexError, match="leads out of a buffer of 8 bytes"):
        kernel.encode_messages(7, -1, short, Selection(1, 1, [0, 2]))
    beyond = Run(run.rows, run.buffer, base=1)
    with pytest.raises(IndexError, match="leads out of a buffer"):
        kernel.encode_messages(7, -1, beyond, Selection(1, 1, range(3)))


# --- the checksum --------------------------------------------------------------------------


@given(st.binary(max_size=70), st.integers(0, 20_000), st.integers(0, 9), st.integers(0, 2**32 - 1))
def test_checksums_are_those_of_crc32c_by_instruction_and_by_table(
    kernel: ModuleType, seed: bytes, size: int, shift: int, before: int
) -> None:
    data = memoryview((seed * (size // len(seed) + 1) if seed else bytes(size))[:size])[shift:]
    assert kernel.crc32c(data) == kernel.crc32c(data, by_table=True) == crc32c(data)
    assert kernel.crc32c(data, before) == crc32c(data, before)
    assert kernel.crc32c(data, before, by_table=True) == crc32c(data, before)


# --- which one runs ------------------------------------------------------------------------


def test_the_compiled_one_runs_where_it_was_built(kernel: ModuleType) -> None:
    assert codec.walk is kernel.walk
    assert "compiled: " in compiled.described()


def test_plain_python_runs_when_it_is_asked_for() -> None:
    program = (
        "from magnetar.broker import compiled\n"
        "from magnetar.broker.wire.pulsar import codec, walker\n"
        "assert codec.walk is walker.walk\n"
        "print(compiled.described())"
    )
    told = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, compiled.PURE: "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "plain Python: walker"
