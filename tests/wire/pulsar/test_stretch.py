"""Stretches of SENDs that are alike: the rows are those of frames that come one by one."""

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.entry import EntryId
from magnetar.broker.port import Acknowledged, Neighbours
from magnetar.broker.wire.pulsar import client_role, walker
from magnetar.broker.wire.pulsar.frames import FRAME_BYTES_MAX, FrameError, encode_command
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.stretch import Stretch, take_alike
from magnetar.broker.wire.pulsar.walker import walk

PLAIN_ONLY = True
"""The compiled walker knows no stretches: to it, frames that are alike are nothing special."""

SLOTS = {3: 1, 4: 2, 300: 0}
NOW_MS = 1_763_880_000_000


def send(
    sequence_id: int, body: bytes = b"some body", *, producer_id: int = 3, **also: Any
) -> bytes:
    """One SEND as a client without batching makes it; `also` goes into its metadata."""
    metadata = api.MessageMetadata(producer_name="standalone-0-12", sequence_id=sequence_id)
    metadata.publish_time = NOW_MS
    for name, value in also.items():
        setattr(metadata, name, value)
    return client_role.send(producer_id, metadata, body)


def seen(frames: Sequence[bytes]) -> list[Any]:
    """What the walker makes of frames that come together: rows with their bodies, and damage."""
    data = memoryview(b"".join(frames))
    start, found, more = 0, list[Any](), True
    while more:
        taken = walk(data, start, len(data), SLOTS)
        run = taken.run
        if run is not None:
            found += [
                (row._replace(offset=0), bytes(run.body(at)))
                for at, row in enumerate(run.envelopes())
            ]
        found += [each[:3] for each in taken.broken]
        found += taken.strays
        start, more = taken.consumed, taken.more
    assert start == len(data)
    return found


def one_by_one(frames: Sequence[bytes]) -> list[Any]:
    """The same, of frames that come alone: there is no stretch of one."""
    rows = [seen([frame]) for frame in frames]
    return [each for row in rows for each in row]


@pytest.fixture
def stretches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames were taken together, each time that it was tried."""
    found: list[int] = []

    def taking(*given: Any) -> Stretch | None:
        stretch = take_alike(*given)
        found.append(0 if stretch is None else stretch.frames)
        return stretch

    monkeypatch.setattr(walker, "take_alike", taking)
    return found


@pytest.mark.parametrize("first", [0, 1, 100, 120, 128, 16_370, 20_000, 2_097_140, 268_435_440])
def test_entries_of_a_client_that_does_not_batch_are_taken_together(
    first: int, stretches: list[int]
) -> None:
    frames = [send(first + number, bytes(number % 7)) for number in range(40)]
    assert seen(frames) == one_by_one(frames)
    # One frame by itself, then all up to where the sequence id grows by a digit.
    assert sum(stretches) >= (0 if first > 2**28 else 36 if first < 2**28 - 50 else 10)


def test_what_all_have_in_common_may_be_anything(stretches: list[int]) -> None:
    for also in (
        {"uncompressed_size": 1024},
        {"partition_key": "sensor-7"},
        {"num_messages_in_batch": 100, "compression": api.LZ4},
        {"deliver_at_time": NOW_MS + 10},
    ):
        frames = [send(900 + number, b"body %d" % number, **also) for number in range(30)]
        stretches.clear()
        assert seen(frames) == one_by_one(frames)
        assert sum(stretches) >= 28


def test_time_goes_on_and_a_stretch_ends(stretches: list[int]) -> None:
    frames = [send(1000 + number, publish_time=NOW_MS + number // 20) for number in range(100)]
    assert seen(frames) == one_by_one(frames)
    assert stretches == [19, 19, 19, 19, 19]


def test_frames_that_are_not_alike_are_searched_for_a_few_times_only(stretches: list[int]) -> None:
    frames = [send(1000 + number, publish_time=NOW_MS + number) for number in range(100)]
    assert seen(frames) == one_by_one(frames)
    assert stretches == [0, 0, 0]


def test_a_wrong_checksum_within_a_stretch_is_found_at_its_place(stretches: list[int]) -> None:
    frames = [bytearray(send(1000 + number)) for number in range(40)]
    frames[20][-1] ^= 1
    data = memoryview(b"".join(frames))
    taken = walk(data, 0, len(data), SLOTS)
    assert taken.run is not None
    assert taken.run.count == 39
    ((producer_id, sequence_id, slot, row),) = taken.broken
    assert (producer_id, sequence_id, slot, row) == (3, 1020, 1, 20)
    assert sum(stretches) >= 36


def test_a_frame_above_the_limit_within_a_stretch_is_refused(stretches: list[int]) -> None:
    frames = [send(1000 + number, bytes(100)) for number in range(20)]
    frames += [send(1020, bytes(500)), *frames]
    data = memoryview(b"".join(frames))
    taken = walk(data, 0, len(data), SLOTS, 300)
    assert taken.run is not None
    assert (taken.run.count, taken.more) == (20, True)
    assert sum(stretches) == 19
    with pytest.raises(FrameError, match="the limit is 300"):
        walk(data, taken.consumed, len(data), SLOTS, 300)


def test_a_metadata_that_repeats_another_sequence_id_is_none_of_a_stretch() -> None:
    frames = []
    for number in range(30):
        metadata = api.MessageMetadata(
            producer_name="p", sequence_id=500 + number % 5, publish_time=NOW_MS
        )
        frames.append(client_role.send(3, metadata, b"x"))
        at = frames[-1].index(b"\x10")
        frames[-1] = frames[-1][: at + 1] + b"\xe8\x07" + frames[-1][at + 3 :]
    assert seen(frames) == one_by_one(frames)


def test_a_varint_that_does_not_end_where_others_do_is_no_part_of_a_stretch() -> None:
    frames = [send(200 + number) for number in range(30)]
    bad = bytearray(frames[20])
    for at in range(len(bad) - 1):
        if bad[at : at + 2] == b"\x10\xdc":
            bad[at + 2] = 0x81  # goes on into the next field
    checked = bad.index(b"\x0e\x01") + 6
    bad[checked - 4 : checked] = crc32c(bytes(bad[checked:])).to_bytes(4, "big")
    frames[20] = bytes(bad)
    data = memoryview(b"".join(frames))
    taken = walk(data, 0, len(data), SLOTS)
    assert taken.run is not None
    assert taken.run.count == 20
    with pytest.raises(FrameError):
        walk(data, taken.consumed, len(data), SLOTS)


def test_what_is_no_send_by_hand_is_no_model() -> None:
    frames = b"".join(send(1000 + number) for number in range(3))
    first = memoryview(frames)
    assert take_alike(first, 0, bytes(80), 0, len(first), FRAME_BYTES_MAX) is not None
    for at, byte in ((8, 0x0A), (9, 0x07), (10, 0x3A), (11, 1), (12, 0x10), (14, 0x18)):
        changed = bytearray(frames)
        changed[at] = byte
        assert (
            take_alike(memoryview(changed), 0, bytes(80), 0, len(changed), FRAME_BYTES_MAX) is None
        )


# --- the ids of an ACK ---------------------------------------------------------------------


def acked(data: bytes) -> Sequence[Acknowledged]:
    (ack,) = walk(memoryview(data), 0, len(data), SLOTS).acks
    assert ack.consumer_id == 7
    return ack.ids


@pytest.mark.parametrize("first", [0, 90, 200, 16_000, 20_000, 2_097_000, 2**40])
@pytest.mark.parametrize("ledger", [0, 127, 128, 2**30, 2**63 - 1])
@pytest.mark.parametrize("request_id", [None, 9])
def test_neighbours_in_one_ack_are_one_object(
    first: int, ledger: int, request_id: int | None
) -> None:
    entries = range(first, first + 30)
    ids = [EntryId(ledger, entry) for entry in entries]
    found = acked(client_role.ack(7, ids, request_id=request_id))
    assert found == [Acknowledged(*each) for each in ids]
    assert isinstance(found, Neighbours) == (first < 2**21)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([5, 6, 300]),
            st.integers(0, 20_000) | st.integers(120, 135) | st.integers(0, 2**63 - 1),
            st.integers(1, 30),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_ids_of_one_ack_are_those_that_were_sent(runs: list[tuple[int, int, int]]) -> None:
    ids = [
        EntryId(ledger, min(first + more, 2**63 - 1))
        for ledger, first, count in runs
        for more in range(count)
    ]
    assert acked(client_role.ack(7, ids)) == [Acknowledged(*each) for each in ids]


def test_an_id_with_an_ack_set_among_others_keeps_it() -> None:
    ids = [api.MessageIdData(ledgerId=4, entryId=entry) for entry in range(40)]
    ids[0].ack_set.append(5)
    ids[20].ack_set.append(6)
    ids[30].partition = 2
    ack = api.CommandAck(consumer_id=7, ack_type=api.CommandAck.Individual, message_id=ids)
    data = encode_command(api.BaseCommand(type=api.BaseCommand.ACK, ack=ack))
    expected = [Acknowledged(4, entry) for entry in range(40)]
    expected[0], expected[20] = Acknowledged(4, 0, (5,)), Acknowledged(4, 20, (6,))
    assert acked(data) == expected


def test_ids_that_come_after_other_fields_count_too() -> None:
    ids = [EntryId(4, entry) for entry in range(30)]
    data = client_role.ack(7, ids, request_id=1)
    id_ = b"\x1a\x04\x08\x04\x10\x63"
    changed = bytearray(data + id_)
    for at in (0, 4):
        size = int.from_bytes(data[at : at + 4]) + len(id_)
        changed[at : at + 4] = size.to_bytes(4)
    # 0a 52: the size of the contents has two bytes
    contents = len(changed) - 8 - 5
    changed[11:13] = bytes((contents & 127 | 128, contents >> 7))
    assert acked(bytes(changed))[-1] == Acknowledged(4, 99)
    assert len(acked(bytes(changed))) == 31


def test_neighbours_are_a_sequence_of_ids() -> None:
    some = Neighbours(3, range(10, 20))
    assert (len(some), some[0], some[-1]) == (10, Acknowledged(3, 10), Acknowledged(3, 19))
    assert some[2:4] == [Acknowledged(3, 12), Acknowledged(3, 13)]
    assert list(some) == some
    assert some != list(some)[1:]


# --- all together --------------------------------------------------------------------------


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_any_mix_of_frames_makes_the_rows_that_they_make_alone(seed: int) -> None:
    random = Random(seed)
    frames: list[bytes] = []
    sequence_id = random.choice([0, 100, 127, 16_000, 16_383, 2_000_000])
    also: dict[str, Any] = {}
    producer_id = 3
    for _ in range(random.randrange(1, 6)):
        if random.random() < 0.5:
            producer_id = random.choice([3, 3, 4, 300, 9])
        if random.random() < 0.5:
            also = random.choice(
                [{}, {"partition_key": "k"}, {"event_time": 7}, {"publish_time": NOW_MS + 1}]
            )
        for _ in range(random.randrange(30)):
            frame = bytearray(
                send(
                    sequence_id,
                    random.randbytes(random.randrange(30)),
                    producer_id=producer_id,
                    **also,
                )
            )
            if random.random() < 0.02:
                frame[-1] ^= 0x40
            frames.append(bytes(frame))
            sequence_id += random.choice([1, 1, 1, 2, 130])
    in_order = [each for each in seen(frames) if isinstance(each, tuple) and len(each) == 2]
    alone = [each for each in one_by_one(frames) if isinstance(each, tuple) and len(each) == 2]
    assert [each for each in in_order if each not in alone] == []
    assert sorted(map(repr, seen(frames))) == sorted(map(repr, one_by_one(frames)))


def all_of(data: bytes) -> list[Any]:
    """Everything that walks of a read say, until it is at its end or refused."""
    view, start, said = memoryview(data), 0, list[Any]()
    while True:
        try:
            taken = walk(view, start, len(view), SLOTS)
        except FrameError as error:
            return [*said, str(error)]
        run, command = taken.run, taken.command
        said.append([tuple(row) for row in run.envelopes()] if run is not None else None)
        said.append([each._replace(ids=list(each.ids)) for each in taken.acks])
        said.append([None if command is None else command.SerializeToString(), *taken[2:5]])
        said.append(taken[6:])
        start = taken.consumed
        if not taken.more:
            return said


def rechecked(frame: bytearray) -> bytes:
    """The frame with the checksum that it has now."""
    command_end = 8 + int.from_bytes(frame[4:8])
    if frame[command_end : command_end + 2] == b"\x0e\x01":
        body_at = command_end + 6
        frame[body_at - 4 : body_at] = crc32c(bytes(frame[body_at:])).to_bytes(4)
    return bytes(frame)


def test_damage_is_found_in_a_stretch_as_it_is_frame_by_frame(
    monkeypatch: pytest.MonkeyPatch, stretches: list[int]
) -> None:
    random = Random(7)
    for _ in range(1_500):
        first = random.choice([0, 100, 120, 16_000, 16_370, 2_097_140])
        also: dict[str, Any] = random.choice(
            [{}, {"partition_key": "k"}, {"num_messages_in_batch": 5}]
        )
        frames = [send(first + number, bytes(number % 6), **also) for number in range(30)]
        for _ in range(random.randrange(4)):
            place = random.randrange(len(frames))
            frame = bytearray(frames[place])
            at = random.randrange(len(frame))
            frame[at] = random.choice(
                [0, 1, 0x7F, 0x80, 0xFF, 0x10, 0x18, 0x0A, 0x20, 0x30, frame[at] ^ 2]
            )
            if random.random() < 0.3:
                del frame[at]
            frames[place] = rechecked(frame) if random.random() < 0.7 else bytes(frame)
        ack = bytearray(client_role.ack(7, [EntryId(5, first + entry) for entry in range(40)]))
        if random.random() < 0.5:
            ack[random.randrange(len(ack))] = random.choice([0, 0x80, 0xFF, 0x1A, 0x10])
        data = b"".join([*frames, bytes(ack)])
        data = data[: random.choice([len(data), len(data), random.randrange(len(data))])]
        together = all_of(data)
        with monkeypatch.context() as patched:
            patched.setattr(walker, "FRAMES_MIN", len(data))
            patched.setattr(walker, "IDS_MIN", len(data))
            assert together == all_of(data)
    assert sum(stretches) > 20_000
