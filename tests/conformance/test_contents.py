"""Contents: batched, compressed, chunked, encrypted by the client, and returned untouched."""

import os
from pathlib import Path
from typing import Any

import pulsar
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pulsar import CompressionType as Compression
from pulsar import ConsumerCryptoFailureAction as OnFailure

from magnetar.client.admin import Admin
from tests.conformance.talk import RECEIVE_MS, assert_quiet, receive, send, take, text, texts

COMPRESSIONS = [Compression.LZ4, Compression.ZLib, Compression.ZSTD, Compression.SNAPPY]
EARLIEST = pulsar.InitialPosition.Earliest


@pytest.mark.parametrize("compression", COMPRESSIONS, ids=lambda each: each.name)
@pytest.mark.parametrize("batching", [False, True], ids=["single", "batched"])
def test_compressed_messages_arrive_as_they_were(
    client: Any, topic: str, compression: Any, batching: bool
) -> None:
    consumer = client.subscribe(topic, "s")
    producer = client.create_producer(
        topic, compression_type=compression, batching_enabled=batching
    )
    bodies = [b"%d " % number * 500 for number in range(10)]
    for body in bodies:
        producer.send_async(body, None)
    producer.flush()
    assert [each.data() for each in receive(consumer, 10)] == bodies


def test_compression_is_left_to_the_clients(client: Any, admin: Admin, topic: str) -> None:
    producer = client.create_producer(topic, compression_type=Compression.ZSTD)
    producer.send(b"0" * 1_000_000)
    assert admin.stats(topic)["bytesInCounter"] < 10_000


def test_a_batch_is_one_entry_with_many_messages(client: Any, topic: str) -> None:
    consumer = client.subscribe(topic, "s")
    producer = client.create_producer(
        topic, batching_enabled=True, batching_max_publish_delay_ms=10_000,
        batching_max_messages=50,
    )  # fmt: skip
    for number in range(100):
        producer.send_async(b"%d" % number, None, properties={"n": str(number)})
    producer.flush()
    messages = receive(consumer, 100)
    assert [text(each) for each in messages] == texts(range(100))
    assert [each.properties()["n"] for each in messages] == texts(range(100))
    ids = [each.message_id() for each in messages]
    assert [each.batch_index() for each in ids] == [*range(50), *range(50)]
    assert {each.entry_id() for each in ids} == {0, 1}


@pytest.mark.parametrize("mebibytes", [6, 10])
def test_a_message_larger_than_an_entry_travels_in_chunks(
    client: Any, topic: str, mebibytes: int
) -> None:
    consumer = client.subscribe(topic, "s")
    producer = client.create_producer(topic, chunking_enabled=True)
    body = os.urandom(mebibytes * 1024 * 1024)
    producer.send(body)
    producer.send(b"small")
    large, small = receive(consumer, 2)
    assert large.data() == body
    assert text(small) == "small"
    consumer.acknowledge(large)
    consumer.acknowledge(small)


def test_chunks_are_acknowledged_together(client: Any, admin: Admin, topic: str) -> None:
    consumer = client.subscribe(topic, "s", consumer_type=pulsar.ConsumerType.Shared)
    producer = client.create_producer(topic, chunking_enabled=True)
    producer.send(bytes(8 * 1024 * 1024))
    consumer.acknowledge(consumer.receive(RECEIVE_MS))
    consumer.close()
    assert admin.stats(topic)["subscriptions"]["s"]["msgBacklog"] == 0
    again = client.subscribe(topic, "s", consumer_type=pulsar.ConsumerType.Shared)
    assert_quiet(again)


def test_chunked_and_compressed_go_together(client: Any, topic: str) -> None:
    reader = client.create_reader(topic, pulsar.MessageId.earliest)
    producer = client.create_producer(
        topic, chunking_enabled=True, compression_type=Compression.LZ4
    )
    body = os.urandom(3 * 1024 * 1024) * 3
    producer.send(body)
    assert reader.read_next(RECEIVE_MS).data() == body


def test_a_message_is_not_batched_and_chunked_at_once(client: Any, topic: str) -> None:
    with pytest.raises(ValueError, match="atching"):
        client.create_producer(topic, chunking_enabled=True, batching_enabled=True)


# --- encryption: the broker holds no key, and stores and returns what it cannot read


class Keys:
    """A pair of keys, as the client reads them."""

    def __init__(self, folder: Path) -> None:
        private = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        (folder / "private.pem").write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        (folder / "public.pem").write_bytes(
            private.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        self.reader = pulsar.CryptoKeyReader(
            str(folder / "public.pem"), str(folder / "private.pem")
        )


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.mark.parametrize("batching", [False, True], ids=["single", "batched"])
def test_who_has_the_key_reads_what_was_encrypted(
    client: Any, topic: str, keys: Keys, batching: bool
) -> None:
    consumer = client.subscribe(topic, "s", crypto_key_reader=keys.reader)
    reader = client.create_reader(topic, pulsar.MessageId.earliest, crypto_key_reader=keys.reader)
    producer = client.create_producer(
        topic, encryption_key="me", crypto_key_reader=keys.reader, batching_enabled=batching,
        compression_type=Compression.LZ4,
    )  # fmt: skip
    send(producer, 5)
    messages = receive(consumer, 5)
    assert [text(each) for each in messages] == texts(range(5))
    encrypted_for = messages[0].encryption_context().keys  # a method of the client, no mapping
    assert [each.key for each in encrypted_for()] == ["me"]
    assert take(reader, 5) == texts(range(5))


def test_who_has_no_key_gets_nothing_and_loses_nothing(client: Any, topic: str, keys: Keys) -> None:
    producer = client.create_producer(topic, encryption_key="me", crypto_key_reader=keys.reader)
    send(producer, 2)
    without = client.subscribe(
        topic, "s", initial_position=EARLIEST, crypto_failure_action=OnFailure.FAIL
    )
    assert_quiet(without, 500)
    without.close()
    consumer = client.subscribe(topic, "s", crypto_key_reader=keys.reader)
    assert take(consumer, 2) == texts(range(2))


def test_who_has_no_key_may_discard_what_it_cannot_read(
    client: Any, topic: str, keys: Keys
) -> None:
    producer = client.create_producer(topic, encryption_key="me", crypto_key_reader=keys.reader)
    send(producer, ["secret"])
    without = client.subscribe(
        topic, "s", initial_position=EARLIEST, crypto_failure_action=OnFailure.DISCARD
    )
    assert_quiet(without, 500)
    without.close()
    send(producer, ["next"])
    consumer = client.subscribe(topic, "s", crypto_key_reader=keys.reader)
    assert take(consumer, 1) == ["next"]


def test_who_has_no_key_may_take_the_message_as_it_is_stored(
    client: Any, topic: str, keys: Keys
) -> None:
    producer = client.create_producer(
        topic, encryption_key="me", crypto_key_reader=keys.reader, batching_enabled=True,
        compression_type=Compression.LZ4,
    )  # fmt: skip
    for number in range(2):
        producer.send_async(b"secret %d" % number, None)
    producer.flush()
    consumer = client.subscribe(
        topic, "s", initial_position=EARLIEST, crypto_failure_action=OnFailure.CONSUME
    )
    message = consumer.receive(RECEIVE_MS)
    context = message.encryption_context()
    assert b"secret" not in message.data()
    assert context.is_decryption_failed()
    assert (context.batch_size(), context.compression_type()) == (2, Compression.LZ4)
