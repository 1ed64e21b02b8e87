"""Ledgers keep what was acknowledged, in order, through flushes, restarts and hand-overs."""

import asyncio
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from magnetar.broker.clock import SystemClock
from magnetar.broker.files import DiskFiles
from magnetar.broker.storage import ledgers as ledgers_module
from magnetar.broker.storage.entry_logs import ENTRIES_FOLDER
from magnetar.broker.storage.errors import (
    LedgerNotFoundError,
    LedgerSealedError,
    QuarantinedError,
    StorageError,
    StorageFullError,
)
from magnetar.broker.storage.record import Part
from tests.storage.disk import SimulatedDisk
from tests.storage.rig import DATA, Rig, body_of, run_of, small_config


async def started(disk: SimulatedDisk | None = None) -> Rig:
    rig = Rig(disk or SimulatedDisk())
    await rig.recover()
    return rig


# --- append and commit -----------------------------------------------------------------


async def test_nothing_is_readable_before_it_is_durable() -> None:
    rig = await started()
    rig.create(1)
    rig.append((1, 3))
    assert rig.ledgers.read_cached(1, 0, 10, 1 << 20) is None
    assert rig.ledgers.durable_end(1) == 0
    await rig.settle()
    assert rig.ledgers.durable_end(1) == 3
    assert await rig.check(1) == 3


async def test_everything_of_one_turn_is_one_commit() -> None:
    rig = await started()
    rig.create(1, 2)
    commits: list[list[object]] = []
    rig.ledgers.on_commit = lambda tokens, error: commits.append(list(tokens))
    for number in range(5):
        rig.ledgers.append(run_of([b"x"]), [Part(1, number, 0, 1, "p")], number)
        rig.ledgers.note(7, b"note", f"note {number}")
    await rig.settle()
    assert commits == [[t for n in range(5) for t in (n, f"note {n}")]]


async def test_the_buffer_may_be_used_again_at_once() -> None:
    rig = await started()
    rig.create(1)
    run = run_of([body_of(1, 0)])
    buffer = bytearray(run.buffer)
    run.buffer = memoryview(buffer)
    rig.ledgers.append(run, [Part(1, 0, 0, 1, "p")], {})
    buffer[:] = bytes(len(buffer))
    await rig.settle()
    assert await rig.check(1) == 1


async def test_rows_may_come_in_any_order_and_with_holes() -> None:
    rig = await started()
    rig.create(1, 2)
    bodies = [body_of(2, 0), b"dropped", body_of(1, 0), body_of(2, 1), body_of(1, 1)]
    run = run_of(bodies).select([2, 4, 0, 3])
    rig.ledgers.append(run, [Part(1, 0, 0, 2, "p"), Part(2, 0, 2, 2, "q")], {})
    await rig.settle()
    for _ in range(2):
        assert await rig.check(1) == await rig.check(2) == 2
        await rig.ledgers.flush()


async def test_the_envelope_comes_back_as_it_was() -> None:
    rig = await started()
    rig.create(1)
    run = run_of([b"one", b"three"], index=40, publish_ms=5)
    wanted = [row._replace(offset=0) for row in run.envelopes()]
    rig.ledgers.append(run, [Part(1, 0, 0, 2, "p")], {})
    await rig.settle()
    for _ in range(2):
        found = await rig.ledgers.read(1, 0, 10, 1 << 20)
        assert [row._replace(offset=0) for row in found.envelopes()] == wanted
        await rig.ledgers.flush()


async def test_reads_keep_to_their_limits_but_return_at_least_one_entry() -> None:
    rig = await started()
    rig.create(1)
    rig.append((1, 20))
    await rig.settle()
    sizes = [len(body_of(1, entry)) for entry in range(20)]
    for _ in range(2):
        assert (await rig.ledgers.read(1, 4, 3, 1 << 20)).count == 3
        assert (await rig.ledgers.read(1, 4, 9, 1)).count == 1
        limit = sum(sizes[4:9])
        found = await rig.ledgers.read(1, 4, 99, limit)
        assert found.count == 5
        await rig.ledgers.flush()


async def test_a_sealed_ledger_takes_nothing_more() -> None:
    rig = await started()
    rig.create(1, 2)
    rig.append((1, 2))
    assert await rig.ledgers.seal(1) == 2
    with pytest.raises(LedgerSealedError):
        rig.append((2, 1), (1, 1))
    assert rig.ledgers.durable_end(2) == 0


async def test_a_ledger_that_is_not_there_is_not_found() -> None:
    rig = await started()
    with pytest.raises(LedgerNotFoundError):
        await rig.ledgers.read(77, 0, 1, 1)


async def test_a_run_larger_than_a_journal_file_gets_a_file_of_its_own() -> None:
    rig = await started()
    rig.create(1)
    big = bytes(range(256)) * 400
    rig.ledgers.append(run_of([big]), [Part(1, 0, 0, 1, "p")], {1: 1})
    rig.ledgers.append(run_of([b"after"]), [Part(1, 1, 0, 1, "p")], {1: 2})
    await rig.settle()
    rig.abandon()
    after = await started(rig.files)  # type: ignore[arg-type]
    assert await after.entries(1) == [big, b"after"]


# --- notes and what recovery tells -----------------------------------------------------


async def test_notes_come_back_in_order_until_they_are_safe_elsewhere() -> None:
    disk = SimulatedDisk()
    rig = await started(disk)
    rig.create(1)
    for number in range(5):
        rig.ledgers.note(number % 2, b"%d" % number)
        rig.append((1, 1))
    await rig.settle()
    rig.abandon()
    wanted = [(number % 2, b"%d" % number) for number in range(5)]
    for _ in range(2):
        again = Rig(disk)
        assert (await again.recover()).notes == wanted
        again.abandon()
    last = Rig(disk)
    await last.recover()
    order: list[str] = []

    async def keep_notes() -> None:
        order.append("kept")
        assert any(name.endswith(".journal") and "spare" not in name for name in disk.names)

    last.ledgers.before_recycle = keep_notes
    last.ledgers.note(9, b"new")
    await last.ledgers.flush()
    assert order == ["kept"]
    assert (await Rig(disk).recover()).notes == []


async def test_recovery_tells_the_highest_sequence_of_each_producer() -> None:
    disk = SimulatedDisk()
    rig = await started(disk)
    rig.create(1, 2)
    rig.ledgers.append(
        run_of([b"a", b"b", b"c"], index=10),
        [Part(1, 0, 0, 2, "zo\N{LATIN SMALL LETTER E WITH DIAERESIS}"), Part(2, 0, 2, 1, "")],
        {},
    )
    rig.ledgers.append(run_of([b"d"], index=30), [Part(1, 2, 0, 1, "adam")], {})
    await rig.settle()
    rig.abandon()
    recovered = await Rig(disk).recover()
    assert recovered.producers == {1: {"zo\N{LATIN SMALL LETTER E WITH DIAERESIS}": 11, "adam": 30}}
    end = recovered.ends[1]
    assert (end.end, end.first_index, end.next_index) == (3, 10, 31)
    assert (end.publish_first_ms, end.publish_last_ms) == (1_010, 1_030)
    assert end.bytes == 3
    assert recovered.bytes_replayed > 0


async def test_what_lies_beyond_a_recorded_end_is_ignored() -> None:
    disk = SimulatedDisk()
    rig = await started(disk)
    rig.create(1, 2)
    rig.append((1, 5), (2, 5))
    rig.append((1, 5))
    await rig.settle()
    rig.abandon()
    after = Rig(disk)
    recovered = await after.recover(recorded_end=lambda ledger: 7 if ledger == 1 else None)
    assert {ledger: end.end for ledger, end in recovered.ends.items()} == {1: 7, 2: 5}
    assert await after.check(1) == 7


# --- flush, recycling, caches ----------------------------------------------------------


async def test_journal_files_are_used_again_after_a_flush() -> None:
    disk = SimulatedDisk()
    rig = await started(disk)
    rig.create(1)
    for _ in range(30):
        for _ in range(6):
            rig.append((1, 30))
        await rig.settle()
        await rig.ledgers.flush()
    journal = [name for name in disk.names if "/journal/" in name]
    assert len(journal) <= 6
    assert await rig.check(1) == 30 * 6 * 30


async def test_the_write_cache_flushes_itself_before_it_is_full() -> None:
    disk = SimulatedDisk()
    rig = Rig(disk, small_config(write_cache_bytes_max=256 * 1024))
    await rig.recover()
    rig.create(1)
    for _ in range(60):
        rig.append((1, 100))
        await rig.settle()
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert rig.ledgers.write_cache_bytes <= 256 * 1024
    assert await rig.check(1) == 6000


async def test_readers_keep_what_they_hold_when_its_slab_is_used_again() -> None:
    rig = Rig(SimulatedDisk(), small_config(write_cache_bytes_max=256 * 1024))
    await rig.recover()
    rig.create(1)
    rig.append((1, 5))
    await rig.settle()
    held = rig.ledgers.read_cached(1, 0, 5, 1 << 20)
    assert held is not None
    for _ in range(5):
        await rig.ledgers.flush()
        rig.append((1, 50))
        await rig.settle()
    assert [bytes(held.body(row)) for row in range(5)] == [body_of(1, row) for row in range(5)]


async def test_publishing_pauses_until_the_cache_is_flushed() -> None:
    rig = Rig(SimulatedDisk(), small_config(write_cache_bytes_max=256 * 1024))
    await rig.recover()
    rig.create(1)
    await rig.ledgers._flush_lock.acquire()
    while not rig.ledgers.congested:
        rig.append((1, 200))
        await rig.settle()
    cleared: list[bool] = []
    rig.ledgers.call_when_clear(lambda: cleared.append(True))
    assert cleared == []
    rig.ledgers._flush_lock.release()
    await rig.ledgers.flush()
    assert cleared == [True]
    assert not rig.ledgers.congested
    assert await rig.check(1) == rig.appended[1]


async def test_publishing_is_to_be_refused_while_the_cache_is_full_and_cannot_be_flushed() -> None:
    disk = SimulatedDisk()
    rig = Rig(disk, small_config(write_cache_bytes_max=256 * 1024))
    await rig.recover()
    rig.create(1)
    told: list[bool] = []
    rig.ledgers.on_stuck = lambda: told.append(rig.ledgers.stuck)
    disk.fail = lambda step, what, path: errno.ENOSPC if "/entries/" in path else None
    while not rig.ledgers.stuck:
        rig.append((1, 200))
        await rig.settle()
    cleared: list[bool] = []
    rig.ledgers.call_when_clear(lambda: cleared.append(True))
    with pytest.raises(StorageError):
        await rig.ledgers.flush()
    await asyncio.sleep(0)
    assert cleared == [True], "who waited is told, instead of waiting for somebody to clean up"
    assert told[-1]
    assert rig.ledgers.full
    disk.fail = lambda step, what, path: None
    await rig.ledgers.flush()
    await asyncio.sleep(0)
    assert told[-1] is False
    assert not rig.ledgers.full
    assert await rig.check(1) == rig.appended[1]


async def test_the_read_cache_stays_within_its_bound() -> None:
    rig = Rig(SimulatedDisk(), small_config(read_cache_bytes_max=1 << 20))
    await rig.recover()
    rig.create(1)
    big = bytes(64 * 1024)
    for entry in range(64):
        rig.ledgers.append(run_of([big]), [Part(1, entry, 0, 1, "p")], {1: entry + 1})
    await rig.ledgers.flush()
    assert len(await rig.entries(1)) == 64
    assert rig.ledgers.stored.cached_bytes <= 1 << 20


async def test_settings_that_are_changed_hold_at_once() -> None:
    rig = Rig(SimulatedDisk(), small_config(read_cache_bytes_max=8 << 20))
    await rig.recover()
    rig.create(1)
    big = bytes(64 * 1024)
    for entry in range(64):
        rig.ledgers.append(run_of([big]), [Part(1, entry, 0, 1, "p")], {1: entry + 1})
    await rig.ledgers.flush()
    assert len(await rig.entries(1)) == 64
    assert rig.ledgers.stored.cached_bytes > 1 << 20
    rig.config.read_cache_bytes_max = 1 << 20
    rig.config.journal_window_ms = 1.5
    rig.config.journal_window_bytes = 8192
    rig.ledgers.settings_changed()
    assert rig.ledgers.stored.cached_bytes <= 1 << 20
    committer = rig.ledgers._committer
    assert committer is not None
    assert (committer.window_s, committer.window_bytes) == (0.0015, 8192)


async def test_a_cold_read_brings_the_next_blocks_along() -> None:
    rig = await started()
    rig.create(1)
    for _ in range(50):
        rig.append((1, 100))
    await rig.ledgers.flush()
    await rig.check(1)
    assert rig.ledgers.stored._cold_reads.value <= 3


# --- failures --------------------------------------------------------------------------


def at_nth(what: str, nth: int, error: int) -> Callable[[int, str, str], int | None]:
    """Fail the nth call of a kind on a journal file."""
    seen = 0

    def fail(step: int, kind: str, path: str) -> int | None:
        nonlocal seen
        if kind != what or "/journal/" not in path:
            return None
        seen += 1
        return error if seen == nth else None

    return fail


async def test_a_failed_sync_seals_what_it_touched_and_is_not_repeated() -> None:
    disk = SimulatedDisk()
    rig = await started(disk)
    rig.create(1, 2, 3)
    rig.append((1, 4), (2, 4), (3, 4))
    await rig.settle()
    disk.fail = at_nth("sync", 1, errno.EIO)
    rig.append((1, 2))
    rig.append((2, 3))
    await rig.settle()
    assert sorted(rig.cuts) == [(1, 4, True), (2, 4, True)]
    (error,) = rig.errors
    assert not isinstance(error, StorageFullError)
    assert rig.acknowledged == {1: 4, 2: 4, 3: 4}
    with pytest.raises(LedgerSealedError):
        rig.append((1, 1))
    rig.create(4)
    rig.append((3, 2), (4, 2))
    await rig.settle()
    assert rig.acknowledged[3] == 6
    rig.abandon()
    after = await started(disk)
    assert {n: after.ledgers.durable_end(n) for n in (1, 2, 3, 4)} == {1: 4, 2: 4, 3: 6, 4: 2}
    for ledger in (1, 2, 3, 4):
        await after.check(ledger)


async def test_what_came_after_a_failed_sync_fails_with_it() -> None:
    disk = SimulatedDisk()
    rig = await started(disk)
    rig.create(1, 2)
    disk.fail = at_nth("sync", 2, errno.EIO)  # the first one makes the file
    rig.append((1, 2))

    def append_behind() -> None:
        rig.append((2, 2))

    asyncio.get_running_loop().call_soon(append_behind)
    await rig.settle()
    await rig.settle()
    assert rig.acknowledged.get(1, 0) == 0
    assert rig.ledgers.durable_end(1) == 0


async def test_no_room_for_a_journal_file_is_told_and_passes() -> None:
    disk = SimulatedDisk()
    rig = await started(disk)
    rig.create(1)
    rig.append((1, 5))
    await rig.settle()
    disk.capacity = disk.used
    while not rig.errors:
        rig.append((1, 20))
        await rig.settle()
    assert isinstance(rig.errors[0], StorageFullError)
    assert rig.ledgers.full
    ledger, end, sealed = rig.cuts[0]
    assert (ledger, end, sealed) == (1, rig.acknowledged[1], False)
    assert await rig.check(1) == end, "consumers go on reading"
    disk.capacity = None
    rig.append((1, 3))
    await rig.settle()
    assert not rig.ledgers.full
    assert rig.acknowledged[1] == end + 3
    assert await rig.check(1) == end + 3


async def test_a_flush_without_room_loses_nothing_and_is_repeated() -> None:
    disk = SimulatedDisk()
    rig = await started(disk)
    rig.create(1)
    rig.append((1, 30))
    await rig.settle()
    disk.fail = lambda step, what, path: (
        errno.ENOSPC if what == "write" and "/entries/" in path else None
    )
    with pytest.raises(StorageError):
        await rig.ledgers.flush()
    assert not [name for name in disk.names if name.endswith(".tmp")]
    assert await rig.check(1) == 30
    rig.append((1, 2))
    await rig.settle()
    disk.fail = lambda step, what, path: None
    await rig.ledgers.flush()
    assert await rig.check(1) == 32
    assert not rig.ledgers._generation.tails


async def test_reads_that_fail_are_repeated_before_they_count_as_damage() -> None:
    disk = SimulatedDisk()
    rig = await started(disk)
    rig.create(1)
    rig.append((1, 10))
    await rig.ledgers.flush()
    fails = 2

    def fail(step: int, what: str, path: str) -> int | None:
        nonlocal fails
        if what == "read" and path.endswith(".log") and fails:
            fails -= 1
            return errno.EIO
        return None

    disk.fail = fail
    for _ in range(2):
        with pytest.raises(StorageError) as raised:
            await rig.ledgers.read(1, 0, 10, 1 << 20)
        assert not isinstance(raised.value, QuarantinedError)
    assert await rig.check(1) == 10


# --- hand-over and other processes -----------------------------------------------------


async def test_another_process_reads_what_was_sealed_and_flushed() -> None:
    disk = SimulatedDisk()
    giver = Rig(disk, small_config(worker=0, workers=2))
    taker = Rig(disk, small_config(worker=1, workers=2))
    await giver.recover(0)
    await taker.recover(1)
    giver.create(1)
    giver.append((1, 12))
    assert await giver.ledgers.seal(1) == 12
    await giver.ledgers.flush()
    assert (await taker.ledgers.stored.end_of(1)).end == 12
    assert await taker.check(1, 12) == 12
    taker.create(2)
    taker.append((2, 3))
    await taker.settle()
    assert await taker.check(2) == 3


async def test_a_log_rewritten_by_another_process_is_found_again() -> None:
    disk = SimulatedDisk()
    writer = Rig(disk, small_config(worker=0, workers=2))
    reader = Rig(disk, small_config(worker=1, workers=2, read_cache_bytes_max=1 << 20))
    await writer.recover(0)
    await reader.recover(1)
    writer.create(1, 2)
    writer.append((1, 90), (2, 5))
    await writer.ledgers.flush()
    assert await reader.check(2, 5) == 5
    assert (await writer.ledgers.stored.reclaim(lambda ledger: ledger == 1)).rewritten == 1
    for name in reader.ledgers.stored.extents.names():
        reader.ledgers.stored._shelf.forget(name)
    assert await reader.check(2, 5) == 5
    with pytest.raises(LedgerNotFoundError):
        await reader.ledgers.read(1, 0, 1, 1)


async def test_worker_0_takes_over_the_journal_of_a_worker_that_is_gone() -> None:
    disk = SimulatedDisk()
    gone = Rig(disk, small_config(worker=1, workers=2))
    await gone.recover(1)
    gone.create(5)
    gone.append((5, 9))
    gone.ledgers.note(3, b"mark")
    await gone.settle()
    gone.abandon()
    rig = Rig(disk)
    recovered = await rig.recover(0, 1)
    assert recovered.notes == [(3, b"mark")]
    assert await rig.check(5) == 9
    await rig.ledgers.flush()
    assert not [name for name in disk.names if "/journal/1" in name]
    assert f"{DATA}/journal/1" not in disk.folders


# --- reclamation -----------------------------------------------------------------------


async def test_a_log_without_live_ledgers_is_unlinked() -> None:
    disk = SimulatedDisk()
    rig = await started(disk)
    rig.create(1, 2)
    rig.append((1, 10))
    await rig.ledgers.flush()
    rig.append((2, 10))
    await rig.ledgers.seal(1)
    assert rig.ledgers.holds(1)
    await rig.ledgers.flush()
    done = await rig.ledgers.stored.reclaim(lambda ledger: ledger == 1)
    assert (done.unlinked, done.rewritten, done.bytes_written) == (1, 0, 0)
    assert done.bytes_freed > 0
    assert not rig.ledgers.holds(1)
    assert rig.ledgers.holds(2)
    assert await rig.check(2) == 10
    assert len([name for name in disk.names if name.endswith(".log")]) == 1


async def test_a_log_below_half_is_rewritten_and_nothing_live_is_lost() -> None:
    disk = SimulatedDisk()
    rig = await started(disk)
    rig.create(1, 2, 3)
    rig.append((1, 80), (2, 10), (3, 10))
    await rig.ledgers.flush()
    rig.append((2, 5))
    await rig.ledgers.flush()
    before = disk.used
    done = await rig.ledgers.stored.reclaim(lambda ledger: ledger == 1)
    assert (done.unlinked, done.rewritten) == (1, 1)
    assert disk.used < before
    assert await rig.check(2) == 15
    assert await rig.check(3) == 10
    assert (await rig.ledgers.stored.reclaim(lambda ledger: ledger == 1)).unlinked == 0
    again = await started(disk)
    assert await again.check(2) == 15


async def test_many_small_logs_become_one() -> None:
    disk = SimulatedDisk()
    rig = await started(disk)
    rig.create(1, 2)
    for _ in range(20):
        rig.append((1, 3), (2, 2))
        await rig.ledgers.flush()
    assert (await rig.ledgers.stored.reclaim(lambda ledger: False)).rewritten == 20
    assert len([name for name in disk.names if name.endswith(".log")]) == 1
    assert await rig.check(1) == 60
    assert await rig.check(2) == 40
    assert len(rig.ledgers.stored.extents.of(1)) == 1


async def test_only_what_is_known_as_dropped_is_garbage() -> None:
    rig = await started()
    rig.create(1, 99)
    rig.append((1, 5), (99, 50))
    await rig.ledgers.flush()
    assert (await rig.ledgers.stored.reclaim(lambda ledger: ledger == 12)).unlinked == 0
    assert rig.ledgers.stored.ledgers() == [1, 99]


async def test_a_log_with_damage_is_not_rewritten() -> None:
    disk = SimulatedDisk()
    rig = await started(disk)
    rig.create(1, 2)
    rig.append((1, 80), (2, 10))
    await rig.ledgers.flush()
    name = next(name for name in disk.names if name.endswith(".log"))
    content = bytearray(disk.names[name].data)
    at = content.index(body_of(2, 4)) - 3 - 80 * 6
    content[at] ^= 255  # in the rows of ledger 2
    disk.replace(name, content)
    done = await rig.ledgers.stored.reclaim(lambda ledger: ledger == 1)
    assert done.unlinked == 0
    assert name in disk.names


async def test_a_damaged_entry_stays_damaged_when_its_log_is_rewritten() -> None:
    disk = SimulatedDisk()
    rig = await started(disk)
    rig.create(1, 2)
    rig.append((1, 80), (2, 10))
    await rig.ledgers.flush()
    name = next(name for name in disk.names if name.endswith(".log"))
    content = bytearray(disk.names[name].data)
    content[content.index(body_of(2, 4)) + 1] ^= 255
    disk.replace(name, content)
    assert (await rig.ledgers.stored.reclaim(lambda ledger: ledger == 1)).rewritten == 1
    assert len(await rig.entries(2, 0, 4)) == 4
    with pytest.raises(QuarantinedError) as damaged:
        await rig.ledgers.read(2, 4, 1, 1)
    assert (damaged.value.first, damaged.value.last) == (4, 4)
    assert len(await rig.entries(2, 5, 10)) == 5


# --- the real disk ---------------------------------------------------------------------


async def test_it_works_on_a_real_disk_with_threads(tmp_path: Path) -> None:
    config = small_config(tmp_path / "data", journal_file_bytes=64 * 1024)
    rig = Rig(DiskFiles(), config, threaded=True)
    await rig.recover()
    rig.create(1, 2)
    for _ in range(40):
        rig.append((1, 20), (2, 7))
        rig.ledgers.note(1, b"n")
    await rig.settle()
    await rig.ledgers.flush()
    rig.append((1, 20))
    await rig.settle()
    assert rig.acknowledged == {1: 820, 2: 280}
    rig.abandon()
    again = Rig(DiskFiles(), config, threaded=True)
    await again.recover()
    assert await again.check(1) == 820
    assert await again.check(2) == 280
    await again.ledgers.stop()
    modes = {path.stat().st_mode & 0o777 for path in config.data.rglob("*") if path.is_file()}
    assert modes == {0o600}


async def test_a_last_flush_that_fails_is_told_and_everything_stays_in_the_journal(
    tmp_path: Path,
) -> None:
    config = small_config(tmp_path / "data")
    rig = Rig(DiskFiles(), config, threaded=True)
    await rig.recover()
    rig.create(1)
    rig.append((1, 20))
    await rig.settle()
    shutil.rmtree(config.data / "entries")
    with pytest.raises(StorageError, match="not all is in entry logs"):
        await rig.ledgers.stop()
    again = Rig(DiskFiles(), config, threaded=True)
    await again.recover()
    assert await again.check(1) == 20
    await again.ledgers.stop()


async def test_a_commit_window_gathers(tmp_path: Path) -> None:
    config = small_config(tmp_path / "data", journal_window_ms=2)
    rig = Rig(DiskFiles(), config, threaded=True)
    rig.ledgers._clock = SystemClock()
    await rig.recover()
    rig.create(1)
    rig.append((1, 1))
    await asyncio.wait_for(rig.settle(), 30)
    assert rig.acknowledged == {1: 1}
    await rig.ledgers.stop()


@pytest.mark.skipif(os.name != "posix", reason="needs /proc")
async def test_reading_a_long_backlog_does_not_grow_memory(tmp_path: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    config = small_config(
        tmp_path / "data", journal_file_bytes=4 << 20, read_cache_bytes_max=4 << 20
    )
    rig = Rig(DiskFiles(), config, threaded=True)
    await rig.recover()
    rig.create(1)
    run = run_of([bytes(1024)] * 250)
    for entry in range(0, 60_000, 250):
        rig.ledgers.append(run, [Part(1, entry, 0, 250, "p")], {1: entry + 250})
        clear = asyncio.Event()
        rig.ledgers.call_when_clear(clear.set)
        await clear.wait()
    await rig.ledgers.flush()

    async def read_all() -> int:
        entry = 0
        while entry < 60_000:
            found = await rig.ledgers.read(1, entry, 1000, 1 << 20)
            entry += found.count
        return resident()

    first = await read_all()
    last = first
    for _ in range(2):
        last = await read_all()
    assert last - first < 8 << 20
    await rig.ledgers.stop()


def test_the_folders_are_those_that_the_data_folder_names() -> None:
    assert ledgers_module.JOURNAL_FOLDER == "journal"
    assert ENTRIES_FOLDER == "entries"


async def test_a_flush_is_not_put_off_by_who_changes_settings_all_the_time() -> None:
    rig = await started()
    rig.config.flush_interval_s = 0.2
    rig.create(1)
    rig.append((1, 1))
    await rig.settle()
    for _ in range(40):
        rig.ledgers.settings_changed()
        await asyncio.sleep(0.01)
    assert rig.ledgers.stored.end(1) == 1
    await rig.ledgers.stop()
