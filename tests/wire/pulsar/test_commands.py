"""What a broker says: every builder, read back by protobuf."""

import pytest

from magnetar.broker.entry import EARLIEST, LATEST, EntryId
from magnetar.broker.wire.pulsar import commands
from magnetar.broker.wire.pulsar.frames import FrameReader, encode_command
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api

ALL_ONES = 2**64 - 1


def read(data: bytes) -> api.BaseCommand:
    (frame,) = FrameReader().feed(data)
    assert frame.payload is None
    return frame.command


def text(data: bytes) -> str:
    """Return a command as protobuf prints it, on one line."""
    return " ".join(str(read(data)).split())


def test_connected_tells_what_this_broker_can_and_cannot_do() -> None:
    connected = read(commands.connected("Magnetar 1", 30, 1000)).connected
    assert connected.server_version == "Magnetar 1"
    assert connected.protocol_version == 21
    assert connected.max_message_size == 1000
    flags = connected.feature_flags
    assert flags.supports_auth_refresh
    assert flags.supports_partial_producer
    assert flags.supports_get_partitioned_metadata_without_auto_creation
    assert not flags.supports_broker_entry_metadata
    assert flags.supports_topic_watchers
    assert flags.supports_topic_watcher_reconcile
    assert not flags.supports_scalable_topics


@pytest.mark.parametrize(("client", "answer"), [(0, 0), (12, 12), (21, 21), (22, 21)])
def test_the_lower_protocol_version_counts(client: int, answer: int) -> None:
    assert read(commands.connected("v", client)).connected.protocol_version == answer


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (commands.ping(), "type: PING ping { }"),
        (commands.pong(), "type: PONG pong { }"),
        (commands.success(5), "type: SUCCESS success { request_id: 5 }"),
        (
            commands.error(commands.NO_REQUEST, api.AuthenticationError, "who?"),
            (
                f"type: ERROR error {{ request_id: {ALL_ONES} error: AuthenticationError"
                ' message: "who?" }'
            ),
        ),
        (
            commands.auth_challenge("v", 25, "token", b"PulsarAuthRefresh"),
            (
                'type: AUTH_CHALLENGE authChallenge { server_version: "v" challenge {'
                ' auth_method_name: "token" auth_data: "PulsarAuthRefresh" } protocol_version: 21 }'
            ),
        ),
        (
            commands.partitions(5, 3),
            (
                "type: PARTITIONED_METADATA_RESPONSE partitionMetadataResponse {"
                " partitions: 3 request_id: 5 response: Success }"
            ),
        ),
        (
            commands.partitions_failed(5, api.TopicNotFound, "no"),
            (
                "type: PARTITIONED_METADATA_RESPONSE partitionMetadataResponse {"
                ' request_id: 5 response: Failed error: TopicNotFound message: "no" }'
            ),
        ),
        (
            commands.lookup_connect(5, "pulsar://a:1"),
            (
                'type: LOOKUP_RESPONSE lookupTopicResponse { brokerServiceUrl: "pulsar://a:1"'
                " response: Connect request_id: 5 authoritative: true"
                " proxy_through_service_url: false }"
            ),
        ),
        (
            commands.lookup_connect(5, "pulsar://a:1", url_tls="pulsar+ssl://a:2"),
            (
                'type: LOOKUP_RESPONSE lookupTopicResponse { brokerServiceUrl: "pulsar://a:1"'
                ' brokerServiceUrlTls: "pulsar+ssl://a:2" response: Connect request_id: 5'
                " authoritative: true proxy_through_service_url: false }"
            ),
        ),
        (
            commands.lookup_failed(5, api.ServiceNotReady, "later"),
            (
                "type: LOOKUP_RESPONSE lookupTopicResponse { response: Failed request_id: 5"
                ' error: ServiceNotReady message: "later" }'
            ),
        ),
        (
            commands.producer_success(5, "p-1", last_sequence_id=7, topic_epoch=2, ready=False),
            (
                'type: PRODUCER_SUCCESS producer_success { request_id: 5 producer_name: "p-1"'
                ' last_sequence_id: 7 schema_version: "" topic_epoch: 2 producer_ready: false }'
            ),
        ),
        (
            commands.producer_success(5, "p-1"),
            (
                'type: PRODUCER_SUCCESS producer_success { request_id: 5 producer_name: "p-1"'
                ' last_sequence_id: -1 schema_version: "" producer_ready: true }'
            ),
        ),
        (
            commands.send_error(1, -1, api.ChecksumError, "bits"),
            (
                f"type: SEND_ERROR send_error {{ producer_id: 1 sequence_id: {ALL_ONES}"
                ' error: ChecksumError message: "bits" }'
            ),
        ),
        (
            commands.close_producer(1, assigned_url="pulsar://b:1"),
            (
                f"type: CLOSE_PRODUCER close_producer {{ producer_id: 1 request_id: {ALL_ONES}"
                ' assignedBrokerServiceUrl: "pulsar://b:1" }'
            ),
        ),
        (
            commands.close_consumer(1),
            f"type: CLOSE_CONSUMER close_consumer {{ consumer_id: 1 request_id: {ALL_ONES} }}",
        ),
        (
            commands.active_consumer_change(1, active=True),
            (
                "type: ACTIVE_CONSUMER_CHANGE active_consumer_change { consumer_id: 1"
                " is_active: true }"
            ),
        ),
        (
            commands.reached_end_of_topic(1),
            "type: REACHED_END_OF_TOPIC reachedEndOfTopic { consumer_id: 1 }",
        ),
        (
            commands.ack_response(1, 5),
            "type: ACK_RESPONSE ackResponse { consumer_id: 1 request_id: 5 }",
        ),
        (
            commands.ack_response(1, 5, api.NotAllowedError, "shared"),
            (
                "type: ACK_RESPONSE ackResponse { consumer_id: 1 error: NotAllowedError"
                ' message: "shared" request_id: 5 }'
            ),
        ),
        (
            commands.consumer_stats_failed(5, api.ConsumerNotFound, "gone"),
            (
                "type: CONSUMER_STATS_RESPONSE consumerStatsResponse { request_id: 5"
                ' error_code: ConsumerNotFound error_message: "gone" }'
            ),
        ),
        (
            commands.schema(
                5, name="s", kind=api.Schema.Json, data=b"{}", version=b"\1", properties={"k": "v"}
            ),
            (
                'type: GET_SCHEMA_RESPONSE getSchemaResponse { request_id: 5 schema { name: "s"'
                ' schema_data: "{}" type: Json properties { key: "k" value: "v" } }'
                ' schema_version: "\\001" }'
            ),
        ),
        (
            commands.schema_failed(5, api.TopicNotFound, "none"),
            (
                "type: GET_SCHEMA_RESPONSE getSchemaResponse { request_id: 5"
                ' error_code: TopicNotFound error_message: "none" }'
            ),
        ),
        (
            commands.schema_created(5, b"\2"),
            (
                "type: GET_OR_CREATE_SCHEMA_RESPONSE getOrCreateSchemaResponse { request_id: 5"
                ' schema_version: "\\002" }'
            ),
        ),
        (
            commands.schema_refused(5, api.IncompatibleSchema, "no"),
            (
                "type: GET_OR_CREATE_SCHEMA_RESPONSE getOrCreateSchemaResponse { request_id: 5"
                ' error_code: IncompatibleSchema error_message: "no" }'
            ),
        ),
    ],
)
def test_a_command_says_what_its_arguments_say(data: bytes, expected: str) -> None:
    assert text(data) == expected


def test_the_last_message_of_a_batch_is_named_by_its_index() -> None:
    response = read(
        commands.last_message_id(5, EntryId(3, 4), EntryId(3, 1), partition=2, batch_size=10)
    ).getLastMessageIdResponse
    assert response.last_message_id == api.MessageIdData(
        ledgerId=3, entryId=4, partition=2, batch_index=9, batch_size=10
    )
    assert response.consumer_mark_delete_position == api.MessageIdData(
        ledgerId=3, entryId=1, partition=2
    )


def test_an_empty_topic_ends_before_its_first_entry() -> None:
    response = read(commands.last_message_id(5, EARLIEST, EARLIEST)).getLastMessageIdResponse
    assert response.last_message_id == api.MessageIdData(ledgerId=ALL_ONES, entryId=ALL_ONES)
    assert response.HasField("consumer_mark_delete_position")


@pytest.mark.parametrize("entry", [EARLIEST, LATEST, EntryId(0, 0), EntryId(5, 2**40)])
def test_an_entry_id_survives_the_wire(entry: EntryId) -> None:
    message_id = api.MessageIdData()
    commands.fill_message_id(message_id, entry)
    assert commands.entry_id(api.MessageIdData.FromString(message_id.SerializeToString())) == entry


def test_statistics_reach_the_client_and_permits_are_never_negative() -> None:
    stats = read(
        commands.consumer_stats(
            5,
            name="c",
            type_name="Shared",
            permits=-3,
            unacked=4,
            blocked=True,
            backlog=5,
            message_rate=1.5,
            byte_rate=2.5,
            redelivery_rate=3.5,
            ack_rate=4.5,
            expired_rate=5.5,
            address="/127.0.0.1:1",
            connected_since="2026-01-01T00:00:00Z",
        )
    ).consumerStatsResponse
    assert stats == api.CommandConsumerStatsResponse(
        request_id=5,
        msgRateOut=1.5,
        msgThroughputOut=2.5,
        msgRateRedeliver=3.5,
        consumerName="c",
        availablePermits=0,
        unackedMessages=4,
        blockedConsumerOnUnackedMsgs=True,
        address="/127.0.0.1:1",
        connectedSince="2026-01-01T00:00:00Z",
        type="Shared",
        msgRateExpired=5.5,
        msgBacklog=5,
        messageAckRate=4.5,
    )


def test_a_client_that_has_the_list_already_is_not_sent_it_again() -> None:
    names = ["persistent://a/b/y", "persistent://a/b/x"]
    first = read(commands.topics_of_namespace(5, names)).getTopicsOfNamespaceResponse
    assert list(first.topics) == names
    assert first.changed
    again = commands.topics_of_namespace(6, names[::-1], client_hash=first.topics_hash)
    second = read(again).getTopicsOfNamespaceResponse
    assert not second.topics
    assert not second.changed


def test_the_hash_of_a_topic_list_is_printed_lowest_byte_first() -> None:
    # CRC32-C of "123456789" is the check value e3069283 of every table of checksums.
    assert commands.topics_hash(["123456789"]) == "839206e3"
    assert commands.topics_hash(["b", "a"]) == commands.topics_hash(["a", "b"])


def test_every_command_of_the_protocol_has_its_contents_under_its_own_number() -> None:
    numbers = {field.name: field.number for field in api.BaseCommand.DESCRIPTOR.fields}
    del numbers["type"]
    assert sorted(numbers.values()) == sorted(api.BaseCommand.Type.values())
    assert len(numbers) == 70


def test_a_ping_is_thirteen_bytes() -> None:
    assert commands.ping() == encode_command(
        api.BaseCommand(type=api.BaseCommand.PING, ping=api.CommandPing())
    )
    assert len(commands.ping()) == 13
