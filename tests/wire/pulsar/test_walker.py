"""The walker: every whole frame of a read at once, SENDs as rows of a run."""

from struct import pack
from typing import Any, NoReturn

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.entry import EntryFlags, EntryId, Envelope, TransactionId
from magnetar.broker.port import Acknowledged
from magnetar.broker.wire.pulsar import client_role, walker
from magnetar.broker.wire.pulsar.frames import COMMAND_BYTES_MAX, FRAME_BYTES_MAX, FrameError
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.keys import key_hash
from magnetar.broker.wire.pulsar.walker import (
    MESSAGES_PER_BATCH_MAX,
    Ack,
    Broken,
    Flow,
    Stray,
    Walk,
    walk,
)
from tests.wire.pulsar import examples
from tests.wire.pulsar.session import modelled, walked

SLOTS = {3: 0, 4: 5, 300: 2}
PING = bytes.fromhex("00000009 00000005 0812920100")
SEND_7 = api.BaseCommand(
    type=api.BaseCommand.SEND, send=api.CommandSend(producer_id=3, sequence_id=7)
).SerializeToString()
CLOSE_PRODUCER_3 = examples.frame(
    api.BaseCommand(
        type=api.BaseCommand.CLOSE_PRODUCER,
        close_producer=api.CommandCloseProducer(producer_id=3, request_id=1),
    ).SerializeToString()
)


def walk_all(data: bytes) -> Walk:
    return walk(memoryview(data), 0, len(data), SLOTS)


def only_row(data: bytes) -> Envelope:
    run = walk_all(data).run
    assert run is not None
    (row,) = run.envelopes()
    return row


# --- SEND ----------------------------------------------------------------------------------


def test_a_send_in_hex_becomes_one_row_over_the_bytes_where_they_lie() -> None:
    body = bytes.fromhex("0000000c 0a0170 1007 1880d095ffbc31") + b"hello"
    data = bytes.fromhex(
        "0000002a"  # 42 bytes follow
        "0000000b"  # a command of 11 bytes
        "0806 3207"  # SEND
        "0803 10ac02 1802"  # producer 3, sequence id 300, 2 messages
        "0e01"
    ) + pack(">I", crc32c(body))
    walk_ = walk_all(data + body)
    assert walk_.run is not None
    (row,) = walk_.run.envelopes()
    assert row == Envelope(
        offset=25,
        length=len(body),
        checksum=crc32c(body),
        messages=2,
        key_hash=0,
        flags=0,
        producer=0,
        transaction=0,
        sequence_id=300,
        highest_sequence_id=300,
        publish_time_ms=1_700_000_000_000,
        deliver_at_ms=0,
        first_index=0,
        broker_time_ms=0,
    )
    assert bytes(walk_.run.body(0)) == body
    assert (walk_.consumed, walk_.more, walk_.frame_bytes) == (len(data) + len(body), False, 0)


def test_rows_of_one_read_keep_the_order_in_which_clients_sent_across_producers() -> None:
    data = b"".join(
        examples.send(producer, sequence)
        for producer, sequence in ((3, 1), (300, 1), (3, 2), (4, 9), (300, 2))
    )
    run = walk_all(data).run
    assert run is not None
    assert [(row.producer, row.sequence_id) for row in run.envelopes()] == [
        (0, 1),
        (2, 1),
        (0, 2),
        (5, 9),
        (2, 2),
    ]


def test_the_rows_of_a_run_can_be_stamped_and_outlive_the_next_walk() -> None:
    data = examples.send(num_messages=1) + examples.send(sequence_id=8)
    run = walk_all(data).run
    assert run is not None
    assert run.stamp(100, 5) == 102
    walk_all(examples.send(sequence_id=99))
    assert [row.first_index for row in run.envelopes()] == [100, 101]


@pytest.mark.parametrize(
    "sequence_id", [0, 127, 128, 16_383, 16_384, 2**21, 2**35, 2**63, 2**64 - 1]
)
def test_receipts_can_echo_any_sequence_id_because_the_row_keeps_all_its_bits(
    sequence_id: int,
) -> None:
    assert only_row(examples.send(sequence_id=sequence_id)).sequence_id % 2**64 == sequence_id


def test_the_highest_sequence_id_of_a_batch_is_that_of_the_command() -> None:
    row = only_row(examples.send(sequence_id=5, highest_sequence_id=14, num_messages=10))
    assert (row.sequence_id, row.highest_sequence_id) == (5, 14)
    row = only_row(examples.send(sequence_id=5, highest_sequence_id=0))
    assert row.highest_sequence_id == 5


@pytest.mark.parametrize(("said", "counted"), [(1, 1), (250, 250), (0, 1), (-3, 1)])
def test_an_entry_has_at_least_one_message_whatever_the_command_says(
    said: int, counted: int
) -> None:
    assert only_row(examples.send(num_messages=said)).messages == counted


def test_a_batch_has_as_many_messages_as_its_consumers_will_count() -> None:
    made = examples.metadata(num_messages_in_batch=10)
    row = only_row(examples.send(metadata_=made, num_messages=2_000_000_000))
    assert row.messages == 10
    assert row.flags == EntryFlags.BATCH


@pytest.mark.parametrize("messages", [0, -1, -(2**31), MESSAGES_PER_BATCH_MAX + 1, 2**31 - 1])
def test_a_batch_that_cannot_be_is_refused_and_what_came_before_it_counts(messages: int) -> None:
    made = examples.metadata(num_messages_in_batch=messages)
    data = examples.send(sequence_id=1) + examples.send(sequence_id=2, metadata_=made)
    walk_ = walk_all(data)
    assert walk_.run is not None
    assert walk_.run.count == 1
    with pytest.raises(FrameError, match=f"a batch of {messages} messages, allowed: 1 to"):
        walk(memoryview(data), walk_.consumed, len(data), SLOTS)


def test_the_largest_batch_that_fits_is_taken_and_a_command_may_not_claim_more() -> None:
    made = examples.metadata(num_messages_in_batch=MESSAGES_PER_BATCH_MAX)
    assert only_row(examples.send(metadata_=made)).messages == MESSAGES_PER_BATCH_MAX
    assert 64 * 2**20 // len(pack(">I", 2) + b"\x18\x00") <= MESSAGES_PER_BATCH_MAX
    with pytest.raises(FrameError, match="a batch of"):
        walk_all(examples.send(num_messages=MESSAGES_PER_BATCH_MAX + 1))


@pytest.mark.parametrize(
    ("fields", "flags"),
    [
        ({}, EntryFlags(0)),
        ({"num_messages_in_batch": 1}, EntryFlags.BATCH),
        ({"marker_type": 21}, EntryFlags.MARKER),
        ({"replicated_from": "east"}, EntryFlags.REPLICATED),
        ({"txnid_most_bits": 0}, EntryFlags.TRANSACTIONAL),
        ({"encryption_keys": [api.EncryptionKeys(key="k", value=b"")]}, EntryFlags.ENCRYPTED),
        ({"num_chunks_from_msg": 3, "chunk_id": 1}, EntryFlags.CHUNK),
        ({"num_chunks_from_msg": 3, "chunk_id": 2}, EntryFlags.CHUNK | EntryFlags.LAST_CHUNK),
        ({"num_chunks_from_msg": 1, "chunk_id": 0}, EntryFlags(0)),
    ],
)
def test_flags_tell_what_kind_of_entry_it_is(fields: dict[str, Any], flags: EntryFlags) -> None:
    assert only_row(examples.send(metadata_=examples.metadata(**fields))).flags == flags


def test_the_ordering_key_decides_who_gets_the_entry_then_the_partition_key() -> None:
    def row_of(**fields: Any) -> tuple[int, bool]:
        row = only_row(examples.send(metadata_=examples.metadata(**fields)))
        return row.key_hash, bool(row.flags & EntryFlags.KEYED)

    assert row_of() == (0, False)
    assert row_of(partition_key="sensor") == (key_hash(b"sensor"), True)
    assert row_of(partition_key="") == (key_hash(b""), True)
    assert row_of(partition_key="sensor", ordering_key=b"o") == (key_hash(b"o"), True)
    encoded = row_of(partition_key="c2Vuc29y", partition_key_b64_encoded=True)
    assert encoded == (key_hash(b"sensor"), True)


def test_a_delivery_time_before_1970_means_at_once() -> None:
    later = examples.metadata(deliver_at_time=examples.NOW_MS)
    assert only_row(examples.send(metadata_=later)).deliver_at_ms == examples.NOW_MS
    early = examples.metadata(deliver_at_time=-1)
    assert only_row(examples.send(metadata_=early)).deliver_at_ms == 0


@given(st.integers(0, 2**64 - 1))
def test_any_publish_time_can_be_read(publish_time: int) -> None:
    row = only_row(examples.send(metadata_=examples.metadata(publish_time=publish_time)))
    assert row.publish_time_ms % 2**64 == publish_time


@given(st.integers(2**35, 2**42 - 1))
def test_any_publish_time_of_our_century_can_be_read(publish_time: int) -> None:
    row = only_row(examples.send(metadata_=examples.metadata(publish_time=publish_time)))
    assert row.publish_time_ms == publish_time


def test_each_entry_has_its_own_publish_time_even_within_one_read() -> None:
    times = [0, 1_700_000_000_000, 1_700_000_000_000, 1_700_000_000_001, 2**35, 2**42, 5]
    data = b"".join(examples.send(metadata_=examples.metadata(publish_time=each)) for each in times)
    run = walk_all(data).run
    assert run is not None
    assert [row.publish_time_ms for row in run.envelopes()] == times


def test_a_send_without_a_checksum_gets_one() -> None:
    command = api.BaseCommand(
        type=api.BaseCommand.SEND, send=api.CommandSend(producer_id=3, sequence_id=1)
    )
    bare = examples.entry(examples.metadata().SerializeToString(), b"x", checksum=False)
    row = only_row(examples.frame(command.SerializeToString(), bare))
    assert (row.length, row.checksum) == (len(bare), crc32c(bare))


def test_the_smallest_entry_there_can_be_is_ten_bytes() -> None:
    entry = examples.entry(bytes.fromhex("0a00 1000 1800"), b"", checksum=False)
    assert only_row(examples.frame(SEND_7, entry)).length == 10


def test_a_send_with_a_wrong_checksum_is_reported_at_its_place_and_not_stored() -> None:
    good, bad = examples.send(sequence_id=1), bytearray(examples.send(4, 2))
    bad[-1] ^= 1
    walk_ = walk_all(good + bytes(bad) + good)
    assert walk_.run is not None
    assert walk_.run.count == 2
    assert walk_.broken == [Broken(producer_id=4, sequence_id=2, slot=5, row=1)]


def test_a_send_for_a_producer_that_is_not_open_is_told_apart() -> None:
    walk_ = walk_all(examples.send(77, 12) + examples.send(3, 1))
    assert walk_.strays == [Stray(77, 12)]
    assert walk_.run is not None
    assert walk_.run.count == 1


# --- ACK and FLOW --------------------------------------------------------------------------


def test_an_ack_in_hex() -> None:
    data = bytes.fromhex(
        "0000001c 00000018 080a 5214 0807 1000 1a04 080a100b 1a06 080a100c 2805 4009"
    )
    assert walk_all(data).acks == [
        Ack(7, [Acknowledged(10, 11), Acknowledged(10, 12, (5,))], False, 9)
    ]


def test_a_flow_in_hex() -> None:
    data = bytes.fromhex("0000000d 00000009 080b 5a05 0807 10e807")
    assert walk_all(data).flows == [Flow(consumer_id=7, permits=1000)]


def test_an_ack_carries_everything_a_subscription_needs() -> None:
    ack = api.CommandAck(
        consumer_id=1,
        ack_type=api.CommandAck.Cumulative,
        validation_error=api.CommandAck.DecryptionError,
        txnid_most_bits=5,
        txnid_least_bits=6,
    )
    ack.message_id.add(ledgerId=2**64 - 1, entryId=2**64 - 1, ack_set=[-1, 0, 2**63 - 1])
    command = api.BaseCommand(type=api.BaseCommand.ACK, ack=ack)
    assert walk_all(examples.frame(command.SerializeToString())).acks == [
        Ack(
            consumer_id=1,
            ids=[Acknowledged(-1, -1, (-1, 0, 2**63 - 1))],
            cumulative=True,
            request_id=None,
            validation_error=api.CommandAck.DecryptionError,
            transaction=TransactionId(5, 6),
        )
    ]


def test_the_words_of_an_ack_set_may_be_packed() -> None:
    data = examples.frame(bytes.fromhex("080a 520d 0801 1000 1a07 0801 1002 2a0105"))
    assert walk_all(data).acks == [Ack(1, [Acknowledged(1, 2, (5,))])]


@pytest.mark.parametrize("number", [5, 127, 128, 20_000, 3_000_000])
def test_commands_as_libraries_write_them_are_read_without_protobuf(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(content: object) -> NoReturn:
        raise AssertionError("the hot path asked protobuf")

    monkeypatch.setattr(walker, "decode_command", refuse)
    made = examples.metadata(number)
    data = b"".join(
        (
            examples.send(3, number, metadata_=made),
            examples.send(300, number, metadata_=made, num_messages=2, highest_sequence_id=number),
            examples.send(3, number, metadata_=made, is_chunk=True),
            client_role.ack(number, [EntryId(number, number)] * 30),
            client_role.flow(number, number),
        )
    )
    walk_ = walk_all(data)
    assert walk_.consumed == len(data)
    assert walk_.run is not None
    assert walk_.run.count == 3


# --- where a walk ends ---------------------------------------------------------------------


def test_a_cold_command_ends_the_walk_so_that_sends_keep_their_place_around_it() -> None:
    data = examples.send(sequence_id=1) + CLOSE_PRODUCER_3 + examples.send(sequence_id=2)
    first = walk_all(data)
    assert first.run is not None
    assert first.run.count == 1
    assert first.command is not None
    assert first.command.close_producer.producer_id == 3
    assert first.more
    second = walk(memoryview(data), first.consumed, len(data), {})
    assert second.strays == [Stray(3, 2)]
    assert not second.more


@pytest.mark.parametrize("size", range(len(PING)))
def test_a_partial_frame_waits_for_the_rest(size: int) -> None:
    data = PING + PING[:size]
    walk_ = walk_all(data)
    assert walk_.command is not None
    rest = walk(memoryview(data), walk_.consumed, len(data), SLOTS)
    assert (rest.consumed, rest.more, rest.command) == (len(PING), False, None)
    assert rest.frame_bytes == (len(PING) if size >= 4 else 0)


def test_a_walk_reads_only_its_part_of_the_buffer() -> None:
    send = examples.send()
    data = memoryview(b"\xff" * 50 + send + b"\xff" * 50)
    walk_ = walk(data, 50, 50 + len(send), SLOTS)
    assert walk_.run is not None
    assert bytes(walk_.run.body(0)).endswith(b"hello")
    assert walk_.consumed == 50 + len(send)


def test_frames_are_the_same_however_the_network_cuts_them() -> None:
    random = examples.seeded(20)
    data = b"".join(
        [examples.send(payload=b"x" * 40), PING, examples.send(sequence_id=2)]
        + [examples.random_frame(random) for _ in range(6)]
    )
    whole = walked(data, SLOTS)
    assert whole[1] == ""
    for cut in range(len(data)):
        assert walked(data, SLOTS, (cut,)) == whole, f"cut at byte {cut}"
    assert walked(data, SLOTS, range(len(data))) == whole


@given(st.integers(0, 2**32), st.integers(1, 12))
def test_the_walker_reads_what_protobuf_reads(seed: int, count: int) -> None:
    random = examples.seeded(seed)
    data = b"".join(examples.random_frame(random) for _ in range(count))
    expected, error = modelled(data, SLOTS)
    assert error == ""
    assert walked(data, SLOTS) == (expected, "")


# --- what is refused -----------------------------------------------------------------------


def test_a_frame_over_the_limit_is_refused_when_its_size_arrives_and_nothing_else_has() -> None:
    with pytest.raises(FrameError, match=r"frame of 5253121 bytes, the limit is 5253120"):
        walk_all(pack(">I", FRAME_BYTES_MAX + 1))
    assert walk_all(pack(">I", FRAME_BYTES_MAX)).frame_bytes == FRAME_BYTES_MAX + 4


def test_the_limit_on_frames_follows_the_broker_s_largest_message() -> None:
    send = examples.send(payload=bytes(2000))
    assert walk(memoryview(send), 0, len(send), SLOTS, len(send) - 4).run is not None
    with pytest.raises(FrameError, match="the limit is"):
        walk(memoryview(send), 0, len(send), SLOTS, len(send) - 5)


def test_a_damaged_frame_does_not_take_those_before_it_along() -> None:
    data = examples.send(sequence_id=1) + b"\xff" * 20
    first = walk_all(data)
    assert first.run is not None
    assert first.more
    with pytest.raises(FrameError):
        walk(memoryview(data), first.consumed, len(data), SLOTS)


def test_a_cold_command_may_not_be_larger_than_the_objects_it_becomes_are_worth() -> None:
    ping = api.BaseCommand(type=api.BaseCommand.PING, ping=api.CommandPing()).SerializeToString()
    command = api.BaseCommand(
        type=api.BaseCommand.ERROR,
        error=api.CommandError(
            request_id=1, error=api.UnknownError, message="x" * COMMAND_BYTES_MAX
        ),
    ).SerializeToString()
    with pytest.raises(FrameError, match=f"the limit is {COMMAND_BYTES_MAX}"):
        walk_all(examples.frame(command))
    assert walk_all(examples.frame(ping)).command is not None


ENTRY = examples.entry(examples.metadata().SerializeToString(), b"payload")
LONG_SEQUENCE = bytes.fromhex("0a0170 10ffffffffffffffffffff01 1880d095ffbc31")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bytes(15), "command of 0 bytes in a frame of 0"),
        (bytes(4), "past the end of its frame"),
        (b"\0\0\0\x08" + b"\0\0\0\x05" + b"1234", "command of 5 bytes in a frame of 8"),
        (examples.frame(b""), "without a type"),
        (examples.frame(b"\x08\xff\x07"), "not known"),
        (examples.frame(b"\x08\x06"), "SEND without its contents"),
        (examples.frame(b"\x08\x06\x32\x02\x08\x03"), "SEND without a field"),
        (examples.frame(b"\x08\x02" + b"\xff" * 30), "protobuf cannot read"),
        (examples.frame(b"\x08\x06\x32\x04\x08\x03\x18\x07", ENTRY), "SEND without a field"),
        (examples.frame(b"\x08\x06\x32\x05\x08\x03\x10\x07\x18", ENTRY), "cannot read"),
        (examples.frame(b"\x08\x06\x32\x05\x08\x03\x10\xff\xff", ENTRY), "cannot read"),
        (examples.frame(SEND_7, examples.entry(LONG_SEQUENCE, b"payload")), "more than 10 bytes"),
        (
            examples.frame(bytes.fromhex("080a 520f 0801 1000 1a07 0801 1002 2a0185 4009")),
            "ack set",
        ),
        (examples.frame(SEND_7), "entry of 0 bytes"),
        (examples.frame(SEND_7, b"\0\0\xff\xff" + bytes(20)), "metadata of 65535 bytes"),
        (examples.frame(SEND_7, examples.entry(b"", b"payload")), "without producer name"),
        (examples.frame(SEND_7, examples.entry(b"\x0a\x01p\x10\x07", b"")), "publish time"),
        (examples.frame(SEND_7, examples.entry(b"\x0a\x7fp", b"payload")), "ends 126 bytes"),
        (examples.frame(SEND_7, examples.entry(b"\x10" + b"\xff" * 11, b"")), "ten|10 bytes"),
        (examples.frame(SEND_7, examples.entry(b"\x0b\x0c", b"payload")), "wire type 3"),
        (examples.frame(SEND_7, examples.entry(b"\x00\x01", b"payload")), "tag 0"),
        (examples.frame(PING[8:], b"stray"), "5 stray bytes after a PING"),
        (examples.frame(b"\x08\x0a\x52\x02\x08\x01"), "ACK without a field"),
        (examples.frame(b"\x08\x0a\x52\x04\x08\x01\x10\x07"), "ACK without consumer id or type"),
        (examples.frame(b"\x08\x0a\x52\x00" + bytes(11)), "protobuf"),
        (examples.frame(b"\x08\x0a\x52\x00") + bytes.fromhex("08011000 00000000"), "ACK without"),
        (examples.frame(b"\x08\x0a\x52\x03\x08\x01\x10") + bytes(9), "ACK without"),
        (examples.frame(b"\x08\x0b\x5a\x02\x08\x01\x10"), "protobuf"),
        (examples.frame(b"\x08\x0b\x5a\x03\x08\x01\x10"), "past the end|ends 1"),
        (
            examples.frame(b"\x08\x0b\x5a\x08" + bytes.fromhex("0801 3801 3001 3801")),
            "FLOW without",
        ),
        (examples.frame(b"\x08\x0a\x52\x08" + bytes.fromhex("0801 1000 1a02 0801")), "id without"),
        (examples.frame(b"\x08\x0a\x52\x06" + bytes.fromhex("0801 1000 1a7f")), "message"),
    ],
)
def test_contents_that_do_not_add_up_are_refused_with_the_fact(data: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        walk_all(data)
