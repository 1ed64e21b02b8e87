"""The table of commands: every one that a client may send has a row, and the row is right."""

import pytest

from magnetar.broker.access.commands import (
    COMMAND_RIGHTS,
    TOPICS_PER_COMMAND_MAX,
    demands_of,
    refusal_of,
)
from magnetar.broker.access.rights import Demand, Right, SubscriptionOf
from magnetar.broker.doors.pulsar.session import Session
from magnetar.broker.wire.pulsar.connection import LEGAL, NOT_SUPPORTED
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.names import COORDINATORS_TOPIC, InvalidNameError, TopicName

LEGAL_COMMANDS = frozenset[int]().union(*LEGAL.values())
SERVED = LEGAL_COMMANDS - NOT_SUPPORTED.keys()


def name(kind: int) -> str:
    return api.BaseCommand.Type.Name(api.BaseCommand.Type.ValueType(kind))


@pytest.mark.parametrize("kind", sorted(LEGAL_COMMANDS), ids=name)
def test_every_command_that_a_client_may_send_has_a_row(kind: int) -> None:
    assert kind in COMMAND_RIGHTS, f"add {name(kind)} to access/commands.py"


def test_every_command_with_a_handler_has_a_row() -> None:
    assert set(Session._HANDLERS) <= COMMAND_RIGHTS.keys()


@pytest.mark.parametrize("kind", sorted(COMMAND_RIGHTS), ids=name)
def test_a_row_names_the_field_that_the_command_has(kind: int) -> None:
    field = api.BaseCommand.DESCRIPTOR.fields_by_name[COMMAND_RIGHTS[kind].field]
    assert field.number == kind


def test_little_is_open_to_those_who_have_not_logged_in() -> None:
    opened = {name(kind) for kind, row in COMMAND_RIGHTS.items() if row.right is Right.OPEN}
    assert opened == {"CONNECT", "AUTH_RESPONSE", "PING", "PONG"}


@pytest.mark.parametrize("kind", sorted(COMMAND_RIGHTS), ids=name)
def test_what_a_row_says_is_what_it_demands(kind: int) -> None:
    row = COMMAND_RIGHTS[kind]
    command = api.BaseCommand(type=name(kind))
    contents = getattr(command, row.field)
    contents.SetInParent()
    for field, value in {"topic": "t/n/a", "namespace": "t/n", "subscription": "s"}.items():
        if isinstance(getattr(contents, field, None), str):
            setattr(contents, field, value)
    if kind == api.BaseCommand.ADD_PARTITION_TO_TXN:
        contents.partitions.append("t/n/a")
    if kind == api.BaseCommand.ADD_SUBSCRIPTION_TO_TXN:
        contents.subscription.add(topic="t/n/a", subscription="s")
    rights = [demand.right for demand in demands_of(command)]
    assert rights == ([] if row.right in {Right.OPEN, Right.HELD} else [row.right])


def test_an_initial_subscription_needs_the_right_to_consume_from_it() -> None:
    command = api.BaseCommand(type=api.BaseCommand.PRODUCER)
    command.producer.topic, command.producer.initial_subscription_name = "t/n/a", "s"
    topic = TopicName.parse("t/n/a")
    assert list(demands_of(command)) == [
        Demand(Right.PRODUCE, topic),
        Demand(Right.CONSUME, SubscriptionOf(topic, "s")),
    ]


def test_a_command_about_too_many_topics_is_for_nobody() -> None:
    command = api.BaseCommand(type=api.BaseCommand.ADD_PARTITION_TO_TXN)
    command.addPartitionToTxn.partitions.extend(["t/n/a"] * (TOPICS_PER_COMMAND_MAX + 1))
    assert list(demands_of(command)) == [Demand(Right.SUPERUSER)]


def test_a_command_without_a_row_is_for_superusers() -> None:
    command = api.BaseCommand(type=api.BaseCommand.WATCH_TC_ASSIGNMENTS)
    assert list(demands_of(command)) == [Demand(Right.SUPERUSER)]


def test_a_name_that_is_none_is_said_to_be_none() -> None:
    command = api.BaseCommand(type=api.BaseCommand.LOOKUP)
    command.lookupTopic.topic = "a/b"
    with pytest.raises(InvalidNameError):
        demands_of(command)


def test_whoever_is_known_may_look_for_transaction_coordinators() -> None:
    for topic in (str(COORDINATORS_TOPIC), f"{COORDINATORS_TOPIC}-partition-3"):
        command = api.BaseCommand(type=api.BaseCommand.PARTITIONED_METADATA)
        command.partitionMetadata.topic = topic
        (demand,) = demands_of(command)
        assert demand.right is Right.KNOWN


def test_a_command_about_a_transaction_is_refused_by_its_own_answer() -> None:
    command = api.BaseCommand(type=api.BaseCommand.ADD_PARTITION_TO_TXN)
    content = command.addPartitionToTxn
    content.request_id, content.txnid_most_bits, content.txnid_least_bits = 7, 1, 2
    frame = refusal_of(command)(api.AuthorizationError, "no")
    answer = api.BaseCommand.FromString(frame[8:]).addPartitionToTxnResponse
    assert (answer.request_id, answer.txnid_most_bits, answer.txnid_least_bits) == (7, 1, 2)
    assert answer.error == api.AuthorizationError


def test_a_refusal_answers_the_request() -> None:
    command = api.BaseCommand(type=api.BaseCommand.LOOKUP)
    command.lookupTopic.request_id = 7
    answer = api.BaseCommand.FromString(refusal_of(command)(api.AuthorizationError, "no")[8:])
    assert (answer.lookupTopicResponse.request_id, answer.lookupTopicResponse.error) == (
        7, api.AuthorizationError,
    )  # fmt: skip
