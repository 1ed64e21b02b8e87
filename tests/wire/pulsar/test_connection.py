"""The law of a connection."""

import pytest

from magnetar.broker.wire.pulsar import client_role, commands
from magnetar.broker.wire.pulsar.connection import (
    LEGAL,
    NOT_SUPPORTED,
    ProtocolError,
    State,
    check_walk,
    unsupported_request,
)
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.walker import Walk, walk
from tests.wire.pulsar import examples


def walk_of(data: bytes) -> Walk:
    return walk(memoryview(data), 0, len(data), {3: 0})


def test_a_connection_begins_with_connect_and_nothing_else() -> None:
    check_walk(State.AWAITING_CONNECT, walk_of(client_role.connect()))
    with pytest.raises(ProtocolError, match="LOOKUP is not allowed in AWAITING_CONNECT"):
        check_walk(State.AWAITING_CONNECT, walk_of(client_role.lookup(1, "t")))


def test_connect_comes_once() -> None:
    with pytest.raises(ProtocolError, match="CONNECT is not allowed in OPEN"):
        check_walk(State.OPEN, walk_of(client_role.connect()))


BROKEN = examples.send()[:-1] + b"?"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (examples.send(), "SEND"),
        (examples.send(producer_id=99), "SEND"),
        (BROKEN, "SEND"),
        (client_role.ack(1, []), "ACK"),
        (client_role.flow(1, 1), "FLOW"),
    ],
)
@pytest.mark.parametrize("state", [State.AWAITING_CONNECT, State.CLOSED])
def test_messages_count_only_on_an_open_connection(data: bytes, name: str, state: State) -> None:
    check_walk(State.OPEN, walk_of(data))
    with pytest.raises(ProtocolError, match=f"{name} is not allowed in {state.name}"):
        check_walk(state, walk_of(data))


def test_what_only_brokers_say_ends_the_connection() -> None:
    for data in (commands.success(1), commands.connected("v", 21), commands.close_producer(1)):
        command = walk_of(data).command
        assert command is not None
        if command.type == api.BaseCommand.CLOSE_PRODUCER:
            continue  # both sides may say this
        with pytest.raises(ProtocolError):
            check_walk(State.OPEN, walk_of(data))


def test_nothing_is_legal_once_closed() -> None:
    assert LEGAL[State.CLOSED] == frozenset()


def test_every_command_that_is_refused_politely_has_a_request_id_to_answer() -> None:
    for kind, field in NOT_SUPPORTED.items():
        descriptor = api.BaseCommand.DESCRIPTOR.fields_by_name[field]
        assert descriptor.number == kind
        assert descriptor.message_type is not None
        assert "request_id" in descriptor.message_type.fields_by_name


def test_what_is_not_supported_is_answered_by_its_request_id() -> None:
    command = api.BaseCommand(
        type=api.BaseCommand.SCALABLE_TOPIC_SUBSCRIBE,
        scalableTopicSubscribe=api.CommandScalableTopicSubscribe(
            request_id=12, topic="t", subscription="s", consumer_name="c", consumer_id=1
        ),
    )
    assert unsupported_request(command) == 12
    ping = api.BaseCommand(type=api.BaseCommand.PING, ping=api.CommandPing())
    assert unsupported_request(ping) is None
