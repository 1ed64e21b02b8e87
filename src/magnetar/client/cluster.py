"""One cluster: its addresses and credentials, and what can be opened on it.

    Cluster(url, admin_url, credentials)
      ├─ .producer / .consumer / .reader     the official client, over pulsar:// or pulsar+ssl://
      └─ .admin()                            admin REST, over http:// or https://

Thin on purpose: what comes back are the official client's own objects, so that its
documentation is ours. Against Apache Pulsar nothing changes but the two addresses.
"""

import os
from enum import Enum
from typing import Any, Self

import pulsar

from magnetar.client.address import DEFAULT_URL, admin_url_beside
from magnetar.client.admin import Admin
from magnetar.client.credentials import Credentials

MessageId = pulsar.MessageId
Start = str | int | Any
"""Where to start: `earliest`, `latest`, a time (ms since 1970), or a message id of the client."""


class SubscriptionType(Enum):
    """Who of a subscription's consumers gets a message."""

    EXCLUSIVE = "exclusive"
    FAILOVER = "failover"
    SHARED = "shared"
    KEY_SHARED = "key-shared"


_CONSUMER_TYPES: dict[SubscriptionType, Any] = {
    SubscriptionType.EXCLUSIVE: pulsar.ConsumerType.Exclusive,
    SubscriptionType.FAILOVER: pulsar.ConsumerType.Failover,
    SubscriptionType.SHARED: pulsar.ConsumerType.Shared,
    SubscriptionType.KEY_SHARED: pulsar.ConsumerType.KeyShared,
}


class Cluster:
    """Producers, consumers, readers and admin REST of one cluster. A context manager."""

    def __init__(  # noqa: PLR0913 - what a client can be told
        self,
        url: str = DEFAULT_URL,
        admin_url: str | None = None,
        *,
        token: str | None = None,
        credentials: Credentials | None = None,
        log: str = os.devnull,
        operation_timeout_s: int = 30,
    ) -> None:
        """Remember the addresses; nothing is dialled before something is opened.

        Args:
            url: `pulsar://host:port` or `pulsar+ssl://host:port`.
            admin_url: `http://host:port` or `https://host:port`; None: beside `url`.
            token: A JSON web token, for clusters that ask for one.
            credentials: Whatever else may be needed; then `token` is one of them.
            log: File for the client's own log lines; with the null device it writes only
                failures, and those nowhere. They tell about reconnections, mostly.
            operation_timeout_s: How long to try to open something before giving up.

        Raises:
            AddressError: `url` is no Pulsar address.
        """
        self.url = url
        self.admin_url = admin_url or admin_url_beside(url)
        self._credentials = credentials or Credentials(token=token)
        self._log = log
        self._operation_timeout_s = operation_timeout_s
        self._client: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def client(self) -> Any:
        """The official client, opened on first use."""
        if self._client is None:
            level = pulsar.LoggerLevel.Error if self._log == os.devnull else pulsar.LoggerLevel.Info
            self._client = pulsar.Client(
                self.url,
                operation_timeout_seconds=self._operation_timeout_s,
                # A file, and not a Python logger: the client writes from its own threads, and
                # must not need the interpreter for it.
                logger=pulsar.FileLogger(level, self._log),
                **self._credentials.of_official_client(),
            )
        return self._client

    def admin(self, *, timeout_s: float = 60.0) -> Admin:
        """Open a connection for admin REST. It belongs to one thread."""
        return Admin(self.admin_url, timeout_s=timeout_s, credentials=self._credentials)

    def producer(self, topic: str, **options: Any) -> Any:
        """Open a producer. Options are those of `pulsar.Client.create_producer`."""
        return self.client.create_producer(topic, **options)

    def consumer(
        self,
        topic: str,
        subscription: str,
        kind: SubscriptionType = SubscriptionType.EXCLUSIVE,
        start: Start | None = None,
        **options: Any,
    ) -> Any:
        """Open a consumer. Further options are those of `pulsar.Client.subscribe`.

        Args:
            topic: The topic.
            subscription: The subscription; created if it is not there.
            kind: Who of the subscription's consumers gets a message.
            start: `earliest` and `latest` say where a new subscription starts and leave one
                that is there alone. A time (ms since 1970) or a message id moves it. None is
                the latest.
            **options: Passed on.
        """
        first = pulsar.InitialPosition
        from_end = start is None or (isinstance(start, str) and start == "latest")
        consumer = self.client.subscribe(
            topic,
            subscription,
            consumer_type=_CONSUMER_TYPES[kind],
            initial_position=first.Latest if from_end else first.Earliest,
            **options,
        )
        if start is not None and not isinstance(start, str):
            consumer.seek(start)
        return consumer

    def reader(self, topic: str, start: Start = "earliest", **options: Any) -> Any:
        """Open a reader: it leaves no subscription behind and acknowledges nothing.

        Args:
            topic: The topic.
            start: `earliest`, `latest`, a time (ms since 1970) or the id of the first message.
            **options: Those of `pulsar.Client.create_reader`.
        """
        if isinstance(start, int):
            reader = self.client.create_reader(topic, pulsar.MessageId.earliest, **options)
            reader.seek(start)
            return reader
        named = {"earliest": pulsar.MessageId.earliest, "latest": pulsar.MessageId.latest}
        if isinstance(start, str):
            return self.client.create_reader(topic, named[start], **options)
        return self.client.create_reader(topic, start, start_message_id_inclusive=True, **options)

    def close(self) -> None:
        """Close everything that was opened on the official client."""
        if self._client is not None:
            closing, self._client = self._client, None
            closing.close()


def message_id(ledger: int, entry: int, batch_index: int = -1, partition: int = -1) -> Any:
    """Return a message id of the official client, to start reading from."""
    return pulsar.MessageId(partition, ledger, entry, batch_index)
