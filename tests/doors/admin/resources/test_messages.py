"""Stored messages as admin REST shows them, whatever their producer made of them."""

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.config import BrokerConfig
from magnetar.broker.doors.admin.app import AdminApp
from magnetar.broker.doors.admin.context import Context
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.resources.messages import HEADER_BYTES_MAX, as_json, as_pulsar
from magnetar.broker.entry import EntryId, Envelope
from magnetar.broker.metadata.store import Store
from magnetar.broker.topics.consumers.places import StoredEntry
from magnetar.broker.wire.pulsar.generated.PulsarApi_pb2 import (
    LZ4,
    NONE,
    ZSTD,
    CompressionType,
    MessageMetadata,
    SingleMessageMetadata,
)
from magnetar.broker.wire.pulsar.metadata import batch_contents, compress

ENVELOPE = Envelope(0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1_700_000_000_000, 0, 40, 1_700_000_000_001)


def metadata(**fields: Any) -> MessageMetadata:
    return MessageMetadata(
        producer_name="p", sequence_id=7, publish_time=1_700_000_000_000, **fields
    )


def stored(about: MessageMetadata, payload: bytes) -> StoredEntry:
    part = about.SerializeToString()
    body = struct.pack(">I", len(part)) + part + payload
    return StoredEntry(EntryId(3, 9), ENVELOPE, body)


def compressed(about: MessageMetadata, contents: bytes, kind: CompressionType) -> StoredEntry:
    about.compression = kind
    about.uncompressed_size = len(contents)
    return stored(about, compress(contents, kind))


def batch(kind: CompressionType = NONE) -> StoredEntry:
    singles = [
        (SingleMessageMetadata(partition_key="k", event_time=5), b"one"),
        (SingleMessageMetadata(null_value=True), b""),
    ]
    singles[0][0].properties.add(key="a", value="b")
    return compressed(metadata(num_messages_in_batch=2), batch_contents(singles), kind)


def shown(entry: StoredEntry) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(bytes(as_json(entry, -1).body))["messages"]
    return found


def test_a_plain_message_is_shown_with_everything_its_producer_said() -> None:
    about = metadata(partition_key="k", event_time=6, ordering_key=b"\x00\xff")
    about.properties.add(key="a", value="b")
    (message,) = shown(stored(about, b"\x00payload\xff"))
    assert base64.b64decode(message["payload"]) == b"\x00payload\xff"
    assert (message["ledgerId"], message["entryId"], message["batchIndex"]) == (3, 9, -1)
    assert (message["key"], message["eventTime"], message["sequenceId"]) == ("k", 6, 7)
    assert base64.b64decode(message["orderingKey"]) == b"\x00\xff"
    assert message["properties"] == {"a": "b"}
    assert (message["producerName"], message["index"]) == ("p", 40)
    assert "opaque" not in message


@pytest.mark.parametrize("kind", [NONE, LZ4, ZSTD])
def test_every_message_of_a_batch_is_shown(kind: CompressionType) -> None:
    one, two = shown(batch(kind))
    assert base64.b64decode(one["payload"]) == b"one"
    assert (one["key"], one["batchIndex"], one["index"], one["properties"]) == (
        "k",
        0,
        40,
        {"a": "b"},
    )
    assert (two["nullValue"], two["batchIndex"], two["index"]) == (True, 1, 41)


def test_a_key_of_bytes_stays_bytes() -> None:
    key = base64.b64encode(b"\xff\x00").decode()
    (message,) = shown(stored(metadata(partition_key=key, partition_key_b64_encoded=True), b""))
    assert base64.b64decode(message["keyBytes"]) == b"\xff\x00"
    assert "key" not in message


def test_a_piece_of_a_larger_message_says_which_one() -> None:
    (message,) = shown(stored(metadata(chunk_id=1, num_chunks_from_msg=3), b"x"))
    assert message["chunk"] == {"index": 1, "count": 3}


def test_an_encrypted_message_is_shown_as_it_is() -> None:
    about = metadata(num_messages_in_batch=5)
    about.encryption_keys.add(key="k", value=b"v")
    (message,) = shown(stored(about, b"secret"))
    assert message["encrypted"] is True
    assert base64.b64decode(message["payload"]) == b"secret"


@pytest.mark.parametrize("claimed", [100, 2**31])
def test_contents_that_cannot_be_decompressed_are_shown_as_stored(claimed: int) -> None:
    (message,) = shown(stored(metadata(compression=LZ4, uncompressed_size=claimed), b"nonsense"))
    assert message["opaque"]
    assert base64.b64decode(message["payload"]) == b"nonsense"
    assert message["publishTime"] == 1_700_000_000_000


@given(st.binary(max_size=60))
def test_no_body_breaks_what_shows_it(body: bytes) -> None:
    entry = StoredEntry(EntryId(3, 9), ENVELOPE, body)
    assert shown(entry)
    try:
        as_pulsar(entry, -1)
    except Refusal as refusal:
        assert "cannot be read" in refusal.reason  # noqa: PT017 - or it is shown


def test_pulsars_clients_get_contents_and_headers() -> None:
    about = metadata(partition_key="schlüssel", event_time=6)
    about.properties.add(key="a:b", value="c\r\nX-Evil: 1")
    answer = as_pulsar(stored(about, b"\x00payload"), 2)
    assert answer.body == b"\x00payload"
    assert answer.headers["x-pulsar-message-id"] == "3:9"
    assert answer.headers["x-pulsar-publish-time"] == "2023-11-14T22:13:20.000Z"
    assert answer.headers["x-pulsar-partition-key"] == "schl%C3%BCssel"
    properties = dict(answer.raw_headers)[b"X-Pulsar-PROPERTY"]
    assert json.loads(properties) == {"a:b": "c\r\nX-Evil: 1"}
    assert properties.decode().isprintable()
    assert "x-evil" not in answer.headers
    assert "x-pulsar-num-batch-message" not in answer.headers


@pytest.mark.parametrize("kind", [NONE, LZ4])
def test_pulsars_clients_get_a_batch_to_take_apart(kind: CompressionType) -> None:
    answer = as_pulsar(batch(kind), -1)
    assert answer.headers["x-pulsar-num-batch-message"] == "2"
    assert answer.headers["x-pulsar-batch-size"] == str(len(answer.body))
    assert "x-pulsar-compression" not in answer.headers
    again = stored(metadata(num_messages_in_batch=2), bytes(answer.body))
    strip = ("payload", "properties", "nullValue", "batchIndex", "eventTime")
    assert [[each.get(name) for name in strip] for each in shown(again)] == [
        [each.get(name) for name in strip] for each in shown(batch())
    ]


def test_headers_are_bounded_however_many_properties_there_are() -> None:
    about = metadata()
    for i in range(5000):
        about.properties.add(key=f"k{i}", value="v" * 50)
    answer = as_pulsar(stored(about, b""), -1)
    assert sum(len(name) + len(value) for name, value in answer.raw_headers) < 2 * HEADER_BYTES_MAX
    (message,) = shown(stored(about, b""))
    assert len(message["properties"]) == 5000


class OneEntry:
    """A catalog, and its only topic, with one entry."""

    async def topic(self, name: object) -> "OneEntry":
        return self

    async def entry(self, place: EntryId) -> StoredEntry:
        return stored(metadata(), b"hello")


@pytest.mark.parametrize("switched_on", [True, False])
async def test_what_the_broker_knows_of_an_entry_is_shown_where_that_is_switched_on(
    ask: Any, store: Store, new_context: Callable[..., Context], switched_on: bool
) -> None:
    config = BrokerConfig(data=Path("/data"), broker_entry_metadata=switched_on)
    app = AdminApp(new_context(store, OneEntry(), config=config))
    answer = await ask(app, "GET", "/admin/v2/persistent/public/default/t/ledger/3/entry/9")
    assert answer.body == b"hello"
    told = {key: value for key, value in answer.headers.items() if "broker-entry" in key}
    assert told == (
        {
            "x-pulsar-broker-entry-metadata-timestamp": "2023-11-14T22:13:20.001Z",
            "x-pulsar-broker-entry-metadata-index": "40",
        }
        if switched_on
        else {}
    )
