"""What all topics of a process work with: made once by the catalog."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

from magnetar.broker.clock import Clock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.metadata.partitions import Partitions
from magnetar.broker.metadata.transactions import TransactionStore
from magnetar.broker.storage.errors import Gap
from magnetar.broker.topics.producers.pacing import Shared
from magnetar.broker.topics.subscriptions.checkpoints import Checkpoints
from magnetar.names import TopicName


class ProducerNames:
    """Names for producers that bring none: unique among all processes and over restarts.

    standalone-17-4     cluster, number of this start of a process, counter
    """

    def __init__(self, cluster: str, start: int) -> None:
        self._prefix = f"{cluster}-{start}-"
        self._numbers = count()

    def next(self) -> str:
        """Return a name that nobody has."""
        return f"{self._prefix}{next(self._numbers)}"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all topics of a process work with."""

    config: BrokerConfig
    clock: Clock
    loop: asyncio.AbstractEventLoop
    partitions: Partitions
    checkpoints: Checkpoints
    names: ProducerNames
    quarantined: Callable[[], Sequence[Gap]]
    address_of: Callable[[TopicName], str]
    """`host:port` of the HTTP address of who serves a topic."""
    shared: Shared
    """The meters of rates that topics have in common."""
    transactions: TransactionStore
