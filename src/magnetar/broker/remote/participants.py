"""Where a topic takes part in a transaction: in this process, or where its owner is."""

from magnetar.broker.entry import TransactionId
from magnetar.broker.port import Participants
from magnetar.broker.remote.front import Ownership
from magnetar.broker.remote.remote import Remote
from magnetar.names import TopicName


class AllParticipants:
    """All topics, whoever owns them. Implements `port.Participants`."""

    def __init__(self, here: Participants, remote: Remote, ownership: Ownership) -> None:
        self._here = here
        self._remote = remote
        self._ownership = ownership

    async def settle(self, topic: TopicName, transaction: TransactionId) -> None:
        """Have the owner of a topic do for its entries what is decided.

        Raises:
            PortError: it cannot, or cannot be reached.
        """
        await self._ownership.settled(topic)
        if self._ownership.mine(topic):
            await self._here.settle(topic, transaction)
        else:
            worker = self._ownership.worker_of(topic)
            await self._remote.settle(worker, topic, transaction)

    async def settle_subscription(
        self, topic: TopicName, subscription: str, transaction: TransactionId
    ) -> None:
        """Have the owner of a topic do for a subscription what is decided.

        Raises:
            PortError: it cannot, or cannot be reached.
        """
        await self._ownership.settled(topic)
        if self._ownership.mine(topic):
            await self._here.settle_subscription(topic, subscription, transaction)
        else:
            worker = self._ownership.worker_of(topic)
            await self._remote.settle_subscription(worker, topic, subscription, transaction)
