"""What the official client may ask for and this version has not: no message is lost by asking.

The table in docs/operating.md says what each client gets; log-in is not looked at.
"""

from typing import Any

import pulsar
import pytest

from tests.conformance.conftest import Connect
from tests.conformance.talk import send, take, texts


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
