"""The coordinators of transactions: they have no state of their own.

    NEW_TXN ──▶ OPEN, on disk ──END_TXN──▶ COMMITTING, on disk: this is the decision
                  │                            │ every participant, wherever it is: `settle`
                  │ time is up                 ▼
                  └──────────▶ ABORTING ──▶ finished: no record any more

Everything is a fact in the metadata, which all processes share, changed under conditions. So any
process may serve any coordinator, whichever one a client comes to; a look-up spreads them.
What is time-bound, aborting what was left open and finishing what somebody did not, is done by
one process for each coordinator, so that it is done once: number modulo workers. Doing it twice
would be no harm.

A participant is only ever told to look: it reads what is decided for itself, so that a message
that is late, or made up, does nothing. Looked to: two-phase commit with presumed facts, Pulsar's
transaction coordinator for its states and errors, and Kafka's KIP-890 for what must not happen.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress

from magnetar.broker.clock import Clock
from magnetar.broker.entry import TransactionId
from magnetar.broker.metadata import paths
from magnetar.broker.metadata.store import ConflictError, Store, number_of
from magnetar.broker.metadata.transactions import (
    PARTICIPANTS_MAX,
    State,
    Transaction,
    TransactionRecord,
    TransactionStore,
)
from magnetar.broker.port import (
    InvalidTransactionStatusError,
    NotAllowedError,
    Participants,
    PortError,
    TooManyRequestsError,
    TransactionCoordinatorNotFoundError,
    TransactionNotFoundError,
)
from magnetar.broker.transactions.figures import Figures
from magnetar.names import TopicName

logger = logging.getLogger(__name__)

TTL_MS_MAX = 3 * 3600 * 1000
"""A client that asks for a longer time, or for none, gets this one: Pulsar's limit."""

OPEN_MAX = 10_000
"""Transactions of one coordinator that are not over. Each takes part of a kilobyte."""

COUNT_AGE_S = 1.0
"""How old the count of them may be, where other processes open some too."""

LOOK_INTERVAL_S = 1.0
"""How often it is looked for transactions whose time is up, or which nobody finishes."""

END_WAIT_S = 5.0
"""How long a client waits for the participants. What is decided is on disk, and is done later
where somebody cannot be reached now."""

SETTLES_MAX = 64
"""Participants that are told at a time."""

OUTCOMES_MAX = 10_000
"""Transactions that are over whose outcome is remembered, for clients that ask again because
an answer was lost."""


class Coordinator:
    """Every coordinator, as one process serves it. Implements `port.Transactions`."""

    def __init__(  # noqa: PLR0913 - the parts of a process meet here
        self,
        store: Store,
        participants: Participants,
        here: Participants,
        *,
        worker: int,
        workers: int,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        figures: Figures,
        reached: Callable[[str], None] = lambda step: None,  # noqa: ARG005 - for tests
    ) -> None:
        """`participants` are reached wherever they are, `here` are those of this process."""
        self._raw = store
        self.store = TransactionStore(store)
        self._participants = participants
        self._here = here
        self._worker = worker
        self._workers = workers
        self._clock = clock
        self._loop = loop
        self._figures = figures
        self._reached = reached
        self._settles = asyncio.Semaphore(SETTLES_MAX)
        self._finishing: dict[TransactionId, asyncio.Task[None]] = {}
        self._outcomes: dict[TransactionId, bool] = {}
        self._counting: dict[int, asyncio.Task[None]] = {}
        self._counts: dict[int, tuple[float, int]] = {}
        self._changed: set[TransactionId] = set()
        """Of those that fall to this process: to be looked at."""
        self._deadlines: dict[TransactionId, float] = {}
        """When the time of those that are open is up, by the monotonic clock."""
        self._looking: asyncio.Task[None] | None = None
        self._stop_watch: Callable[[], None] | None = None

    @property
    def active(self) -> int:
        """How many transactions that fall to this process are open, or about to be over."""
        return len(self._deadlines.keys() | self._changed)

    # --- start and stop

    async def start(self) -> None:
        """Take up what was left, and mind the time."""
        self._stop_watch = self._raw.watch(paths.TRANSACTIONS, self._on_change)
        self._on_change(await self._raw.keys(paths.TRANSACTIONS))
        self._looking = self._loop.create_task(self._look_again_and_again())

    async def meet(self, workers: int) -> None:
        """Take up what falls to this process where so many share the work from now on."""
        self._workers = workers
        self._deadlines = {
            each: due for each, due in self._deadlines.items() if self._is_mine(each)
        }
        self._on_change(await self._raw.keys(paths.TRANSACTIONS))

    async def stop(self) -> None:
        """Stop; whatever is under way is taken up by the next start."""
        if self._stop_watch is not None:
            self._stop_watch()
        tasks = [*self._finishing.values()]
        if self._looking is not None:
            tasks.append(self._looking)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- what clients ask

    async def coordinators(self) -> int:
        """Return how many there are."""
        return await self.store.coordinators()

    async def demand(self, coordinator: int) -> None:
        """Check that there is such a coordinator."""
        count = await self.store.coordinators()
        if not 0 <= coordinator < count:
            raise TransactionCoordinatorNotFoundError(
                f"there is no transaction coordinator {coordinator}: they are 0 to {count - 1}"
            )

    async def open(self, coordinator: int, ttl_ms: int, role: str | None) -> TransactionId:
        """Open a transaction."""
        await self.demand(coordinator)
        await self._count_one(coordinator)
        ttl_ms = min(ttl_ms, TTL_MS_MAX) if ttl_ms > 0 else TTL_MS_MAX
        record = TransactionRecord(owner=role, ttl_ms=ttl_ms, opened_ms=self._clock.wall_ms())
        transaction = await self.store.open(coordinator, record)
        self._figures.opened()
        return transaction

    async def add(self, transaction: TransactionId, participants: int, role: str | None) -> None:
        """Check that topics or subscriptions may take part."""
        found = await self._find(transaction, role)
        if found.record.state is not State.OPEN:
            raise InvalidTransactionStatusError(
                f"transaction {transaction} is {found.record.state.value} already"
            )
        if participants > PARTICIPANTS_MAX:
            raise NotAllowedError(f"{participants} participants, allowed: {PARTICIPANTS_MAX}")

    async def end(self, transaction: TransactionId, role: str | None, *, commit: bool) -> None:
        """Commit or abort; whoever asks again gets the same answer."""
        known = self._outcomes.get(transaction)
        if known is None:
            try:
                decided = await self._decide(transaction, role, commit=commit)
            except TransactionNotFoundError:
                known = self._outcomes.get(transaction)  # finished meanwhile
                if known is None:
                    raise
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(END_WAIT_S):
                        await asyncio.wait([self._finish_soon(decided)])
                return
        if known is not commit:
            raise InvalidTransactionStatusError(
                f"transaction {transaction} was {'committed' if known else 'aborted'}"
            )

    async def abort(self, transaction: TransactionId) -> None:
        """Abort a transaction, whoever opened it: an administrator says so."""
        found = await self.store.find(transaction)
        await self.end(transaction, found.record.owner, commit=False)

    async def settle(self, topic: TopicName, transaction: TransactionId) -> None:
        """Do for the entries of one topic of this process what is decided."""
        await self._here.settle(topic, transaction)

    async def settle_subscription(
        self, topic: TopicName, subscription: str, transaction: TransactionId
    ) -> None:
        """Do for the acknowledgements of one subscription of this process what is decided."""
        await self._here.settle_subscription(topic, subscription, transaction)

    async def _find(self, transaction: TransactionId, role: str | None) -> Transaction:
        found = await self.store.find(transaction)
        if found.record.owner != role:
            raise TransactionNotFoundError(
                f"transaction {transaction} is not open: unknown, or over"
            )
        return found

    async def _count_one(self, coordinator: int) -> None:
        """Count a transaction that is about to be opened.

        Raises:
            TooManyRequestsError: there are too many.
        """
        known = self._counts.get(coordinator)
        if known is None or self._clock.monotonic() - known[0] >= COUNT_AGE_S:
            # Once for all who wait: it reads the keys of all, and a thousand may ask at a time.
            counting = self._counting.get(coordinator)
            if counting is None:
                counting = self._loop.create_task(self._count(coordinator))
                self._counting[coordinator] = counting
            await asyncio.shield(counting)
        counted_s, count = self._counts[coordinator]
        self._counts[coordinator] = (counted_s, count + 1)
        if count >= OPEN_MAX:
            raise TooManyRequestsError(
                f"coordinator {coordinator} has {OPEN_MAX} open transactions; end some, or wait"
            )

    async def _count(self, coordinator: int) -> None:
        try:
            count = await self.store.count(coordinator)
            self._counts[coordinator] = (self._clock.monotonic(), count)
        finally:
            del self._counting[coordinator]

    # --- deciding and finishing

    async def _decide(
        self, transaction: TransactionId, role: str | None, *, commit: bool
    ) -> Transaction:
        """Decide, unless that was done; return the transaction as it is then.

        Raises:
            InvalidTransactionStatusError: the other is decided.
        """
        wanted = State.COMMITTING if commit else State.ABORTING
        while True:
            found = await self._find(transaction, role)
            if found.record.state is State.OPEN:
                try:
                    decided = await self.store.decide(found, wanted)
                except ConflictError:
                    continue  # somebody else has decided: look what
                self._reached("decided")
                return decided
            if found.record.state is not wanted:
                raise InvalidTransactionStatusError(
                    f"transaction {transaction} is {found.record.state.value} already"
                )
            return found

    def _finish_soon(self, decided: Transaction) -> asyncio.Task[None]:
        """Return the task that finishes a decided transaction: there is one at a time."""
        task = self._finishing.get(decided.id)
        if task is None:
            task = self._loop.create_task(self._finish(decided))
            self._finishing[decided.id] = task
            task.add_done_callback(lambda _: self._finishing.pop(decided.id, None))
        return task

    async def _finish(self, decided: Transaction) -> None:
        """Have every participant do what is decided, then forget the transaction."""
        transaction = decided.id
        try:
            participants = await self.store.participants(transaction)
            told = [
                *(
                    self._tell(self._participants.settle(topic, transaction))
                    for topic, _ in participants.topics
                ),
                *(
                    self._tell(
                        self._participants.settle_subscription(
                            each.topic, each.subscription, transaction
                        )
                    )
                    for each in participants.cursors
                ),
            ]
            await asyncio.gather(*told)
            self._reached("settled")
            await self.store.finish(decided, participants)
            self._reached("finished")
        except PortError as error:
            logger.warning("transaction %s is decided, but not finished: %s", transaction, error)
            self._note(transaction)
            return
        except Exception:  # it must be tried again, whatever it was
            logger.exception("transaction %s is decided, but not finished", transaction)
            self._note(transaction)
            return
        committed = decided.record.state is State.COMMITTING
        self._figures.ended(
            committed=committed,
            timed_out=decided.record.timed_out,
            took_ms=self._clock.wall_ms() - decided.record.opened_ms,
        )
        self._outcomes[transaction] = committed
        if len(self._outcomes) > OUTCOMES_MAX:
            del self._outcomes[next(iter(self._outcomes))]
        self._changed.discard(transaction)
        self._deadlines.pop(transaction, None)

    async def _tell(self, settle: Coroutine[None, None, None]) -> None:
        async with self._settles:
            await settle
        self._reached("told")

    # --- time

    def _is_mine(self, transaction: TransactionId) -> bool:
        return transaction.most % self._workers == self._worker

    def _note(self, transaction: TransactionId) -> None:
        self._changed.add(transaction)

    def _on_change(self, keys: Iterable[str]) -> None:
        """Note which transactions have changed, of those that fall to this process."""
        for key in keys:
            transaction = TransactionId(int(key.split("/")[1], 16), number_of(key))
            if self._is_mine(transaction) and transaction not in self._outcomes:
                self._changed.add(transaction)

    async def _look_again_and_again(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:  # the next look gets its chance
                logger.exception("transactions could not be looked through")
            await asyncio.sleep(LOOK_INTERVAL_S)

    async def look(self) -> None:
        """Look at what has changed, and at the clock."""
        for transaction in list(self._changed):
            self._changed.discard(transaction)
            try:
                await self._look_at(transaction)
            except BaseException:
                self._changed.add(transaction)
                raise
        now_s = self._clock.monotonic()
        for transaction in [each for each, due in self._deadlines.items() if due <= now_s]:
            del self._deadlines[transaction]
            await self._time_out(transaction)

    async def _look_at(self, transaction: TransactionId) -> None:
        try:
            found = await self.store.find(transaction)
        except TransactionNotFoundError:
            self._deadlines.pop(transaction, None)
            return
        if found.record.state is not State.OPEN:
            self._deadlines.pop(transaction, None)
            self._finish_soon(found)
        elif transaction not in self._deadlines:
            # By the monotonic clock from now on: the other one may be set.
            left_ms = found.record.opened_ms + found.record.ttl_ms - self._clock.wall_ms()
            left_ms = min(max(left_ms, 0), found.record.ttl_ms)
            self._deadlines[transaction] = self._clock.monotonic() + left_ms / 1000

    async def _time_out(self, transaction: TransactionId) -> None:
        try:
            found = await self.store.find(transaction)
            if found.record.state is State.OPEN:
                logger.info("transaction %s is aborted: its time is up", transaction)
                found = await self.store.decide(found, State.ABORTING, timed_out=True)
        except (TransactionNotFoundError, ConflictError):
            return  # somebody was faster
        self._finish_soon(found)
