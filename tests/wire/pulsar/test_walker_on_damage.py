"""The walker on valid frames that were damaged: whatever a peer sends, only FrameError comes out.

Damage, not noise: random bytes are refused at the first size and teach nothing. Every session
here starts valid, is hurt in a few places, some of them behind a checksum made afresh, and is
then compared with what protobuf makes of the same bytes.
"""

import os
import re
import tracemalloc
from collections.abc import Callable
from random import Random
from struct import pack, unpack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.run import ROW_SIZE
from magnetar.broker.wire.pulsar.frames import COMMAND_BYTES_MAX, FrameError
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.walker import walk
from tests.wire.pulsar import examples
from tests.wire.pulsar.session import modelled, walked

SESSIONS = int(os.environ.get("TESTS_FUZZ_SESSIONS", "20000"))
"""Sessions that the fuzz loop damages. A few seconds by default; set it for a long night."""
SESSIONS_COMPARED = 4
"""Every so many sessions are compared with the model, which is slow."""

SLOTS = {0: 9, 3: 0, 127: 1, 128: 2, 2**64 - 1: 3}


def flip(data: bytearray, random: Random) -> None:
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def cut_out(data: bytearray, random: Random) -> None:
    start = random.randrange(len(data))
    del data[start : start + random.choice((1, 2, 10, 100))]


def double(data: bytearray, random: Random) -> None:
    start = random.randrange(len(data))
    data[start:start] = data[start : start + random.choice((1, 4, 20))]


def lie_about_a_size(data: bytearray, random: Random) -> None:
    at = random.choice([0, 4, random.randrange(len(data))])
    lie = random.choice((0, 1, 3, 4, 2**31, 2**32 - 1, 5 * 2**20, random.getrandbits(8)))
    data[at : at + 4] = pack(">I", lie)


def huge_varint(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data))
    data[at : at + 1] = b"\xff" * random.choice((5, 9, 10, 11, 70))


def negative(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data))
    data[at : at + 1] = b"\xff" * 9 + b"\x01"


DAMAGE: tuple[Callable[[bytearray, Random], None], ...] = (
    flip,
    cut_out,
    double,
    lie_about_a_size,
    huge_varint,
    negative,
)


def damaged(random: Random) -> bytes:
    """Return a session hurt in one to three places."""
    frames = [examples.random_frame(random) for _ in range(random.randrange(1, 5))]
    for _ in range(random.randrange(1, 4)):
        which = random.randrange(len(frames))
        data = bytearray(frames[which])
        kind = random.random()
        if kind < 0.4:
            # Within the command, or within the entry with its checksum made afresh: with
            # sizes that still fit, so that the damage is met where it is and not before.
            frames[which] = hurt_inside(data, random)
        else:
            random.choice(DAMAGE)(data, random)
            frames[which] = bytes(data) or b"\0"
    return b"".join(frames)


def hurt_inside(data: bytearray, random: Random) -> bytes:
    if len(data) < 8:
        return bytes(data)
    (size,) = unpack(">I", data[4:8])
    command, entry = bytearray(data[8 : 8 + size]), data[8 + size :]
    if entry[:2] == b"\x0e\x01" and len(entry) > 10 and random.random() < 0.6:
        (metadata_size,) = unpack(">I", entry[6:10])
        metadata = entry[10 : 10 + metadata_size] or bytearray(b"\0")
        random.choice(DAMAGE)(metadata, random)
        hurt = examples.entry(bytes(metadata), bytes(entry[10 + metadata_size :]))
        return examples.frame(bytes(command), hurt)
    if command:
        random.choice(DAMAGE)(command, random)
    return examples.frame(bytes(command), bytes(entry))


def check(data: bytes, *, compare: bool) -> str:
    """Walk damaged bytes, and see that nothing grew; return the error."""
    segments, error = walked(data, SLOTS)
    for segment in segments:
        rows = len(segment.sends) + len(segment.strays) + len(segment.broken)
        assert rows * 20 <= len(data)
        assert sum(len(send["body"]) for send in segment.sends) <= len(data)  # type: ignore[misc, arg-type]
        assert len(segment.acks) * 14 + len(segment.flows) * 14 <= len(data)
    if compare:
        compare_with_model(data)
    return error


def compare_with_model(data: bytes) -> None:
    """See that what the walker took is what protobuf reads, up to where protobuf gives up.

    The walker does not look into what it does not need, so it may go on for longer.
    """
    expected, refused = modelled(data, SLOTS)
    got, error = walked(data, SLOTS)
    if not refused:
        # Groups and such: valid protobuf that the walker need not accept.
        assert error == "" or "wire type" in error or "a batch of" in error
    if error:
        return
    for theirs, ours in zip(expected, got, strict=False):
        assert ours.sends[: len(theirs.sends)] == theirs.sends
        assert ours.acks[: len(theirs.acks)] == theirs.acks
        assert ours.flows[: len(theirs.flows)] == theirs.flows
        assert ours.strays[: len(theirs.strays)] == theirs.strays
        assert ours.broken[: len(theirs.broken)] == theirs.broken


def test_thousands_of_damaged_sessions_end_in_frame_errors_or_not_at_all() -> None:
    random = examples.seeded(SESSIONS)
    errors: set[str] = set()
    for session in range(SESSIONS):
        error = check(damaged(random), compare=session % SESSIONS_COMPARED == 0)
        errors.add(re.sub("[0-9]+", "N", error))
    # The damage must reach every guard, or the test has gone blind.
    for words in (
        "frame of",
        "command of",
        "an entry of",
        "metadata of",
        "metadata whose last field ends",
        "metadata field with tag",
        "metadata field with wire type",
        "metadata without",
        "varint of more",
        "that protobuf cannot read",
        "without a type",
        "without a field",
        "stray bytes",
        "is not UTF-N",
        "field that ends",
    ):
        assert any(words in each for each in errors), f"no session ended in {words!r}"


@given(st.integers(0, 2**64))
def test_damage_found_by_hypothesis_shrinks_to_one_number(seed: int) -> None:
    check(damaged(examples.seeded(seed)), compare=True)


@given(st.binary(max_size=200))
def test_plain_noise_is_no_better(data: bytes) -> None:
    check(data, compare=True)


@pytest.mark.parametrize("words", [0, 1])
def test_the_largest_ack_stays_within_a_known_multiple_of_its_bytes(words: int) -> None:
    id_ = b"\x1a\x04\x08\x01\x10\x02" if not words else b"\x1a\x06\x08\x01\x10\x02\x28\x05"
    size = COMMAND_BYTES_MAX // 8  # the multiple is the same for all, and measuring is slow
    ids = id_ * (size // len(id_))
    content = b"\x08\x01\x10\x00" + ids
    command = b"\x08\x0a" + b"\x52" + examples.varint(len(content)) + content
    data = memoryview(examples.frame(command))
    tracemalloc.start()
    try:
        walk_ = walk(data, 0, len(data), SLOTS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(walk_.acks[0].ids) == len(ids) // len(id_)
    assert peak < 64 * size


def test_the_smallest_sends_make_rows_of_a_known_multiple_of_their_bytes() -> None:
    metadata = b"\x0a\x00\x10\x00\x18\x00"
    send = examples.frame(b"\x08\x06\x32\x04\x08\x03\x10\x00", examples.entry(metadata, b""))
    data = memoryview(send * 1000)
    walk_ = walk(data, 0, len(data), SLOTS)
    assert walk_.run is not None
    assert walk_.run.count == 1000
    assert len(walk_.run.rows) == 1000 * ROW_SIZE <= 3 * len(data)


def test_a_deeply_nested_id_is_no_way_to_exhaust_the_stack() -> None:
    nested = b"\x08\x01\x10\x01"
    for _ in range(5000):
        nested = b"\x08\x01\x10\x01\x3a" + examples.varint(len(nested)) + nested
    content = b"\x08\x01\x10\x00\x1a" + examples.varint(len(nested)) + nested
    by_hand = examples.frame(b"\x08\x0a\x52" + examples.varint(len(content)) + content)
    by_protobuf = examples.frame(b"\x52" + examples.varint(len(content)) + content + b"\x08\x0a")
    walk_ = walk(memoryview(by_hand), 0, len(by_hand), SLOTS)
    assert walk_.acks[0].ids[0][:2] == (1, 1)
    with pytest.raises(FrameError):
        walk(memoryview(by_protobuf), 0, len(by_protobuf), SLOTS)


def test_a_text_that_is_not_utf_8_is_refused_before_anyone_uses_it_as_one() -> None:
    command = api.BaseCommand(
        type=api.BaseCommand.LOOKUP,
        lookupTopic=api.CommandLookupTopic(topic="persistent://a/b/c", request_id=1),
    ).SerializeToString()
    data = examples.frame(command.replace(b"a/b/c", b"a/b/\xff"))
    with pytest.raises(FrameError, match=r"LOOKUP.lookupTopic.topic is not UTF-8"):
        walk(memoryview(data), 0, len(data), SLOTS)
