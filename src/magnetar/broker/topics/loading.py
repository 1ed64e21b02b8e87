"""How a topic comes into memory, and what is saved when it goes.

    load     record, policies ──▶ chain ──▶ compacted view, cursors ──▶ transactions ──▶ sequences
    unload   clients go ──▶ cursors, sequences saved ──▶ the last ledger's end recorded

What cannot be saved is kept in memory, or done before the topic is loaded the next time: nothing
is lost, though something may be delivered again.
"""

import logging

from magnetar.broker.metadata import paths
from magnetar.broker.metadata.chains import Chain
from magnetar.broker.metadata.partitions import TopicRecord
from magnetar.broker.metadata.sequences import load_sequences
from magnetar.broker.metadata.store import Store, StoreError
from magnetar.broker.port import PortError
from magnetar.broker.storage.errors import StorageError
from magnetar.broker.storage.ledgers import Ledgers
from magnetar.broker.storage.log import Log
from magnetar.broker.topics.compaction.compactor import Compactor
from magnetar.broker.topics.cursors.transaction_buffer import TransactionBuffer
from magnetar.broker.topics.existence import Existence, missing
from magnetar.broker.topics.participation import load_held
from magnetar.broker.topics.producers.deduplication import Sequences
from magnetar.broker.topics.surroundings import Surroundings
from magnetar.broker.topics.topic import Topic
from magnetar.names import TopicName

logger = logging.getLogger(__name__)


class Loader:
    """Loads and unloads the topics of a process; one topic at most once at a time."""

    def __init__(
        self,
        around: Surroundings,
        existence: Existence,
        compactor: Compactor,
        ledgers: Ledgers,
        store: Store,
    ) -> None:
        """Call `start` before anything else."""
        self._around = around
        self._existence = existence
        self._compactor = compactor
        self._ledgers = ledgers
        self._store = store
        self._with_buffers: set[TopicName] = set()
        """Topics that may have entries of transactions that are open, or aborted."""
        self._with_acks: set[int] = set()
        """Cursors at which transactions may hold acknowledgements."""
        self._flush_first = set[TopicName]()
        """Topics whose ledgers' ends could not be recorded when they were closed."""
        self.left: dict[TopicName, Sequences] = {}
        """What deduplication knew of topics when they were closed and it could not be saved."""

    async def start(self) -> None:
        """Find out which topics transactions have left something in.

        To be called again when topics come that another process has served.
        """
        self._with_buffers |= await self._around.transactions.topics_with_buffers()
        self._with_acks |= await self._around.transactions.cursors_with_acks()

    async def load(self, name: TopicName) -> Topic:
        """Return a topic that is there, with all that is known of it.

        Raises:
            TopicNotFoundError: it is not there (any more).
            PortError, StorageError: it cannot be loaded now.
        """
        around, existence = self._around, self._existence
        if not name.persistent:
            await existence.live.add(name)
            record = TopicRecord(created_ms=around.clock.wall_ms())
            own = await existence.said_by(name, None)
            topic = Topic(around, name, record, await existence.rules_for(name, own), None)
            topic.own = own
            return topic
        found = await existence.partitions.topic(name)
        if found is None:
            raise missing(name)
        own = await existence.said_by(name, found)
        rules = await existence.rules_for(name, own)
        if name in self._flush_first:
            await self._ledgers.flush()
            self._flush_first.discard(name)
        log = Log(self._ledgers, Chain(self._store, name), around.config, around.clock)
        await log.load()
        topic = Topic(around, name, found, rules, log)
        topic.own = own
        topic.compacted = await self._compactor.load(name, log)
        for subscription in await around.checkpoints.load(topic):
            topic.subscriptions[subscription.name] = subscription
        topic.pace()
        if name in self._with_buffers:
            topic.take_transactions(
                await TransactionBuffer.load(name, log, around.transactions, topic.wake)
            )
        if self._with_acks:
            await load_held(topic.readers, self._with_acks, around.transactions, around.checkpoints)
        if topic.rules.deduplication:
            left = self.left.pop(name, None)
            topic.inlet.sequences = left or Sequences(await load_sequences(self._store, name))
        return topic

    async def save_left(self) -> None:
        """Save what could not be saved when its topic was closed.

        Raises:
            StoreError: it still cannot.
        """
        await self._around.checkpoints.save_sequences(list(self.left.items()))

    async def lost(self, topic: Topic) -> bool:
        """Return whether another process has taken a topic that is loaded here.

        Raises:
            StoreError: that could not be found out.
        """
        if not topic.name.persistent:
            return False
        found = await self._store.get(paths.owner(topic.name))
        return found is None or found.version != topic.log.epoch

    async def unload(
        self, topic: Topic, reason: PortError, *, delete: bool, save: bool = True
    ) -> None:
        """Close a topic, and save what has to be known when it is loaded again, or delete it."""
        await topic.close(reason)
        await self.put_away(topic, save=save and not delete)
        if delete:
            await topic.delete_durable()
            self.left.pop(topic.name, None)

    async def put_away(self, topic: Topic, *, save: bool = True) -> bool:
        """Save what has to be known of a topic that takes nothing more; return if all of it is."""
        await self._compactor.stop(topic)
        if not topic.name.persistent:
            await self._no_longer_live(topic.name)
            return True
        saved = await self._save(topic) if save else True
        self._remember_transactions(topic)
        self._around.checkpoints.forget(topic.readers)
        return await self._close_log(topic) and saved

    def _remember_transactions(self, topic: Topic) -> None:
        """Note what has to be looked up when a topic is loaded again."""
        if topic.transactions is not None:
            self._with_buffers.add(topic.name)
        for each in topic.readers:
            cursor = self._around.checkpoints.cursor_of(each)
            if cursor is not None and each.held is not None:
                self._with_acks.add(cursor)

    async def _no_longer_live(self, name: TopicName) -> None:
        try:
            await self._existence.live.remove(name)
        except StoreError as error:
            logger.warning("topic %s is listed until the next start: %s", name, error)

    async def _save(self, topic: Topic) -> bool:
        """Save what the next one who loads a topic has to know. If that fails, nothing is lost.

        Acknowledgements since the last snapshot may be forgotten: those entries come again.
        """
        saved = True
        try:
            await self._around.checkpoints.save_cursors(topic.readers)
        except StoreError:
            saved = False
            logger.exception("topic %s: entries will be delivered again", topic.name)
        sequences = topic.inlet.sequences
        try:
            await self._around.checkpoints.save_sequences([(topic.name, sequences)])
        except StoreError:
            saved = False
            logger.exception("topic %s: deduplication's state is kept in memory", topic.name)
            if sequences is not None:
                self.left[topic.name] = sequences
        return saved

    async def _close_log(self, topic: Topic) -> bool:
        try:
            await topic.log.close()
        except (PortError, StorageError):
            # Where its ledgers end is not recorded. Whoever loads it next looks into the entry
            # logs for that, so everything has to be in there first.
            logger.exception("topic %s: the ends of its ledgers are not recorded", topic.name)
            self._flush_first.add(topic.name)
            return False
        return True
