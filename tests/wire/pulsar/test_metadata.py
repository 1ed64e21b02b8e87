"""Bodies opened up: batches, compression, what cannot be opened."""

from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.metadata import (
    BodyError,
    batch_contents,
    compress,
    messages,
    split_body,
)
from tests.wire.pulsar import examples

COMPRESSIONS = [api.NONE, api.LZ4, api.ZLIB, api.ZSTD, api.SNAPPY]


def body_of(metadata: api.MessageMetadata, payload: bytes) -> bytes:
    return examples.entry(metadata.SerializeToString(), payload, checksum=False)


def single(**fields: Any) -> api.SingleMessageMetadata:
    return api.SingleMessageMetadata(**fields)


BATCH = [
    (single(partition_key="k1", event_time=5, sequence_id=100), b"one"),
    (single(properties=[api.KeyValue(key="a", value="b")]), b""),
    (single(null_value=True, ordering_key=b"o", compacted_out=True), b""),
    (single(partition_key="az==", partition_key_b64_encoded=True), b"four" * 500),
]


def batch(compression: api.CompressionType = api.NONE, **fields: Any) -> bytes:
    contents = batch_contents(BATCH)
    metadata = examples.metadata(
        40,
        num_messages_in_batch=len(BATCH),
        compression=compression,
        uncompressed_size=len(contents),
        **fields,
    )
    return body_of(metadata, compress(contents, compression))


def test_a_message_alone_comes_with_all_that_its_metadata_says() -> None:
    metadata = examples.metadata(
        7, partition_key="k", event_time=9, properties=[api.KeyValue(key="a", value="b")]
    )
    (message,) = messages(body_of(metadata, b"hello"))
    assert message._asdict() == {
        "batch_index": -1,
        "batch_size": 0,
        "key": "k",
        "key_is_base64": False,
        "ordering_key": None,
        "properties": {"a": "b"},
        "event_time_ms": 9,
        "publish_time_ms": examples.NOW_MS,
        "producer_name": "standalone-0-12",
        "sequence_id": 7,
        "payload": b"hello",
        "null_value": False,
        "compacted_out": False,
        "encrypted": False,
    }


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_message_of_a_batch_comes_out_however_it_was_compressed(
    compression: api.CompressionType,
) -> None:
    one, two, three, four = messages(batch(compression))
    assert (one.batch_index, one.batch_size, one.key, one.payload) == (0, 4, "k1", b"one")
    assert (one.sequence_id, one.event_time_ms) == (100, 5)
    assert (two.properties, two.payload, two.key) == ({"a": "b"}, b"", None)
    assert two.sequence_id == 41
    assert (three.null_value, three.ordering_key, three.compacted_out) == (True, b"o", True)
    assert (four.key, four.key_is_base64, four.payload) == ("az==", True, b"four" * 500)
    assert {each.publish_time_ms for each in (one, two, three, four)} == {examples.NOW_MS}


@given(st.binary(max_size=3000), st.sampled_from(COMPRESSIONS))
def test_a_payload_survives_compression(payload: bytes, compression: api.CompressionType) -> None:
    metadata = examples.metadata(compression=compression, uncompressed_size=len(payload))
    (message,) = messages(body_of(metadata, compress(payload, compression)))
    assert message.payload == payload


def test_what_is_encrypted_stays_closed() -> None:
    keys = [api.EncryptionKeys(key="k", value=b"v")]
    (message,) = messages(batch(encryption_keys=keys))
    assert message.encrypted
    assert (message.batch_index, message.batch_size) == (-1, 4)


def test_nothing_is_decompressed_beyond_the_limit_whatever_it_claims() -> None:
    with pytest.raises(BodyError, match="the limit is 1000"):
        messages(batch(api.LZ4), 1000)


@pytest.mark.parametrize("compression", COMPRESSIONS[1:])
@pytest.mark.parametrize("claimed", [10, 100_000])
def test_contents_of_another_size_than_claimed_are_refused(
    compression: api.CompressionType, claimed: int
) -> None:
    metadata = examples.metadata(compression=compression, uncompressed_size=claimed)
    body = body_of(metadata, compress(b"x" * 1000, compression))
    with pytest.raises(BodyError, match="contents of"):
        messages(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\x05abc",
        b"\0\0\0\x02\x0a\x05",
        b"\0\0\0\x00payload",
        body_of(examples.metadata(num_messages_in_batch=2), b""),
        body_of(examples.metadata(num_messages_in_batch=1), pack(">I", 9) + b"x"),
        body_of(examples.metadata(num_messages_in_batch=1), pack(">I", 2) + b"\x18\x05"),
        body_of(examples.metadata(num_messages_in_batch=1), pack(">I", 0)),
        body_of(
            examples.metadata(num_messages_in_batch=1),
            pack(">I", 11) + b"\x18" + b"\xff" * 9 + b"\1",
        ),
    ],
)
def test_a_body_that_does_not_add_up_is_refused(body: bytes) -> None:
    with pytest.raises(BodyError):
        messages(body)


def test_a_part_that_claims_more_than_there_is_says_so() -> None:
    with pytest.raises(BodyError, match="the metadata claims 5 bytes, 3 are left"):
        split_body(b"\0\0\0\x05abc")


def test_a_batch_that_claims_billions_of_messages_ends_where_its_bytes_end() -> None:
    metadata = examples.metadata(num_messages_in_batch=2**31 - 1)
    with pytest.raises(BodyError, match="message 4 of 2147483647"):
        messages(body_of(metadata, batch_contents(BATCH)))


def test_a_text_that_is_not_utf_8_is_shown_as_well_as_it_goes() -> None:
    raw = examples.metadata(partition_key="XX").SerializeToString().replace(b"XX", b"\xffX")
    (message,) = messages(examples.entry(raw, b"", checksum=False))
    assert message.key == "\N{REPLACEMENT CHARACTER}X"


@given(st.integers(0, 2**64), st.sampled_from(COMPRESSIONS))
def test_a_damaged_body_gives_messages_or_a_body_error(
    seed: int, compression: api.CompressionType
) -> None:
    random = examples.seeded(seed)
    body = bytearray(batch(compression))
    for _ in range(3):
        body[random.randrange(len(body))] = random.randrange(256)
    try:
        found = messages(bytes(body))
    except BodyError:
        return
    assert sum(len(message.payload) for message in found) <= 100_000


def test_the_payload_of_a_body_is_a_view_of_it() -> None:
    metadata, payload = split_body(body_of(examples.metadata(5), b"hello"))
    assert metadata.sequence_id == 5
    assert bytes(payload) == b"hello"
