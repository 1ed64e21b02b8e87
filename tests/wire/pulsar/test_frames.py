"""Frames, one object each: for clients, and for commands that come now and then."""

from struct import pack

import pytest

from magnetar.broker.wire.pulsar.frames import (
    FRAME_BYTES_MAX,
    Frame,
    FrameError,
    FrameReader,
    Payload,
    decode_command,
    encode_command,
    encode_payload_frame,
)
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from tests.wire.pulsar import examples

PING = api.BaseCommand(type=api.BaseCommand.PING, ping=api.CommandPing())
MESSAGE = api.BaseCommand(
    type=api.BaseCommand.MESSAGE,
    message=api.CommandMessage(consumer_id=1, message_id=api.MessageIdData(ledgerId=2, entryId=3)),
)


def test_a_ping_in_hex() -> None:
    assert encode_command(PING).hex() == "00000009000000050812920100"


def test_a_payload_frame_reads_back_whole_at_every_cut() -> None:
    data = encode_payload_frame(MESSAGE, b"metadata", b"payload") + encode_command(PING)
    for cut in range(len(data)):
        reader = FrameReader()
        frames = reader.feed(data[:cut]) + reader.feed(data[cut:])
        (first, second) = frames
        assert first.command == MESSAGE
        assert first.payload is not None
        assert first.payload[:2] == (b"metadata", b"payload")
        assert second == Frame(PING)


def test_a_broker_s_own_metadata_before_the_checksum_is_skipped() -> None:
    entry = examples.entry(b"metadata", b"payload")
    data = examples.frame(MESSAGE.SerializeToString(), b"\x0e\x02" + pack(">I", 3) + b"abc" + entry)
    ((_, payload),) = FrameReader().feed(data)
    assert payload is not None
    assert payload[:2] == (b"metadata", b"payload")


def test_an_entry_without_a_checksum_is_taken_as_it_is() -> None:
    entry = examples.entry(b"metadata", b"payload", checksum=False)
    ((_, payload),) = FrameReader().feed(examples.frame(MESSAGE.SerializeToString(), entry))
    assert payload == Payload(b"metadata", b"payload", None)


def test_a_flipped_bit_in_an_entry_does_not_pass() -> None:
    data = bytearray(encode_payload_frame(MESSAGE, b"metadata", b"payload"))
    data[-1] ^= 1
    with pytest.raises(FrameError, match="checksum"):
        FrameReader().feed(data)


@pytest.mark.parametrize("size", [0, 3, FRAME_BYTES_MAX + 1, 2**32 - 1])
def test_a_size_out_of_bounds_is_refused_on_its_own(size: int) -> None:
    with pytest.raises(FrameError, match=f"frame of {size} bytes, the limits are"):
        FrameReader().feed(pack(">I", size))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "without a type"),
        (b"\x08\xff\x07", "type that is not known"),
        (b"\x08\x0d", "SUCCESS without its contents"),
        (b"\x08\x0d\x6a\x00", "SUCCESS without a field"),
        (b"\xff", "cannot read"),
        (b"\x08\x0e\x72\x07\x08\x01\x10\x01\x1a\x01\xff", r"ERROR.error.message is not UTF-8"),
    ],
)
def test_a_command_that_cannot_be_used_is_refused_with_its_name(
    content: bytes, message: str
) -> None:
    with pytest.raises(FrameError, match=message):
        decode_command(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\0\x05\x08", "a command of 5 bytes in 1"),
        (b"\0\0\0\0\x0e\x01\0", "3 bytes where a checksum of 6"),
        (b"\0\0\0\0\x0e\x02\0\0", "2 stray bytes where the size of a broker metadata"),
        (b"\0\0\0\5\x08\x12\x92\x01\0\0\0\0\x09x", "a metadata of 9 bytes in 1"),
    ],
)
def test_a_frame_whose_parts_do_not_fit_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        FrameReader().feed(pack(">I", len(content)) + content)
