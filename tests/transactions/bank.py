"""A whole core with a coordinator: what one process has of transactions, without its doors."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from magnetar.broker.entry import EARLIEST, EntryFlags, EntryId, TransactionId
from magnetar.broker.port import Acknowledged, PortError
from magnetar.broker.run import FLAGS, TRANSACTION, Run
from magnetar.broker.transactions.coordinator import Coordinator
from magnetar.broker.transactions.figures import Figures
from tests.topics.whole_core import Client, Core, Listener, run_of

TTL_MS = 60_000


class Bank:
    """A core, and its coordinators."""

    def __init__(self, core: Core, reached: Callable[[str], None] | None = None) -> None:
        self.core = core
        self.reached = reached or (lambda step: None)

    @classmethod
    async def on(cls, data: Path, **settings: Any) -> "Bank":
        """Start on a folder."""
        return await cls(Core(data, **settings)).start()

    async def start(self) -> "Bank":
        await self.core.start()
        catalog = self.core.catalog
        self.coordinator = Coordinator(
            self.core.store,
            catalog,
            catalog,
            worker=0,
            workers=1,
            clock=self.core.clock,
            loop=asyncio.get_running_loop(),
            figures=Figures(self.core.metrics),
            reached=self.reached,
        )
        await self.coordinator.start()
        return self

    async def stop(self) -> None:
        await self.coordinator.stop()
        await self.core.stop()

    async def restarted(self) -> "Bank":
        """Stop, and start on the same folder."""
        await self.stop()
        return await Bank(Core(self.core.config.data, self.core.clock)).start()

    async def crashed(self, data: Path) -> "Bank":
        """A start on a copy of the folder as a power loss would leave it now."""
        return await Bank(self.core.crashed(data)).start()

    # --- what clients do

    async def begin(self, ttl_ms: int = TTL_MS, role: str | None = None) -> TransactionId:
        return await self.coordinator.open(0, ttl_ms, role)

    async def commit(self, transaction: TransactionId, role: str | None = None) -> None:
        await self.coordinator.end(transaction, role, commit=True)

    async def abort(self, transaction: TransactionId, role: str | None = None) -> None:
        await self.coordinator.end(transaction, role, commit=False)

    async def producer(self, topic: str = "t", name: str | None = None) -> "Sender":
        return Sender(await self.core.producer(topic, name))

    async def consumer(self, topic: str = "t", subscription: str = "s", **options: Any) -> Listener:
        options.setdefault("from_earliest", True)
        return await self.core.consumer(topic, subscription, **options)

    async def read(self, topic: str = "t", subscription: str = "reader") -> list[str]:
        """What somebody who begins at the start is given now."""
        listener = await self.consumer(topic, subscription, durable=False)
        last = (await listener.consumer.last_message()).entry
        door = listener.door
        async with asyncio.timeout(30):
            while last > EARLIEST and (not door.received or door.received[-1][0] < last):
                door.arrived.clear()
                await door.arrived.wait()
        await asyncio.sleep(0.01)  # nothing may follow
        await listener.consumer.close()
        return door.bodies


class Sender:
    """A producer that also sends in transactions."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._sequence_id = 0

    async def send(
        self, *bodies: str, within: TransactionId | Sequence[TransactionId | None] | None = None
    ) -> list[EntryId]:
        """Publish bodies, all in one transaction or each in its own."""
        found = await self.post(*bodies, within=within)
        for place in found:
            if isinstance(place, PortError):
                raise place
        return [place for place in found if isinstance(place, EntryId)]

    async def post(
        self, *bodies: str, within: TransactionId | Sequence[TransactionId | None] | None = None
    ) -> list[EntryId | PortError]:
        """Publish bodies and return where each lies, or why not."""
        ids = range(self._sequence_id, self._sequence_id + len(bodies))
        self._sequence_id += len(bodies)
        each = [within] * len(bodies) if within is None or _is_one(within) else list(within)
        run = in_transactions(run_of(bodies, ids), each)  # type: ignore[arg-type]
        found = await asyncio.wait_for(self.client.post(run), 30)
        return [place for _, place in sorted(found, key=lambda pair: pair[0])]


def _is_one(within: object) -> bool:
    return isinstance(within, TransactionId)


def in_transactions(run: Run, each: Sequence[TransactionId | None]) -> Run:
    """Put rows into transactions, as a walker does."""
    known = list(dict.fromkeys(one for one in each if one is not None))
    if not known:
        return run
    run.transactions = known
    for row, one in enumerate(each):
        if one is not None:
            run.u32(TRANSACTION)[row] = known.index(one) + 1
            run.u32(FLAGS)[row] |= EntryFlags.TRANSACTIONAL
    return run


def ids(*places: EntryId) -> list[Acknowledged]:
    return [Acknowledged(*each) for each in places]
