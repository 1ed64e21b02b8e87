"""The journal writes in order, recycles its files, and never trusts one that failed."""

import errno
from itertools import count

import pytest

from magnetar.broker.storage.cache import CachedRecord, Generation
from magnetar.broker.storage.journal import SPARES_MAX, Journal, JournalError, file_number
from magnetar.broker.storage.record import HEADER_SIZE, Kind, aligned
from magnetar.broker.storage.replay import Damage, Found, walk
from tests.storage.disk import SimulatedDisk
from tests.storage.rig import DATA

FOLDER = DATA / "journal" / "0"
FILE_BYTES = 4096


def journal_on(disk: SimulatedDisk) -> Journal:
    disk.make_dir(FOLDER)
    salts = count(1000)
    return Journal(
        FOLDER, disk, FILE_BYTES, next_file=1, last_number=0, new_salt=lambda: next(salts)
    )


def note(generation: Generation, payload: bytes) -> CachedRecord:
    body_at = HEADER_SIZE + 8
    data = bytearray(aligned(body_at + len(payload)))
    data[body_at : body_at + len(payload)] = payload
    record = CachedRecord(generation, memoryview(data), 0, len(data), Kind.NOTE, None, ())
    record.directory_size = 8
    record.body_size = len(payload)
    return record


def write_all(journal: Journal, records: list[CachedRecord]) -> int:
    done = calls = 0
    while done < len(records):
        done = journal.write(records, done)
        calls += 1
    return calls


def records_of(disk: SimulatedDisk, number: int) -> list[tuple[int, Kind, int, int]]:
    file = disk.open(FOLDER / f"{number:016x}.journal")
    return [
        (item.position, Kind(item.header.kind), item.header.number, item.header.synced)
        for item in walk(file, number)
        if isinstance(item, Found)
    ]


def test_records_follow_the_start_without_a_gap() -> None:
    disk = SimulatedDisk()
    journal = journal_on(disk)
    generation = Generation()
    assert write_all(journal, [note(generation, b"x"), note(generation, b"y")]) == 1
    assert write_all(journal, [note(generation, b"z")]) == 1
    assert records_of(disk, 1) == [
        (0, Kind.START, 1, 0),
        (72, Kind.NOTE, 2, 0),
        (160, Kind.NOTE, 3, 0),
        (248, Kind.NOTE, 4, 3),
    ]


def test_one_commit_is_one_write_and_one_sync() -> None:
    disk = SimulatedDisk()
    journal = journal_on(disk)
    generation = Generation()
    write_all(journal, [note(generation, b"first")])
    before = disk.steps
    write_all(journal, [note(generation, b"%d" % n) for n in range(20)])
    assert disk.steps - before == 2


def test_a_full_file_is_followed_by_the_next() -> None:
    disk = SimulatedDisk()
    journal = journal_on(disk)
    generation = Generation()
    write_all(journal, [note(generation, bytes(1000)) for _ in range(8)])
    assert [path.name for path in generation.files] == [f"{n:016x}.journal" for n in (1, 2, 3)]
    assert [kind for _, kind, _, _ in records_of(disk, 2)][:2] == [Kind.START, Kind.NOTE]
    numbers = [n for f in (1, 2, 3) for _, _, n, _ in records_of(disk, f)]
    assert numbers == list(range(1, 12))


def test_each_generation_has_files_of_its_own() -> None:
    disk = SimulatedDisk()
    journal = journal_on(disk)
    first, second = Generation(), Generation()
    write_all(journal, [note(first, b"a"), note(second, b"b")])
    assert len(first.files) == len(second.files) == 1
    assert first.files != second.files


def test_a_recycled_file_is_written_over_and_its_old_records_do_not_count() -> None:
    disk = SimulatedDisk()
    journal = journal_on(disk)
    first, second = Generation(), Generation()
    write_all(journal, [note(first, b"old %d" % n) for n in range(9)])
    journal.recycle(first.files)
    assert disk.list(FOLDER) == ["spare-0000000000000001.journal"]
    inode = disk.names[str(FOLDER / "spare-0000000000000001.journal")]
    write_all(journal, [note(second, b"new")])
    assert disk.names[str(FOLDER / f"{2:016x}.journal")] is inode
    assert len(records_of(disk, 2)) == 2
    file = disk.open(FOLDER / f"{2:016x}.journal")
    assert isinstance(list(walk(file, 2))[-1], Damage), "old bytes lie behind"


def test_only_a_few_spare_files_are_kept() -> None:
    disk = SimulatedDisk()
    journal = journal_on(disk)
    generation = Generation()
    write_all(journal, [note(generation, bytes(3000)) for _ in range(9)])
    journal.recycle(generation.files)
    assert len(disk.list(FOLDER)) == SPARES_MAX


def test_a_file_that_failed_is_left_and_its_last_records_are_void() -> None:
    disk = SimulatedDisk()
    journal = journal_on(disk)
    generation = Generation()
    write_all(journal, [note(generation, b"kept")])
    disk.fail = lambda step, what, path: errno.EIO if what == "sync" else None
    with pytest.raises(JournalError) as failed:
        write_all(journal, [note(generation, b"void")])
    assert failed.value.written
    assert not failed.value.full
    disk.fail = lambda step, what, path: None
    write_all(journal, [note(generation, b"after")])
    assert len(generation.files) == 2
    (_, kind, number, synced), *_ = records_of(disk, 2)
    assert (kind, number, synced) == (Kind.START, 3, 2)


def test_no_room_for_a_file_leaves_nothing_behind() -> None:
    disk = SimulatedDisk()
    journal = journal_on(disk)
    disk.capacity = 1000
    generation = Generation()
    with pytest.raises(JournalError) as failed:
        write_all(journal, [note(generation, b"x")])
    assert failed.value.full
    assert not failed.value.written
    assert disk.list(FOLDER) == []
    disk.capacity = None
    write_all(journal, [note(generation, b"x")])


def test_a_mark_says_that_the_last_record_is_durable() -> None:
    disk = SimulatedDisk()
    journal = journal_on(disk)
    generation = Generation()
    write_all(journal, [note(generation, b"x")])
    for _ in range(3):
        journal.mark()
    assert [(kind, number, synced) for _, kind, number, synced in records_of(disk, 1)][-1] == (
        Kind.MARK, 2, 2,
    )  # fmt: skip
    assert len(records_of(disk, 1)) == 3
    write_all(journal, [note(generation, b"y")])
    assert records_of(disk, 1)[-1][2] == 3


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("00000000000000ff.journal", 255),
        ("spare-00000000000000ff.journal", None),
        ("00000000000000fg.journal", None),
        ("ff.journal", None),
        ("00000000000000ff.log", None),
    ],
)
def test_names_that_are_journal_files(name: str, number: int | None) -> None:
    assert file_number(name) == number


def test_a_file_that_failed_is_never_written_again() -> None:
    disk = SimulatedDisk()
    journal = journal_on(disk)
    generation = Generation()
    write_all(journal, [note(generation, b"kept")])
    disk.fail = lambda step, what, path: errno.EIO if what == "write" else None
    with pytest.raises(JournalError):
        write_all(journal, [note(generation, b"void")])
    disk.fail = lambda step, what, path: None
    write_all(journal, [note(generation, b"after")])
    journal.recycle(generation.files)
    assert disk.list(FOLDER) == ["spare-0000000000000002.journal"]
