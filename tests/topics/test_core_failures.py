"""The whole core on a disk that fails, fills up and is cut off: nothing confirmed is lost.

The clients here do what real ones do: what was refused, or never confirmed, they send again
from the first such entry on, over a new producer of the same name.
"""

import asyncio
import copy
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import pytest

from magnetar.broker.clock import ManualClock
from magnetar.broker.entry import EntryId
from magnetar.broker.metadata.memory import MemoryStore
from magnetar.broker.port import PortError
from magnetar.broker.topics import catalog
from magnetar.broker.topics.producers.deduplication import Sequences
from magnetar.broker.topics.producers.publishing import Publisher
from magnetar.names import TopicName
from tests.storage.disk import VARIANTS, SimulatedDisk, crash_states
from tests.topics.whole_core import Client, Core, run_of

DATA = Path("/data")


def core_on(
    disk: SimulatedDisk, facts: MemoryStore | None = None, *, deduplication: bool = True
) -> Core:
    return Core(
        DATA,
        ManualClock(),
        disk,
        facts,
        ledger_entries_max=7,
        deduplication=deduplication,
        cursor_interval_ms=1,
    )


class Stubborn:
    """A client that sends numbers in order and resends until each is confirmed."""

    def __init__(self, core: Core, topic: str, name: str, random: Random) -> None:
        self.core = core
        self.topic = topic
        self.name = name
        self.random = random
        self.epoch = 0
        self.confirmed: list[int] = []
        self.client: Client | None = None
        self.attempts = 0

    async def send_up_to(self, last: int) -> None:
        """Return once everything up to `last` is confirmed."""
        while len(self.confirmed) <= last:
            self.attempts += 1
            assert self.attempts < 200, "it goes in circles"
            try:
                await self._send_rest(last)
            except PortError:
                self.client = None
                self.epoch += 1
                await asyncio.sleep(0.001)

    async def _send_rest(self, last: int) -> None:
        if self.client is None:
            self.client = await self.core.producer(self.topic, self.name, epoch=self.epoch)
        posted = []
        next_id = len(self.confirmed)
        while next_id <= last:
            count = min(self.random.randint(1, 5), last + 1 - next_id)
            ids = range(next_id, next_id + count)
            posted.append(self.client.post(run_of([f"{self.name}/{i}" for i in ids], ids)))
            next_id += count
            if self.random.random() < 0.5:
                await asyncio.sleep(0)
        results = [each for group in await asyncio.gather(*posted) for each in group]
        refused = False
        for sequence_id, place in results:
            if isinstance(place, EntryId):
                assert not refused, "something was stored after something was refused"
                assert sequence_id == len(self.confirmed), "receipts come in order"
                self.confirmed.append(sequence_id)
            else:
                refused = True
        if refused:
            raise PortError("refused")


async def stored(core: Core, topic: str, name: str) -> list[int]:
    """The numbers of one producer as a new subscription gets them."""
    log = (await core.catalog.topic(TopicName.parse(topic))).log
    count = log.distance(log.first, log.end)
    bodies = await (await core.consumer(topic, "check", from_earliest=True)).bodies(count)
    await core.catalog.delete_subscription(TopicName.parse(topic), "check", force=True)
    return [int(body.split("/")[1]) for body in bodies if body.split("/")[0] == name]


def without_repeats(numbers: list[int]) -> list[int]:
    """Keep the first copy of each number."""
    return list(dict.fromkeys(numbers))


async def fail_and_resend(seed: int) -> None:
    """Publish over syncs that fail, with deduplication."""
    random = Random(seed)
    disk = SimulatedDisk()
    core = await core_on(disk).start()
    clients = [
        Stubborn(core, topic, name, random) for topic, name in (("t", "a"), ("t", "b"), ("u", "c"))
    ]

    touched = 0

    def fail(step: int, what: str, path: str) -> int | None:
        nonlocal touched
        if "journal" not in path or what not in {"sync", "write"}:
            return None
        touched += 1
        return errno.EIO if touched == 3 or random.random() < 0.15 else None

    disk.fail = fail
    await asyncio.gather(*(client.send_up_to(40) for client in clients))
    disk.fail = lambda step, what, path: None
    for client in clients:
        assert await stored(core, client.topic, client.name) == list(range(41))
    assert sum(client.epoch for client in clients) > 0, "no failure was met"
    await core.stop()


@pytest.mark.parametrize("seed", range(6))
async def test_without_deduplication_failed_syncs_lose_nothing_and_keep_the_order(
    seed: int,
) -> None:
    random = Random(seed)
    disk = SimulatedDisk()
    core = await core_on(disk, deduplication=False).start()
    client = Stubborn(core, "t", "a", random)

    def fail(step: int, what: str, path: str) -> int | None:
        return errno.EIO if what == "sync" and random.random() < 0.2 else None

    disk.fail = fail
    await client.send_up_to(40)
    disk.fail = lambda step, what, path: None
    assert without_repeats(await stored(core, "t", "a")) == list(range(41))
    await core.stop()


async def test_a_full_disk_refuses_and_goes_on_when_there_is_room_again() -> None:
    disk = SimulatedDisk()
    core = await core_on(disk).start()
    client = await core.producer("t", "p")
    await client.send("kept")
    disk.capacity = disk.used
    refused = 0
    for number in range(1, 400):
        try:
            client = await core.producer("t", "p", epoch=number)
            await client.send("x" * 10_000, first_sequence_id=number)
        except PortError:
            refused += 1
            break
    assert refused
    disk.capacity = None
    client = await core.producer("t", "p", epoch=1000)
    await client.send("after", first_sequence_id=1000)
    bodies = await (await core.consumer("t", from_earliest=True)).bodies(number + 1)
    assert (bodies[0], bodies[-1]) == ("kept", "after")
    await core.stop()


async def cut_and_resend(seed: int) -> None:
    """Publish over power cuts, with deduplication."""
    random = Random(seed)
    disk = SimulatedDisk()
    disk.start_trace()
    core = await core_on(disk).start()
    clients = [
        Stubborn(core, topic, name, random) for topic, name in (("t", "a"), ("t", "b"), ("u", "c"))
    ]
    for round_ in range(3):
        tasks = [asyncio.ensure_future(c.send_up_to(15 * (round_ + 1))) for c in clients]
        for _ in range(random.randint(0, 60)):
            await asyncio.sleep(0)
        if random.random() < 0.4:
            await core.ledgers.flush()
        # The power goes while some of it is on its way.
        confirmed = [list(client.confirmed) for client in clients]
        facts = copy.deepcopy(core.facts._values), core.facts._last_change
        variant = random.choice(VARIANTS)
        *_, state = crash_states(disk.trace, disk.folders, random, [variant])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await core.stop()

        disk = state.disk
        disk.folders |= core.disk.folders if core.disk else set()
        disk.start_trace()
        store = MemoryStore()
        store._values, store._last_change = facts
        core = await core_on(disk, store).start()
        for client, sent in zip(clients, confirmed, strict=True):
            client.core, client.client, client.confirmed = core, None, sent
            client.epoch += 1
    await asyncio.gather(*(client.send_up_to(60) for client in clients))
    for client in clients:
        assert await stored(core, client.topic, client.name) == list(range(61))
    await core.stop()


@pytest.mark.parametrize("seed", range(12))
async def test_syncs_that_fail_lose_nothing_and_double_nothing_with_deduplication(
    seed: int,
) -> None:
    await fail_and_resend(seed)


@pytest.mark.parametrize("seed", range(20))
async def test_a_power_cut_loses_nothing_confirmed_and_resending_doubles_nothing(
    seed: int,
) -> None:
    await cut_and_resend(seed)


# --- would the tests above notice?


async def test_it_is_noticed_if_the_journal_is_not_read_back_for_deduplication(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def forget(_store: object, _recovered: object) -> None:
        return

    monkeypatch.setattr(catalog, "save_recovered", forget)
    assert await any_fails(cut_and_resend)


async def test_it_is_noticed_if_what_failed_counts_as_being_on_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Sequences, "failed", lambda _sequences, _name: None)
    assert await any_fails(fail_and_resend)


async def test_it_is_noticed_if_a_producer_may_go_on_after_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Publisher, "refusal_for", lambda _publisher, _producer: None)
    assert await any_fails(fail_and_resend)


async def any_fails(scenario: Callable[[int], Awaitable[None]]) -> bool:
    """Return whether one of some seeds ends in a failed check."""
    for seed in range(20):
        try:
            await asyncio.wait_for(scenario(seed), 60)
        except (AssertionError, TimeoutError):
            return True
    return False
