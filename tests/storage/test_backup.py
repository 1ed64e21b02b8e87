"""A backup is one point in time, holds everything acknowledged before it, and opens."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from magnetar.broker.files import DiskFiles
from magnetar.broker.storage import backup as backup_module
from magnetar.broker.storage.backup import BackupError, backup, restore
from magnetar.broker.storage.verify import no_progress
from tests.storage.disk import SimulatedDisk
from tests.storage.rig import DATA, Rig, small_config

TARGET = Path("/backup")
T = TypeVar("T")


def no_metadata(source: Path, target: Path) -> None:
    """Stand in for the metadata where a test has none."""


def no_sleep(seconds: float) -> None:
    raise AssertionError("somebody holds the lock")


async def used_disk() -> tuple[SimulatedDisk, Rig]:
    disk = SimulatedDisk()
    disk.make_dir(DATA)
    disk.write_whole(DATA / "FORMAT", b"format 1")
    rig = Rig(disk)
    await rig.recover()
    rig.create(1, 2)
    rig.append((1, 20), (2, 20))
    await rig.settle()
    await rig.ledgers.flush()
    rig.append((1, 10), (2, 5))
    await rig.settle()
    return disk, rig


async def test_a_backup_holds_what_was_flushed_and_what_was_not() -> None:
    disk, rig = await used_disk()
    told: list[tuple[int, int]] = []
    copied = backup(
        DATA, TARGET, disk, no_sleep, lambda *how_far: told.append(how_far), no_metadata
    )
    assert copied.files == len(told) == 2
    rig.append((1, 10))
    await rig.settle()
    other = Rig(disk, small_config(TARGET))
    await other.recover()
    assert await other.check(1) == 30
    assert await other.check(2) == 25


async def test_a_restored_backup_is_a_folder_of_its_own() -> None:
    disk, _ = await used_disk()
    backup(DATA, TARGET, disk, no_sleep, no_progress, no_metadata)
    disk.write_whole(TARGET / "metadata.sqlite", b"facts")
    restore(TARGET, Path("/again"), disk)
    other = Rig(disk, small_config(Path("/again")))
    await other.recover()
    other.create(9)
    other.append((9, 3))
    await other.settle()
    await other.ledgers.flush()
    assert await other.check(1) == 30
    third = Rig(disk, small_config(TARGET))
    await third.recover()
    assert third.ledgers.durable_end(9) == 0
    assert disk.read(Path("/again/metadata.sqlite")) == b"facts"


async def backup_with(
    disk: SimulatedDisk, meanwhile: Callable[[], Coroutine[Any, Any, T]]
) -> list[T]:
    """Back up, and let something happen whenever the metadata has just been copied."""
    loop = asyncio.get_running_loop()
    results: list[T] = []

    def copy_metadata(source: Path, target: Path) -> None:
        results.append(asyncio.run_coroutine_threadsafe(meanwhile(), loop).result())

    await loop.run_in_executor(
        None, lambda: backup(DATA, TARGET, disk, no_sleep, no_progress, copy_metadata)
    )
    return results


async def test_a_flush_between_metadata_and_journal_makes_it_start_again() -> None:
    disk, rig = await used_disk()
    assert len(await backup_with(disk, rig.ledgers.flush)) == 2
    other = Rig(disk, small_config(TARGET))
    await other.recover()
    assert await other.check(1) == 30


async def test_a_journal_file_that_was_begun_meanwhile_is_copied_since_the_metadata_knows_it() -> (
    None
):
    disk, rig = await used_disk()

    async def begin_another() -> None:
        journal, _ = rig.ledgers.held()
        while rig.ledgers.held()[0] == journal:
            rig.append((1, 20), (2, 20))
            await rig.settle()

    assert len(await backup_with(disk, begin_another)) == 1
    other = Rig(disk, small_config(TARGET))
    recovered = await other.recover()
    assert set(rig.ledgers.held()[0]) <= recovered.journals[0]


async def test_nothing_is_unlinked_while_a_backup_runs() -> None:
    disk, rig = await used_disk()
    await rig.ledgers.flush()
    (done,) = await backup_with(disk, lambda: rig.ledgers.stored.reclaim(lambda ledger: True))
    assert done.unlinked == 0
    other = Rig(disk, small_config(TARGET))
    await other.recover()
    assert await other.check(1) == 30
    assert (await rig.ledgers.stored.reclaim(lambda ledger: True)).unlinked == 2
    assert await other.check(2) == 25, "the backup has names of its own"


async def test_a_backup_that_was_cut_off_cannot_be_restored() -> None:
    disk, _ = await used_disk()

    def fail(source: Path, target: Path) -> None:
        raise OSError("disk I/O error")

    with pytest.raises(OSError, match="I/O"):
        backup(DATA, TARGET, disk, no_sleep, no_progress, fail)
    with pytest.raises(BackupError, match="no finished backup"):
        restore(TARGET, Path("/again"), disk)


async def test_a_backup_goes_into_an_empty_folder_only() -> None:
    disk, _ = await used_disk()
    disk.make_dir(TARGET)
    disk.write_whole(TARGET / "diary.txt", b"")
    with pytest.raises(BackupError, match=r"not empty: it holds diary\.txt"):
        backup(DATA, TARGET, disk, no_sleep, no_progress, no_metadata)
    with pytest.raises(BackupError, match="no data folder"):
        backup(Path("/nowhere"), Path("/other"), disk, no_sleep, no_progress, no_metadata)


async def test_two_backups_at_once_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, _ = await used_disk()
    held = disk.lock(DATA / "reclaim.lock", "backup")
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            held.close()

    backup(DATA, TARGET, disk, sleep, no_progress, no_metadata)
    assert len(waits) == 3
    disk.lock(DATA / "reclaim.lock", "backup")
    monkeypatch.setattr(backup_module, "LOCK_ATTEMPTS_MAX", 2)
    with pytest.raises(BackupError, match="another backup runs"):
        backup(DATA, Path("/other"), disk, waits.append, no_progress, no_metadata)


@pytest.mark.timeout(60)
async def test_a_backup_taken_while_a_broker_writes_is_a_prefix(tmp_path: Path) -> None:
    """On the real disk, with threads: each backup holds all that was acknowledged before it."""
    files = DiskFiles()
    data = tmp_path / "data"
    files.make_dir(data)
    files.write_whole(data / "FORMAT", b"format 1")
    files.write_whole(data / "metadata.sqlite", b"facts")

    def copy_whole(source: Path, target: Path) -> None:
        files.write_whole(target, files.read(source))

    rig = Rig(files, small_config(data, journal_file_bytes=256 * 1024), threaded=True)
    await rig.recover()
    rig.create(1, 2)
    stop = threading.Event()
    loop = asyncio.get_running_loop()

    async def write() -> None:
        while not stop.is_set():
            rig.append((1, 20), (2, 10))
            await rig.settle()
            if rig.appended[1] % 2000 == 0:
                await rig.ledgers.flush()

    writing = loop.create_task(write())
    for number in range(4):
        await asyncio.sleep(0.05)
        acknowledged = dict(rig.acknowledged)
        target = tmp_path / f"backup-{number}"
        await loop.run_in_executor(
            None, backup, data, target, files, no_sleep, no_progress, copy_whole
        )
        other = Rig(files, small_config(target))
        recovered = await other.recover()
        assert recovered.gaps == []
        for ledger, end in acknowledged.items():
            assert other.ledgers.durable_end(ledger) >= end
            await other.check(ledger)
        other.abandon()
    stop.set()
    await writing
    await rig.ledgers.stop()
