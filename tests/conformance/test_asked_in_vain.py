"""What the official client may ask for and this version has not: no message is lost by asking.

The table in docs/operating.md says what each client gets; schemas and log-in are not looked at.
"""

import json
from typing import Any

import pulsar
import pytest
from pulsar.schema import Integer, JsonSchema, Record, String

from tests.conformance.conftest import Connect
from tests.conformance.talk import receive, send, take, texts


class Order(Record):  # type: ignore[misc]
    number = Integer(required=True)


class Invoice(Record):  # type: ignore[misc]
    customer = String(required=True)


def test_typed_messages_are_kept_as_the_bytes_they_were_encoded_to(client: Any, topic: str) -> None:
    typed = client.subscribe(topic, "typed", schema=JsonSchema(Order))
    plain = client.subscribe(topic, "plain")
    client.create_producer(topic, schema=JsonSchema(Order)).send(Order(number=7))
    assert receive(typed, 1)[0].value().number == 7
    assert json.loads(receive(plain, 1)[0].data()) == {"number": 7}


def test_nobody_compares_the_schemas_of_two_producers(client: Any, topic: str) -> None:
    plain = client.subscribe(topic, "plain")
    client.create_producer(topic, schema=JsonSchema(Order)).send(Order(number=7))
    client.create_producer(topic, schema=JsonSchema(Invoice)).send(Invoice(customer="anna"))
    bodies = [json.loads(message.data()) for message in receive(plain, 2)]
    assert bodies == [{"number": 7}, {"customer": "anna"}]


def test_a_replicated_subscription_is_one_on_this_broker(client: Any, topic: str) -> None:
    consumer = client.subscribe(topic, "s", replicate_subscription_state_enabled=True)
    send(client.create_producer(topic), 2)
    assert take(consumer, 2) == texts(range(2))


@pytest.mark.parametrize("token", ["nonsense", "x" * 10_000])
def test_who_shows_a_token_is_let_in_like_everybody(
    connect: Connect, topic: str, token: str
) -> None:
    client = connect(authentication=pulsar.AuthenticationToken(token))
    consumer = client.subscribe(topic, "s")
    send(client.create_producer(topic), 1)
    assert take(consumer, 1) == ["0"]
