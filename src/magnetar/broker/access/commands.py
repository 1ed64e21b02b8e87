"""Which Pulsar command needs which right. Data; the session's dispatcher is the one that asks.

    PRODUCER ──▶ PRODUCE on its topic,  and CONSUME on its initial subscription if it names one
    LOOKUP   ──▶ LOOKUP on its topic
    SEEK     ──▶ HELD: the consumer it names was opened on this connection, which needed CONSUME

Every command that a client may send has a row. One without a row is refused, and a test fails.
The rights are those of Apache Pulsar (its documentation, "Authorization and ACLs"), but that
GET_SCHEMA and GET_OR_CREATE_SCHEMA are checked too: official clients look a topic up first,
which hid in Pulsar that these were not (CVE-2026-105926).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from magnetar.broker.access.rights import Demand, Right, SubscriptionOf
from magnetar.broker.entry import TransactionId
from magnetar.broker.wire.pulsar import commands
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.names import COORDINATORS_TOPIC, NamespaceName, TopicName

TOPICS_PER_COMMAND_MAX = 1_000
"""Topics or subscriptions that one command may be about."""


class CommandRight(NamedTuple):
    """One row: what a command demands, and how it is refused."""

    right: Right
    field: str
    """The field of `BaseCommand` with its contents."""
    demands: Callable[[Any], Sequence[Demand]]
    """What its contents demand. Raises InvalidNameError for names that are none."""
    refuse: Callable[[int, api.ServerError, str], bytes] = commands.error
    """Makes the answer that says no, of request id, code and text."""


def _nothing(_: Any) -> Sequence[Demand]:
    return ()


def _open(field: str) -> CommandRight:
    return CommandRight(Right.OPEN, field, _nothing)


def _held(field: str) -> CommandRight:
    return CommandRight(Right.HELD, field, _nothing)


def _known(field: str) -> CommandRight:
    return CommandRight(Right.KNOWN, field, lambda _: (Demand(Right.KNOWN),))


def _brokers_only(field: str) -> CommandRight:
    return CommandRight(Right.SUPERUSER, field, lambda _: (Demand(Right.SUPERUSER),))


def _topic(
    right: Right, field: str, refuse: Callable[[int, api.ServerError, str], bytes] = commands.error
) -> CommandRight:
    return CommandRight(
        right, field, lambda of: (Demand(right, TopicName.parse(of.topic)),), refuse
    )


def lookup_demand(topic: TopicName) -> Demand:
    """Return what looking a topic up demands, through whichever door."""
    # Everybody who opens a transaction looks this topic up first.
    right = Right.KNOWN if topic.base == COORDINATORS_TOPIC else Right.LOOKUP
    return Demand(right, topic)


def _lookup(field: str, refuse: Callable[[int, api.ServerError, str], bytes]) -> CommandRight:
    def demands(of: Any) -> Sequence[Demand]:
        return (lookup_demand(TopicName.parse(of.topic)),)

    return CommandRight(Right.LOOKUP, field, demands, refuse)


def _namespace(right: Right, field: str) -> CommandRight:
    return CommandRight(
        right, field, lambda of: (Demand(right, NamespaceName.parse(of.namespace)),)
    )


def _producer(of: api.CommandProducer) -> Sequence[Demand]:
    topic = TopicName.parse(of.topic)
    demands = [Demand(Right.PRODUCE, topic)]
    if of.initial_subscription_name:
        initial = SubscriptionOf(topic, of.initial_subscription_name)
        demands.append(Demand(Right.CONSUME, initial))
    return demands


def _subscribe(of: api.CommandSubscribe) -> Sequence[Demand]:
    return (Demand(Right.CONSUME, SubscriptionOf(TopicName.parse(of.topic), of.subscription)),)


def _partitions_of_transaction(of: api.CommandAddPartitionToTxn) -> Sequence[Demand]:
    if len(of.partitions) > TOPICS_PER_COMMAND_MAX:
        return (Demand(Right.SUPERUSER),)
    return [Demand(Right.PRODUCE, TopicName.parse(each)) for each in of.partitions]


def _subscriptions_of_transaction(of: api.CommandAddSubscriptionToTxn) -> Sequence[Demand]:
    if len(of.subscription) > TOPICS_PER_COMMAND_MAX:
        return (Demand(Right.SUPERUSER),)
    return [
        Demand(Right.CONSUME, SubscriptionOf(TopicName.parse(each.topic), each.subscription))
        for each in of.subscription
    ]


COMMAND_RIGHTS: Mapping[int, CommandRight] = {
    # the connection
    api.BaseCommand.CONNECT: _open("connect"),
    api.BaseCommand.AUTH_RESPONSE: _open("authResponse"),
    api.BaseCommand.PING: _open("ping"),
    api.BaseCommand.PONG: _open("pong"),
    # opening
    api.BaseCommand.PRODUCER: CommandRight(Right.PRODUCE, "producer", _producer),
    api.BaseCommand.SUBSCRIBE: CommandRight(Right.CONSUME, "subscribe", _subscribe),
    # about what was opened on this connection
    api.BaseCommand.SEND: _held("send"),
    api.BaseCommand.CLOSE_PRODUCER: _held("close_producer"),
    api.BaseCommand.ACK: _held("ack"),
    api.BaseCommand.FLOW: _held("flow"),
    api.BaseCommand.UNSUBSCRIBE: _held("unsubscribe"),
    api.BaseCommand.CLOSE_CONSUMER: _held("close_consumer"),
    api.BaseCommand.REDELIVER_UNACKNOWLEDGED_MESSAGES: _held("redeliverUnacknowledgedMessages"),
    api.BaseCommand.CONSUMER_STATS: _held("consumerStats"),
    api.BaseCommand.SEEK: _held("seek"),
    api.BaseCommand.GET_LAST_MESSAGE_ID: _held("getLastMessageId"),
    api.BaseCommand.WATCH_TOPIC_LIST_CLOSE: _held("watchTopicListClose"),
    # questions
    api.BaseCommand.PARTITIONED_METADATA: _lookup("partitionMetadata", commands.partitions_failed),
    api.BaseCommand.LOOKUP: _lookup("lookupTopic", commands.lookup_failed),
    api.BaseCommand.GET_TOPICS_OF_NAMESPACE: _namespace(Right.LOOKUP, "getTopicsOfNamespace"),
    api.BaseCommand.WATCH_TOPIC_LIST: _namespace(Right.LOOKUP, "watchTopicList"),
    # schemas
    api.BaseCommand.GET_SCHEMA: _topic(Right.LOOKUP, "getSchema", commands.schema_failed),
    api.BaseCommand.GET_OR_CREATE_SCHEMA: _topic(
        Right.PRODUCE, "getOrCreateSchema", commands.schema_refused
    ),
    # transactions: whose they are is for the coordinator to know
    api.BaseCommand.TC_CLIENT_CONNECT_REQUEST: _known("tcClientConnectRequest"),
    api.BaseCommand.NEW_TXN: _known("newTxn"),
    api.BaseCommand.END_TXN: _known("endTxn"),
    api.BaseCommand.ADD_PARTITION_TO_TXN: CommandRight(
        Right.PRODUCE, "addPartitionToTxn", _partitions_of_transaction
    ),
    api.BaseCommand.ADD_SUBSCRIPTION_TO_TXN: CommandRight(
        Right.CONSUME, "addSubscriptionToTxn", _subscriptions_of_transaction
    ),
    api.BaseCommand.END_TXN_ON_PARTITION: _brokers_only("endTxnOnPartition"),
    api.BaseCommand.END_TXN_ON_SUBSCRIPTION: _brokers_only("endTxnOnSubscription"),
    # not served, and refused as such to whoever asks
    api.BaseCommand.SCALABLE_TOPIC_SUBSCRIBE: _known("scalableTopicSubscribe"),
}


_TRANSACTION_ANSWERS: Mapping[int, api.BaseCommand.Type] = {
    api.BaseCommand.ADD_PARTITION_TO_TXN: api.BaseCommand.ADD_PARTITION_TO_TXN_RESPONSE,
    api.BaseCommand.ADD_SUBSCRIPTION_TO_TXN: api.BaseCommand.ADD_SUBSCRIPTION_TO_TXN_RESPONSE,
    api.BaseCommand.END_TXN_ON_PARTITION: api.BaseCommand.END_TXN_ON_PARTITION_RESPONSE,
    api.BaseCommand.END_TXN_ON_SUBSCRIPTION: api.BaseCommand.END_TXN_ON_SUBSCRIPTION_RESPONSE,
}
"""Commands that are refused by an answer that names the transaction again."""


def demands_of(command: api.BaseCommand) -> Sequence[Demand]:
    """Return what a command demands.

    Raises:
        InvalidNameError: it names what cannot be a topic or a namespace.
    """
    row = COMMAND_RIGHTS.get(command.type)
    if row is None:
        return (Demand(Right.SUPERUSER),)
    return row.demands(getattr(command, row.field))


def refusal_of(command: api.BaseCommand) -> Callable[[api.ServerError, str], bytes]:
    """Return what makes the answer that refuses a command."""
    row = COMMAND_RIGHTS.get(command.type)
    if row is None:
        return partial(commands.error, commands.NO_REQUEST)
    contents = getattr(command, row.field)
    request_id = getattr(contents, "request_id", commands.NO_REQUEST)
    if (kind := _TRANSACTION_ANSWERS.get(command.type)) is not None:
        transaction = TransactionId(contents.txnid_most_bits, contents.txnid_least_bits)
        return partial(commands.transaction_refused, kind, request_id, transaction)
    return partial(row.refuse, request_id)
