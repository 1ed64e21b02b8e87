"""A disk that fails at any call, or fills up, costs errors; never anything acknowledged."""

import errno
import os
from random import Random

import pytest

from magnetar.broker.storage.errors import LedgerSealedError, StorageError
from tests.storage.disk import SimulatedDisk, crash_states
from tests.storage.rig import Rig
from tests.storage.test_crash import check, told

CALLS = int(os.environ.get("TESTS_FAULTS", "300"))
CRASHES_PER_FAULT = 2


def fail_once(nth: int, error: int) -> object:
    def fail(step: int, what: str, path: str) -> int | None:
        return error if step == nth else None

    return fail


async def stubborn_day(rig: Rig, random: Random) -> None:
    """Go on whatever fails, as the layers above do: ask again, or open another ledger."""
    rig.create(1, 2)
    live = [1, 2]
    next_ledger = 3
    for _ in range(12):
        live = [ledger for ledger in live if ledger in rig.ledgers._writers]
        while len(live) < 2:
            rig.create(next_ledger)
            live.append(next_ledger)
            next_ledger += 1
        try:
            rig.append((live[0], random.randint(1, 9)), (live[1], random.randint(1, 9)))
            rig.append((live[1], random.randint(1, 9)))
        except LedgerSealedError:
            continue
        await rig.settle()
        try:
            if random.random() < 0.3:
                await rig.ledgers.flush()
            if random.random() < 0.2:
                await rig.ledgers.seal(live[0])
        except StorageError:
            continue
    await rig.settle()
    for ledger, end in rig.acknowledged.items():
        for _ in range(3):
            try:
                assert await rig.check(ledger) >= end
            except StorageError:
                continue
            break


@pytest.mark.timeout(200)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
async def test_a_call_that_fails_loses_nothing_acknowledged(error: int) -> None:
    for nth in range(1, CALLS // 2 + 1):
        disk = SimulatedDisk()
        rig = Rig(disk)
        disk.fail = fail_once(nth, error)  # type: ignore[assignment]
        rig.on_acknowledged = lambda done, disk=disk: disk.note(  # type: ignore[misc]
            ("acknowledged", done)
        )
        try:
            await rig.recover()
        except StorageError:
            await rig.recover()
        await stubborn_day(rig, Random(nth))
        rig.abandon()
        disk.fail = lambda step, what, path: None
        random = Random(nth)
        states = [
            state
            for state in crash_states(disk.trace, disk.folders, random, keep=0.03)
            if state.at > len(disk.trace) // 3
        ]
        for state in random.sample(states, min(CRASHES_PER_FAULT, len(states))):
            acknowledged, gone = told(state)
            try:
                (await check(state, acknowledged, gone)).abandon()
            except AssertionError as failure:
                raise AssertionError(
                    f"call {nth} fails with {errno.errorcode[error]}, then a crash at event"
                    f" {state.at}, {state.variant}: {failure}"
                ) from failure


@pytest.mark.timeout(100)
async def test_a_recovery_that_fails_can_be_repeated() -> None:
    disk = SimulatedDisk()
    rig = Rig(disk)
    await rig.recover()
    rig.create(1, 2)
    for _ in range(6):
        for _ in range(4):
            rig.append((1, 9), (2, 9))
        await rig.settle()
    rig.abandon()
    failures = 0
    for nth in range(1, CALLS // 2):
        copy = disk.clone()
        copy.fail = fail_once(nth, errno.EIO)  # type: ignore[assignment]
        again = Rig(copy)
        try:
            await again.recover()
        except StorageError:
            failures += 1
            again = Rig(copy)
            await again.recover()
        copy.fail = lambda step, what, path: None
        for ledger in (1, 2):
            assert again.ledgers.durable_end(ledger) == 216, f"call {nth} failed"
            await again.check(ledger)
        again.abandon()
    assert failures > 10


async def test_a_sync_that_fails_is_never_made_good_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The negative control: a journal that syncs the same file again loses data."""
    from magnetar.broker.storage.journal import Journal

    def sync_again(journal: Journal, pieces: list[memoryview], position: int) -> None:
        assert journal._file is not None
        journal._file.pwritev(pieces, journal._position)
        try:
            journal._file.sync()
        except OSError:
            journal._file.sync()
        journal._position = position
        journal._durable = journal._number
        journal._start = None

    lost = 0
    for retry in (False, True):
        if retry:
            monkeypatch.setattr(Journal, "_commit", sync_again)
        syncs = 0

        def fail(step: int, what: str, path: str) -> int | None:
            nonlocal syncs
            syncs += what == "sync" and "/journal/" in path
            return errno.EIO if what == "sync" and syncs == 4 else None

        disk = SimulatedDisk()
        rig = Rig(disk)
        rig.on_acknowledged = lambda done, disk=disk: disk.note(  # type: ignore[misc]
            ("acknowledged", done)
        )
        await rig.recover()
        disk.fail = fail
        rig.create(1)
        for _ in range(4):
            if 1 in rig.ledgers._writers:
                rig.append((1, 5))
            await rig.settle()
        rig.abandon()
        disk.fail = lambda step, what, path: None
        *_, last = crash_states(disk.trace, disk.folders, Random(1), variants=["lost"])
        acknowledged, gone = told(last)
        try:
            (await check(last, acknowledged, gone)).abandon()
        except AssertionError:
            assert retry, "without the second sync nothing may be lost"
            lost += 1
    assert lost == 1


@pytest.mark.timeout(60)
async def test_a_disk_that_fills_up_and_empties_again_and_again() -> None:
    disk = SimulatedDisk()
    rig = Rig(disk)
    await rig.recover()
    rig.create(1)
    random = Random(5)
    refused = 0
    for round_ in range(20):
        disk.capacity = disk.used + random.randrange(40_000)
        for _ in range(30):
            before = len(rig.errors)
            rig.append((1, 20))
            await rig.settle()
            if len(rig.errors) > before:
                refused += 1
                break
        assert await rig.check(1) == rig.acknowledged.get(1, 0), "consumers go on reading"
        disk.capacity = None
        rig.append((1, 2))
        await rig.settle()
        assert not rig.ledgers.full, f"round {round_}: it goes on by itself when there is room"
        if round_ % 4 == 0:
            await rig.ledgers.flush()
    assert refused > 10
    rig.abandon()
    after = Rig(disk)
    await after.recover()
    assert await after.check(1) == rig.acknowledged[1]
