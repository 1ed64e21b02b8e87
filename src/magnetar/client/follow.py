"""Replay a topic from anywhere, then keep up with it.

    follow(cluster, topic, "earliest")             all there is, and then whatever comes
    follow(cluster, topic, time_ms, until_end=True)    from a moment on, then stop

A generator over the official client's reader: it leaves no subscription behind, acknowledges
nothing, and survives a restart of the broker, because the reader does. One message is in the
caller's hands at a time; at most `receiver_queue_size` more wait in the client.
"""

from collections.abc import Callable, Generator
from typing import Any

import pulsar

from magnetar.client.cluster import Cluster, Start

POLL_MS = 200
"""How long one look for the next message takes when there is none: the delay of `stopped`."""


def never() -> bool:
    """Follow for ever."""
    return False


def follow(  # noqa: PLR0913 - where, what, and when to stop
    cluster: Cluster,
    topic: str,
    start: Start = "earliest",
    *,
    until_end: bool = False,
    stopped: Callable[[], bool] = never,
    receiver_queue_size: int = 1000,
) -> Generator[Any, None, None]:
    """Yield the messages of a topic in order.

    Args:
        cluster: Where the topic is.
        topic: Its name.
        start: `earliest`, `latest`, a time (ms since 1970) or the id of the first message.
        until_end: Return when nothing more is there. What is published while the last
            messages are being read may still be seen.
        stopped: Asked between messages; return when it says so.
        receiver_queue_size: Messages the client fetches ahead.
    """
    reader = cluster.reader(topic, start, receiver_queue_size=receiver_queue_size)
    try:
        while not stopped():
            if until_end and not reader.has_message_available():
                return
            try:
                message = reader.read_next(POLL_MS)
            except pulsar.Timeout:  # nothing yet: ask `stopped` again
                continue
            yield message
    finally:
        reader.close()
