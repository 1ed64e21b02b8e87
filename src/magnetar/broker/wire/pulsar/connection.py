"""The law of a connection: which commands a client may send, and when.

    AWAITING_CONNECT ──CONNECT──▶ OPEN ──end of stream, or a broken law──▶ CLOSED

Nothing is sent and nothing is remembered here: the door keeps the state and asks. A command
that only brokers send ends the connection; one that this broker announced it does not know
(by its feature flags and versions) is answered with an error, because some clients ask anyway.
Source: the Pulsar binary protocol specification, "Connection establishment".
"""

from collections.abc import Mapping
from enum import Enum, auto

from magnetar.broker.wire.pulsar.frames import type_name
from magnetar.broker.wire.pulsar.generated.PulsarApi_pb2 import BaseCommand
from magnetar.broker.wire.pulsar.walker import Walk


class ProtocolError(ValueError):
    """The peer broke the protocol: send the error, then close."""


class State(Enum):
    """Where a connection is in its life."""

    AWAITING_CONNECT = auto()
    OPEN = auto()
    CLOSED = auto()


_SERVED = frozenset(
    {
        BaseCommand.SUBSCRIBE,
        BaseCommand.PRODUCER,
        BaseCommand.SEND,
        BaseCommand.ACK,
        BaseCommand.FLOW,
        BaseCommand.UNSUBSCRIBE,
        BaseCommand.CLOSE_PRODUCER,
        BaseCommand.CLOSE_CONSUMER,
        BaseCommand.PING,
        BaseCommand.PONG,
        BaseCommand.REDELIVER_UNACKNOWLEDGED_MESSAGES,
        BaseCommand.PARTITIONED_METADATA,
        BaseCommand.LOOKUP,
        BaseCommand.CONSUMER_STATS,
        BaseCommand.SEEK,
        BaseCommand.GET_LAST_MESSAGE_ID,
        BaseCommand.GET_TOPICS_OF_NAMESPACE,
        BaseCommand.GET_SCHEMA,
        BaseCommand.GET_OR_CREATE_SCHEMA,
        BaseCommand.AUTH_RESPONSE,
        BaseCommand.WATCH_TOPIC_LIST,
        BaseCommand.WATCH_TOPIC_LIST_CLOSE,
        BaseCommand.TC_CLIENT_CONNECT_REQUEST,
        BaseCommand.NEW_TXN,
        BaseCommand.ADD_PARTITION_TO_TXN,
        BaseCommand.ADD_SUBSCRIPTION_TO_TXN,
        BaseCommand.END_TXN,
        BaseCommand.END_TXN_ON_PARTITION,
        BaseCommand.END_TXN_ON_SUBSCRIPTION,
    }
)

# What a client may ask for and this broker does not do: the field with its request id.
NOT_SUPPORTED: Mapping[int, str] = {
    BaseCommand.SCALABLE_TOPIC_SUBSCRIBE: "scalableTopicSubscribe",
}

LEGAL: Mapping[State, frozenset[int]] = {
    State.AWAITING_CONNECT: frozenset({BaseCommand.CONNECT}),
    State.OPEN: _SERVED | NOT_SUPPORTED.keys(),
    State.CLOSED: frozenset(),
}


def check_walk(state: State, walk: Walk) -> None:
    """See that everything a client sent is legal now.

    A command that may not be sent is refused together with what came before it in the same
    walk; none of that was confirmed to the client yet.

    Raises:
        ProtocolError: something is not; the message names the command and the state.
    """
    if state is not State.OPEN:
        if walk.run is not None or walk.strays or walk.broken:
            raise _illegal("SEND", state)
        if walk.acks:
            raise _illegal("ACK", state)
        if walk.flows:
            raise _illegal("FLOW", state)
    if walk.command is not None and walk.command.type not in LEGAL[state]:
        raise _illegal(type_name(walk.command), state)


def unsupported_request(command: BaseCommand) -> int | None:
    """Return the request id of a command that is answered with "not supported"; else None."""
    field = NOT_SUPPORTED.get(command.type)
    if field is None:
        return None
    request_id: int = getattr(command, field).request_id
    return request_id


def _illegal(name: str, state: State) -> ProtocolError:
    return ProtocolError(f"{name} is not allowed in {state.name}")
