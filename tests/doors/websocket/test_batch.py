"""Messages become entries, as a producer library would make them."""

from typing import Any

import msgspec

from magnetar.broker.doors.websocket.batch import (
    BATCH_BYTES_MAX,
    BATCH_MESSAGES_MAX,
    Batch,
    Stamp,
    alone,
    goes_alone,
    together,
)
from magnetar.broker.doors.websocket.options import EncryptionKey, ProducerOptions
from magnetar.broker.doors.websocket.shapes import Outgoing
from magnetar.broker.entry import EntryFlags
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.made import run_of
from magnetar.broker.wire.pulsar.metadata import compress, messages, split_body
from magnetar.names import TopicName

TOPIC = TopicName.parse("t")
PLAIN = ProducerOptions(TOPIC)
STAMP = Stamp("p", 7, 1000)


def message(payload: bytes = b"x", **more: Any) -> Outgoing:
    fields = {"properties": {}, "key": None, "context": None, **more}
    return Outgoing(payload=payload, **fields)


def test_one_message_is_an_entry_with_its_metadata() -> None:
    told = message(key="k", properties={"a": "b"}, event_time_ms=5, replicate_to=("west",))
    entry = alone(told, b"x", PLAIN, STAMP)
    (found,) = messages(entry.body)
    assert (found.key, found.properties, found.event_time_ms) == ("k", {"a": "b"}, 5)
    assert (found.sequence_id, found.publish_time_ms, found.producer_name) == (7, 1000, "p")
    assert list(split_body(entry.body)[0].replicate_to) == ["west"]
    row = run_of([(3, entry)]).envelope(0)
    assert (row.producer, row.messages, row.sequence_id, row.publish_time_ms) == (3, 1, 7, 1000)
    assert row.flags == EntryFlags.KEYED


def test_a_delay_counts_from_now() -> None:
    for delayed, time_ms in (
        (message(deliver_at_ms=1500), 1500),
        (message(deliver_after_ms=250), 1250),
    ):
        entry = alone(delayed, b"x", PLAIN, STAMP)
        assert run_of([(0, entry)]).envelope(0).deliver_at_ms == time_ms


def test_a_compressed_message_says_how_large_it_was() -> None:
    options = ProducerOptions(TOPIC, compression=api.ZSTD)
    entry = alone(message(b"x" * 100), compress(b"x" * 100, api.ZSTD), options, STAMP)
    assert messages(entry.body)[0].payload == b"x" * 100


def test_what_the_client_encrypted_says_with_which_keys() -> None:
    keys = {"alice": EncryptionKey(b"\1", {"v": "1"})}
    told = message(encryption_param=b"\2", compression=api.LZ4, uncompressed_size=9)
    metadata, payload = split_body(
        alone(told, b"secret", ProducerOptions(TOPIC, encryption_keys=keys), STAMP).body
    )
    assert metadata.encryption_keys[0].key == "alice"
    assert metadata.encryption_keys[0].metadata[0].value == "1"
    assert metadata.encryption_param == b"\2"
    assert (metadata.compression, metadata.uncompressed_size) == (api.LZ4, 9)
    assert bytes(payload) == b"secret"


def test_a_batch_is_one_entry_with_neighbouring_sequence_ids() -> None:
    options = ProducerOptions(TOPIC, compression=api.ZLIB)
    entry = together([message(b"a", key="k"), message(b"b", key="k")], options, STAMP)
    found = messages(entry.body)
    assert [each.payload for each in found] == [b"a", b"b"]
    assert [each.sequence_id for each in found] == [7, 8]
    row = run_of([(0, entry)]).envelope(0)
    assert (row.messages, row.sequence_id, row.highest_sequence_id) == (2, 7, 8)
    assert row.flags == EntryFlags.KEYED | EntryFlags.BATCH


def test_a_batch_is_full_by_messages_or_by_bytes() -> None:
    batch = Batch(2)
    batch.add(message(), 1)
    assert not batch.full
    batch.add(message(), 2)
    assert batch.full
    assert batch.publish_time_ms == 1
    endless = Batch(0)
    for _ in range(BATCH_MESSAGES_MAX):
        if endless.full:
            break
        endless.add(message(), 1)
    assert endless.full
    assert Batch(9).fits(message()) is not False  # an empty one takes whatever comes
    heavy = Batch(9)
    heavy.add(message(bytes(BATCH_BYTES_MAX - 100)), 1)
    assert not heavy.fits(message(bytes(200)))


def test_a_batch_holds_one_key_only() -> None:
    batch = Batch(9)
    batch.add(message(key="a"), 1)
    assert batch.fits(message(key="a"))
    assert not batch.fits(message(key="b"))
    assert not batch.fits(message())


def test_what_is_delayed_or_large_goes_alone() -> None:
    assert not goes_alone(message())
    assert goes_alone(message(deliver_at_ms=1))
    assert goes_alone(message(deliver_after_ms=1))
    assert goes_alone(message(replicate_to=("west",)))
    assert goes_alone(message(bytes(BATCH_BYTES_MAX)))
    assert goes_alone(message(properties={"a": "b" * BATCH_BYTES_MAX}))
    assert isinstance(message(context=msgspec.Raw(b"1")), Outgoing)
