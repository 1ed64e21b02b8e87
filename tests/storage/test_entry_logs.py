"""Entry logs belong to all processes of a folder: each finds, reads and gives back its part."""

import pytest

from magnetar.broker.entry import EntryId
from magnetar.broker.storage.errors import Gap, LedgerNotFoundError, QuarantinedError
from tests.storage.disk import SimulatedDisk
from tests.storage.rig import Rig, body_of, small_config


async def flushed(disk: SimulatedDisk, worker: int = 0, ledger: int = 1, entries: int = 50) -> Rig:
    rig = Rig(disk, small_config(worker=worker, workers=2))
    await rig.recover(worker)
    rig.create(ledger)
    rig.append((ledger, entries))
    await rig.ledgers.flush()
    return rig


async def test_what_is_stored_is_told_by_ledger() -> None:
    stored = (await flushed(SimulatedDisk())).ledgers.stored
    assert stored.ledgers() == [1]
    assert (stored.end(1), stored.entries(1)) == (50, 50)
    assert stored.missing(1, 60) == [(50, 60)]
    assert (stored.end(2), stored.entries(2), stored.missing(2, 3)) == (0, 0, [(0, 3)])
    assert (await stored.end_of(1)).end == 50


async def test_an_entry_is_brought_into_memory_before_it_is_read() -> None:
    stored = (await flushed(SimulatedDisk())).ledgers.stored
    assert stored.read_cached(1, 7, 3, 1 << 20) is None
    brought = await stored.read(1, 7, 3, 1 << 20)
    assert brought is not None
    assert brought.count == 3
    run = stored.read_cached(1, 7, 3, 1 << 20)
    assert run is not None
    assert [bytes(run.body(row)) for row in range(3)] == [body_of(1, 7 + row) for row in range(3)]
    assert stored.cached_bytes > 0


async def test_what_another_process_has_written_is_found_when_it_is_asked_for() -> None:
    disk = SimulatedDisk()
    reader = (await flushed(disk, worker=1, ledger=2)).ledgers.stored
    await flushed(disk, worker=0, ledger=1)
    assert reader.end(1) == 0
    await reader.read(1, 0, 1, 1)
    assert reader.read_cached(1, 0, 1, 1) is not None


async def test_an_entry_that_nobody_wrote_is_not_there() -> None:
    stored = (await flushed(SimulatedDisk())).ledgers.stored
    with pytest.raises(LedgerNotFoundError):
        await stored.read(1, 50, 1, 1)
    with pytest.raises(LedgerNotFoundError):
        await stored.read(3, 0, 1, 1)


async def test_a_loss_that_was_reported_is_a_gap_from_then_on() -> None:
    stored = (await flushed(SimulatedDisk())).ledgers.stored
    gap = Gap(EntryId(1, 50), EntryId(1, 59), "gone")
    await stored.report_lost("lost", [gap], "gone")
    assert stored.quarantined() == [gap]
    assert stored.lost_end(1) == 60
    with pytest.raises(QuarantinedError) as lost:
        await stored.read(1, 55, 1, 1)
    assert lost.value.last == 59
