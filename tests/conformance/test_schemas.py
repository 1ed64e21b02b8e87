"""The official client's schemas, end to end: typed messages arrive as what they were.

What was registered is seen by every process, and survives a kill.
"""

import json
import threading
from collections.abc import Callable
from itertools import count
from typing import Any

import pulsar
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from pulsar.schema import (
    AvroSchema,
    Integer,
    JsonSchema,
    ProtobufNativeSchema,
    Record,
    String,
    StringSchema,
)

from magnetar.client.admin import Admin
from magnetar.client.rest import AdminError
from tests.conformance.conftest import Connect, Restartable
from tests.conformance.talk import eventually, receive

Typed = Callable[[Any], Any]
Field = descriptor_pb2.FieldDescriptorProto


def order(**fields: Any) -> Any:
    """A record type of the same name, with these fields."""
    return type("Order", (Record,), {"number": Integer(required=True), **fields})


ORDER = order()
SIGNED = order(by=String(default="nobody", required_default=True))
UNSIGNED = order(by=String(required=True))


@pytest.mark.parametrize("schema", [JsonSchema, AvroSchema])
def test_typed_messages_arrive_as_what_they_were(client: Any, topic: str, schema: Typed) -> None:
    typed = client.subscribe(topic, "typed", schema=schema(ORDER))
    plain = client.subscribe(topic, "plain")
    client.create_producer(topic, schema=schema(ORDER)).send(ORDER(number=7))
    message = receive(typed, 1)[0]
    assert message.value().number == 7
    assert message.schema_version().encode() == bytes(8)
    assert receive(plain, 1)[0].data() == (
        b'{\n "number": 7\n}' if schema is JsonSchema else b"\x0e"
    )


def test_strings_have_a_schema_without_a_definition(client: Any, admin: Admin, topic: str) -> None:
    client.create_producer(topic, schema=StringSchema())
    assert admin.schema(topic)["type"] == "STRING"
    with pytest.raises(pulsar.IncompatibleSchema):
        client.create_producer(topic, schema=JsonSchema(ORDER))


def test_a_reader_of_the_newest_schema_understands_all_versions(
    client: Any, admin: Admin, topic: str
) -> None:
    consumer = client.subscribe(topic, "s", schema=AvroSchema(ORDER))
    client.create_producer(topic, schema=AvroSchema(ORDER)).send(ORDER(number=1))
    client.create_producer(topic, schema=AvroSchema(SIGNED)).send(SIGNED(number=2, by="anna"))
    assert [each["version"] for each in admin.schemas(topic)] == [0, 1]
    messages = receive(consumer, 2)
    assert [each.value().number for each in messages] == [1, 2]
    assert [each.schema_version().encode()[-1] for each in messages] == [0, 1]


def message(**fields: int) -> Any:
    """A Protobuf message of the same name, with fields of these types, numbered as they come."""
    name = f"shop{len(fields)}{sum(fields.values())}.proto"
    file = descriptor_pb2.FileDescriptorProto(name=name, package="shop", syntax="proto3")
    order = file.message_type.add(name="Order")
    for number, (field, kind) in enumerate(fields.items(), start=1):
        order.field.add(name=field, number=number, type=kind, label=Field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Order"))


def test_protobuf_messages_may_get_new_fields_and_no_other_types(client: Any, topic: str) -> None:
    old, new, other = (
        message(number=Field.TYPE_INT32),
        message(number=Field.TYPE_INT64, by=Field.TYPE_STRING),
        message(number=Field.TYPE_STRING),
    )
    consumer = client.subscribe(topic, "s", schema=ProtobufNativeSchema(old))
    client.create_producer(topic, schema=ProtobufNativeSchema(old)).send(old(number=1))
    newer = client.create_producer(topic, schema=ProtobufNativeSchema(new))
    newer.send(new(number=2, by="anna"))
    with pytest.raises(pulsar.IncompatibleSchema):
        client.create_producer(topic, schema=ProtobufNativeSchema(other))
    messages = receive(consumer, 2)
    assert [each.value().number for each in messages] == [1, 2]
    assert [each.schema_version().encode()[-1] for each in messages] == [0, 1]


@pytest.mark.parametrize("schema", [JsonSchema, AvroSchema])
def test_what_cannot_be_read_is_refused_at_the_door(client: Any, topic: str, schema: Typed) -> None:
    client.create_producer(topic, schema=schema(ORDER))
    with pytest.raises(pulsar.IncompatibleSchema):
        client.create_producer(topic, schema=schema(UNSIGNED))
    with pytest.raises(pulsar.IncompatibleSchema):
        client.subscribe(topic, "s", schema=schema(UNSIGNED))
    with pytest.raises(pulsar.IncompatibleSchema):
        client.subscribe(topic, "s", schema=StringSchema())
    client.subscribe(topic, "s", schema=schema(SIGNED))


def test_what_a_namespace_says_comes_to_hold_for_topics_in_use(
    client: Any, admin: Admin, namespace: str
) -> None:
    topic = f"persistent://{namespace}/t"
    client.create_producer(topic, schema=AvroSchema(ORDER))

    def refused(**options: Any) -> bool:
        try:
            client.create_producer(topic, **options).close()
        except pulsar.IncompatibleSchema:
            return True
        return False

    assert not refused()
    admin.set_policy(namespace, "schemaValidationEnforced", True)
    eventually(refused)
    admin.set_policy(namespace, "schemaValidationEnforced", False)
    eventually(lambda: not refused())
    admin.set_policy(namespace, "isAllowAutoUpdateSchema", False)
    # Another one each time: until the topic has noticed, a schema is added for good.
    fresh = (order(**{f"more{number}": String(default="")}) for number in count())
    eventually(lambda: refused(schema=AvroSchema(next(fresh))))
    assert refused(schema=AvroSchema(SIGNED))
    assert not refused(schema=AvroSchema(ORDER))
    admin.set_policy(namespace, "isAllowAutoUpdateSchema", True)
    eventually(lambda: not refused(schema=AvroSchema(SIGNED)))
    assert refused(schema=AvroSchema(UNSIGNED))
    admin.set_policy(namespace, "schemaCompatibilityStrategy", "FORWARD")
    eventually(lambda: not refused(schema=AvroSchema(UNSIGNED)))


def test_clients_that_come_at_once_make_one_version(
    connect: Connect, admin: Admin, topic: str
) -> None:
    admin.create_topic(topic, 3)
    clients = [connect() for _ in range(4)]
    threads = [
        threading.Thread(target=each.create_producer, args=(topic,), kwargs={"schema": schema})
        for each in clients
        for schema in (AvroSchema(ORDER), AvroSchema(SIGNED))
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    found = admin.schemas(topic)
    assert [each["version"] for each in found] == [0, 1]
    assert len({each["data"] for each in found}) == 2


def test_schemas_survive_a_kill(restartable: Restartable) -> None:
    topics = [f"persistent://public/default/t{number}" for number in range(3)]
    client = restartable.client()
    for topic in topics:
        for record in (ORDER, SIGNED):
            producer = client.create_producer(topic, schema=AvroSchema(record))
            producer.send(record(number=5))
    restartable.crash()
    client = restartable.client()
    with restartable.admin() as admin:
        check_what_is_left(client, admin, topics)


def check_what_is_left(client: Any, admin: Admin, topics: list[str]) -> None:
    for topic in topics:
        definitions = [json.loads(each["data"]) for each in admin.schemas(topic)]
        assert definitions == [ORDER.schema(), SIGNED.schema()]
        with pytest.raises(pulsar.IncompatibleSchema):
            client.create_producer(topic, schema=AvroSchema(UNSIGNED))
        client.create_producer(topic, schema=AvroSchema(SIGNED)).send(SIGNED(number=6))
        consumer = client.subscribe(
            topic,
            "s",
            initial_position=pulsar.InitialPosition.Earliest,
            schema=AvroSchema(ORDER),
        )
        messages = receive(consumer, 3)
        assert [each.value().number for each in messages] == [5, 5, 6]
        assert [each.schema_version().encode()[-1] for each in messages] == [0, 1, 1]
    client.shutdown()
    admin.delete_topic(topics[0], force=True)
    with pytest.raises(AdminError, match="no schema"):
        admin.schema(topics[0])
    assert admin.add_schema(topics[0], "STRING", "") == 0
    assert admin.schema_compatibility(topics[0], "INT32", "") == (False, "FULL")
    assert admin.delete_schema(topics[0]) == 1
