"""What a topic does about the schemas of its clients, before it lets them in.

    producer   its schema is added, or is known already       none: refused where one is needed
    consumer   its schema must read what is there; it is added only to a topic that nobody uses
               "whatever the topic has" (AUTO_CONSUME), and none: let in

Source: Pulsar's handling of PRODUCER and SUBSCRIBE. Its own topics, whose names start with two
underscores, take everything.
"""

from magnetar.broker.port import IncompatibleSchemaError, Schema, SchemaType
from magnetar.broker.schema.compatibility import Strategy
from magnetar.broker.schema.registry import Registry
from magnetar.broker.topics.limits.policies import Rules
from magnetar.broker.topics.topic import Topic
from magnetar.names import TopicName


async def admit_producer(topic: Topic, schema: Schema | None, registry: Registry) -> int | None:
    """Return the version of a producer's schema; None: it declares none.

    Raises:
        IncompatibleSchemaError: it does not go with the topic's, or there has to be one.
    """
    if schema is not None and schema.declared:
        return await add(topic.name, schema, topic.rules, registry)
    if topic.rules.schema_required and await registry.has(topic.name):
        raise IncompatibleSchemaError(
            f"topic {topic.name} has a schema, and takes no producers without one"
        )
    return None


async def admit_consumer(topic: Topic, schema: Schema | None, registry: Registry) -> None:
    """Let a consumer in.

    Raises:
        IncompatibleSchemaError: its schema cannot read what is in the topic.
    """
    if schema is None or not schema.declared:
        return
    if _is_unused(topic) and not await registry.has(topic.name):
        await add(topic.name, schema, topic.rules, registry)
    else:
        await registry.check_consumer(topic.name, schema, _strategy(topic.name, topic.rules))


async def add(name: TopicName, schema: Schema, rules: Rules, registry: Registry) -> int:
    """Return the version of a client's schema, which is added if that is allowed.

    Raises:
        IncompatibleSchemaError: it is not.
    """
    may_add = rules.schema_updates_allowed or _is_own(name)
    return await registry.put(name, schema, _strategy(name, rules), may_add=may_add)


def without_definition(schema: Schema | None) -> Schema | None:
    """Return what is still wanted of a schema once its client is in: a definition can be large."""
    return None if schema is None else Schema(schema.type)


def _strategy(name: TopicName, rules: Rules) -> Strategy:
    return Strategy.ALWAYS_COMPATIBLE if _is_own(name) else rules.schema_strategy


def _is_own(name: TopicName) -> bool:
    return name.local.startswith("__")


def _is_unused(topic: Topic) -> bool:
    """Return whether nothing is in a topic, and nobody there who thinks it holds plain bytes."""
    if len(topic.producers) or topic.holds_data:
        return False
    return all(
        consumer.request.schema is not None
        and consumer.request.schema.type is SchemaType.AUTO_CONSUME
        for subscription in topic.subscriptions.values()
        for consumer in subscription.consumers.values()
    )
