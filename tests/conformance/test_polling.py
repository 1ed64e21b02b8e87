"""What the client finds out only by asking again, once a minute.

Its option for asking more often is not passed on (pulsar-client 3.13), so a test takes as long.

    TESTS_SLOW=1 pytest tests/conformance/test_polling.py
"""

import os
import re
from typing import Any

import pytest
from pulsar import ConsumerType as Type

from magnetar.client.admin import Admin
from tests.conformance.talk import eventually, send, take, texts

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        not os.environ.get("TESTS_SLOW"), reason="takes a minute; TESTS_SLOW=1 runs it"
    ),
]


def test_new_topics_and_partitions_are_found_by_who_is_there_already(
    client: Any, admin: Admin, namespace: str, topic: str
) -> None:
    admin.create_topic(topic, 2)
    of_partitions = client.subscribe(topic, "s", consumer_type=Type.Shared)
    of_pattern = client.subscribe(re.compile(f"{namespace}/log-.*"), "s", consumer_type=Type.Shared)
    to_partitions = client.create_producer(topic)
    admin.update_partitions(topic, 4)
    fresh = f"persistent://{namespace}/log-new"
    admin.create_topic(fresh)
    eventually(lambda: admin.subscriptions(fresh) == ["s"], limit_s=90)
    eventually(lambda: admin.subscriptions(f"{topic}-partition-3") == ["s"], limit_s=90)
    send(client.create_producer(fresh), 3)
    assert take(of_pattern, 3) == texts(range(3))
    send(to_partitions, 12)
    assert sorted(take(of_partitions, 12), key=int) == texts(range(12))
