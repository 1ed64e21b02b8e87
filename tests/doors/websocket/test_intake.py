"""Entries opened for a client: batches, compression, what is damaged, what is too much."""

import json
from base64 import b64decode
from collections.abc import Sequence

import pytest

from magnetar.broker.doors.websocket.intake import (
    BATCH_MESSAGES_MAX,
    Entry,
    Kind,
    Read,
    is_wanted,
    read,
    wanted_count,
    without,
)
from magnetar.broker.entry import EntryId
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.made import Made, made
from magnetar.broker.wire.pulsar.metadata import batch_contents, compress


def head(**more: object) -> api.MessageMetadata:
    return api.MessageMetadata(producer_name="p", sequence_id=1, publish_time=2, **more)  # type: ignore[arg-type]


def batch(*payloads: bytes, **more: object) -> Made:
    parts = [(api.SingleMessageMetadata(payload_size=0), each) for each in payloads]
    metadata = head(num_messages_in_batch=len(payloads), **more)
    return made(metadata, batch_contents(parts), len(payloads))


def opened(entry: Made, ack_set: Sequence[int] = (), partition: int = -1) -> Read:
    return read(Entry(entry.body, EntryId(3, 4), partition, 2, ack_set))


def payloads(found: Read) -> list[bytes]:
    return [b64decode(json.loads(each.text)["payload"]) for each in found.texts]


@pytest.mark.parametrize("compression", [api.NONE, api.LZ4, api.ZLIB, api.ZSTD, api.SNAPPY])
def test_a_message_is_decompressed(compression: api.CompressionType) -> None:
    content = b"hello " * 100
    metadata = head(compression=compression, uncompressed_size=len(content))
    assert payloads(opened(made(metadata, compress(content, compression)))) == [content]


def test_a_batch_becomes_its_messages_each_with_its_id() -> None:
    found = opened(batch(b"a", b"b", b"c"), partition=5)
    assert payloads(found) == [b"a", b"b", b"c"]
    ids = [
        api.MessageIdData.FromString(b64decode(json.loads(each.text)["messageId"]))
        for each in found.texts
    ]
    assert [each.batch_index for each in ids] == [0, 1, 2]
    assert {(each.ledgerId, each.entryId, each.partition, each.batch_size) for each in ids} == {
        (3, 4, 5, 3)
    }
    assert json.loads(found.texts[0].text)["redeliveryCount"] == 2


def test_what_was_acknowledged_of_a_batch_is_left_out() -> None:
    assert payloads(opened(batch(b"a", b"b", b"c"), ack_set=[0b101])) == [b"a", b"c"]


def test_a_compacted_message_of_a_batch_is_left_out() -> None:
    parts = [
        (api.SingleMessageMetadata(payload_size=0, compacted_out=True), b"old"),
        (api.SingleMessageMetadata(payload_size=0), b"new"),
    ]
    entry = made(head(num_messages_in_batch=2), batch_contents(parts), 2)
    assert payloads(opened(entry)) == [b"new"]


def test_an_encrypted_message_comes_with_all_that_its_reader_needs() -> None:
    metadata = head(encryption_param=b"\1\2", encryption_algo="AES", num_messages_in_batch=3)
    key = metadata.encryption_keys.add(key="alice", value=b"\3")
    key.metadata.add(key="version", value="1")
    found = opened(made(metadata, b"secret"))
    assert found.kind is Kind.ENCRYPTED
    assert json.loads(found.texts[0].text)["encryptionContext"] == {
        "keys": {"alice": {"keyValue": "Aw==", "metadata": {"version": "1"}}},
        "param": "AQI=",
        "algorithm": "AES",
        "compressionType": "NONE",
        "uncompressedMessageSize": 0,
        "batchSize": 3,
    }


def test_what_cannot_be_opened_is_broken_and_nothing_else() -> None:
    bomb = head(compression=api.ZLIB, uncompressed_size=2**32 - 1)
    crowd = head(num_messages_in_batch=BATCH_MESSAGES_MAX + 1)
    for entry in (
        made(bomb, compress(bytes(1000), api.ZLIB)),
        made(crowd, bytes(6 * BATCH_MESSAGES_MAX)),
        made(head(compression=api.LZ4, uncompressed_size=9), b"not lz4"),
        made(head(num_messages_in_batch=2), b"short"),
        Made(b"\0\0\0\xff", 1, 0, 0),
        Made(b"", 1, 0, 0),
    ):
        found = opened(entry)
        assert (found.kind, list(found.texts)) == (Kind.BROKEN, [])
        assert found.why


def test_texts_that_are_not_utf_8_are_shown_all_the_same() -> None:
    body = made(head(partition_key="kEy"), b"x").body.replace(b"kEy", b"k\xffy")
    found = read(Entry(body, EntryId(0, 0), -1))
    assert json.loads(found.texts[0].text)["key"] == "k\ufffdy"


@pytest.mark.parametrize("size", [2, 63, 64, 65, 130])
def test_one_message_of_a_batch_is_acknowledged_and_no_other(size: int) -> None:
    for index in {0, 1, size // 2, size - 1}:
        words = without(index, size)
        assert all(-(2**63) <= word < 2**63 for word in words)
        assert [i for i in range(size) if not is_wanted(words, i)] == [index]
        assert wanted_count(words) == size - 1
