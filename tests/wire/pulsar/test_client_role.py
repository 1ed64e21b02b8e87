"""What a client says, read the way a broker reads it."""

import pytest

from magnetar.broker.entry import EARLIEST, EntryId
from magnetar.broker.port import Acknowledged, Group
from magnetar.broker.wire.pulsar import client_role, commands
from magnetar.broker.wire.pulsar.connection import LEGAL, State
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.replies import encode_receipts
from magnetar.broker.wire.pulsar.walker import Ack, Flow, Walk, walk
from tests.wire.pulsar import examples


def walk_of(data: bytes) -> Walk:
    walk_ = walk(memoryview(data), 0, len(data), {3: 0})
    assert walk_.consumed == len(data)
    return walk_


COLD = [
    client_role.connect(auth_method="token", auth_data=b"secret"),
    client_role.lookup(1, "t", listener="outside"),
    client_role.partitions(1, "t", create=False),
    client_role.topics_of_namespace(1, "public/default", known_hash="ab"),
    client_role.producer(
        1, 2, "t", name="p", access_mode=api.Exclusive, topic_epoch=3, initial_subscription="s"
    ),
    client_role.close_producer(1, 2),
    client_role.subscribe(
        1,
        2,
        "t",
        "s",
        api.CommandSubscribe.Shared,
        consumer_name="c",
        durable=False,
        earliest=True,
        start=EARLIEST,
        priority=1,
        properties={"k": "v"},
        epoch=4,
    ),
    client_role.redeliver(1, [EntryId(1, 2)], epoch=3),
    client_role.seek(1, 2, entry=EARLIEST),
    client_role.seek(1, 2, publish_time_ms=5),
    client_role.last_message_id(1, 2),
    client_role.consumer_stats(1, 2),
    client_role.unsubscribe(1, 2, force=True),
    client_role.close_consumer(1, 2),
]


@pytest.mark.parametrize("data", COLD)
def test_a_broker_understands_every_command_a_client_builds(data: bytes) -> None:
    command = walk_of(data).command
    assert command is not None
    assert command.type in LEGAL[State.OPEN] | LEGAL[State.AWAITING_CONNECT]


def test_a_client_with_a_name_of_its_own_says_so() -> None:
    named = walk_of(client_role.producer(1, 2, "t", name="p")).command
    nameless = walk_of(client_role.producer(1, 2, "t")).command
    assert named is not None
    assert nameless is not None
    assert named.producer.user_provided_producer_name
    assert not nameless.producer.HasField("producer_name")
    assert not nameless.producer.user_provided_producer_name


def test_acks_and_flow_take_the_fast_way() -> None:
    data = client_role.ack(1, [EntryId(2, 3)], ack_set=[5], request_id=6) + client_role.flow(1, 9)
    walk_ = walk_of(data)
    assert walk_.acks == [Ack(1, [Acknowledged(2, 3, (5,))], False, 6)]
    assert walk_.flows == [Flow(1, 9)]


def test_a_send_carries_what_its_metadata_says() -> None:
    metadata = examples.metadata(8, num_messages_in_batch=5, num_chunks_from_msg=2)
    walk_ = walk_of(client_role.send(3, metadata, b"payload", highest_sequence_id=12))
    assert walk_.run is not None
    (row,) = walk_.run.envelopes()
    assert (row.sequence_id, row.highest_sequence_id, row.messages) == (8, 12, 5)


def test_a_load_generator_writes_the_same_sends_only_faster() -> None:
    many = client_role.sends(
        3, 120, 20, b"payload", producer_name="p", publish_time_ms=examples.NOW_MS
    )
    one_by_one = b"".join(
        client_role.send(
            3,
            api.MessageMetadata(
                producer_name="p", sequence_id=120 + n, publish_time=examples.NOW_MS
            ),
            b"payload",
        )
        for n in range(20)
    )
    assert many == one_by_one


def test_frames_can_be_counted_without_being_opened() -> None:
    run = walk_of(client_role.sends(3, 0, 50, b"", producer_name="p", publish_time_ms=1)).run
    assert run is not None
    data = encode_receipts([3], run, [Group(0, 0, 50, 1, 0)]) + commands.ping() * 2
    for cut in range(len(data) - 13, len(data)):
        counts, position = client_role.tally(memoryview(data), 0, cut)
        assert counts == {api.BaseCommand.SEND_RECEIPT: 50, api.BaseCommand.PING: 1}
        assert position == len(data) - 13
