"""Entry logs tell what they hold, from their tables or, where those are lost, from their blocks."""

from itertools import count
from random import Random

import pytest

from magnetar.broker.files import File
from magnetar.broker.storage.cache import Generation
from magnetar.broker.storage.errors import FormatError
from magnetar.broker.storage.flush import write_generation
from magnetar.broker.storage.pages import TRAILER
from magnetar.broker.storage.record import Part
from magnetar.broker.storage.segment import (
    LogDamagedError,
    LogFolder,
    LogName,
    LogWriter,
    Table,
    check_whole,
    load_table,
    read_block_index,
    read_summary,
    read_trailer,
    rebuild_table,
)
from tests.storage.disk import SimulatedDisk
from tests.storage.rig import DATA, body_of, run_of
from tests.storage.test_block import cached

FOLDER = DATA / "entries"


def logs_on(disk: SimulatedDisk) -> LogFolder:
    disk.make_dir(FOLDER)
    numbers = count(1)
    return LogFolder(disk, FOLDER, lambda: LogName(0, next(numbers), 4711))


def written(disk: SimulatedDisk, ledgers: int = 5, entries: int = 700) -> Table:
    generation = Generation()
    for ledger in range(1, ledgers + 1):
        for first in range(0, entries, 100):
            bodies = [body_of(ledger, first + at) * 10 for at in range(100)]
            run = run_of(bodies, index=first)
            cached(generation, run, Part(ledger, first, 0, 100, ""))
    table = write_generation(logs_on(disk), generation)
    assert table is not None
    return table


def columns(table: Table) -> list[tuple[int, ...]]:
    return list(
        zip(table.ledgers, table.firsts, table.counts, table.bytes, table.blocks, strict=True)
    )


def test_the_table_read_back_is_the_one_that_was_written() -> None:
    disk = SimulatedDisk()
    table = written(disk)
    file = disk.open(FOLDER / table.name)
    again = load_table(file, table.name)
    assert columns(again) == columns(table)
    assert [row[:3] for row in columns(table)] == [(ledger, 0, 700) for ledger in range(1, 6)]
    assert check_whole(file, read_trailer(file)) == []
    assert again.size == table.size == file.size()


def test_a_rebuilt_table_says_the_same() -> None:
    disk = SimulatedDisk()
    table = written(disk)
    file = disk.open(FOLDER / table.name)
    rebuilt = rebuild_table(file, table.name)
    assert columns(rebuilt) == columns(table)
    for row in range(5):
        assert read_summary(file, rebuilt, row) == read_summary(file, table, row)
        assert read_block_index(file, rebuilt, row) == read_block_index(file, table, row)


def test_a_rebuilt_table_leaves_out_what_is_damaged_and_only_that() -> None:
    disk = SimulatedDisk()
    table = written(disk)
    file = disk.open(FOLDER / table.name)
    index = read_block_index(file, table, 2)
    content = bytearray(disk.names[str(FOLDER / table.name)].data)
    content[index.offsets[1] + 100] ^= 1
    disk.replace(FOLDER / table.name, content)
    rebuilt = rebuild_table(file, table.name)
    lost = index.counts[1]
    found = [row[:3] for row in columns(rebuilt) if row[0] == 3]
    assert found == [
        (3, 0, index.counts[0]),
        (3, index.counts[0] + lost, 700 - lost - index.counts[0]),
    ]
    assert [row for row in columns(rebuilt) if row[0] != 3] == [
        row for row in columns(table) if row[0] != 3
    ]


def load_everything(file: File, name: str) -> None:
    table = load_table(file, name)
    for row in range(5):
        read_block_index(file, table, row)


def test_a_damaged_table_is_seen_wherever_it_is_hit() -> None:
    disk = SimulatedDisk()
    table = written(disk)
    content = bytes(disk.names[str(FOLDER / table.name)].data)
    file = disk.open(FOLDER / table.name)
    random = Random(2)
    for at in range(table.index_at, len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << random.randrange(8)
        disk.replace(FOLDER / table.name, damaged)
        with pytest.raises((LogDamagedError, FormatError)):
            load_everything(file, table.name)


def test_a_newer_format_is_refused_not_misread() -> None:
    disk = SimulatedDisk()
    table = written(disk, 1, 100)
    file = disk.open(FOLDER / table.name)
    trailer = read_trailer(file)._replace(version=2)
    from crc32c import crc32c

    crc = crc32c(TRAILER.pack(*trailer[:-2], 0, trailer.magic))
    content = bytearray(disk.names[str(FOLDER / table.name)].data)
    content[-TRAILER.size :] = TRAILER.pack(*trailer[:-2], crc, trailer.magic)
    disk.replace(FOLDER / table.name, content)
    with pytest.raises(FormatError, match="format 2; this version reads 1"):
        load_table(file, table.name)


def test_an_unfinished_log_has_no_name_and_can_be_given_up() -> None:
    disk = SimulatedDisk()
    writer = LogWriter(logs_on(disk))
    assert [LogName.parse(name) for name in disk.list(FOLDER)] == [None]
    writer.give_up()
    assert disk.list(FOLDER) == []


def test_names_of_entry_logs() -> None:
    name = LogName(3, 255, 0xABCD_1234_5678)
    assert str(name) == "3-00000000000000ff-12345678.log"
    assert LogName.parse(str(name)) == LogName(3, 255, 0x1234_5678)
    for other in ("3-ff.log", "x-ff-00.log", "3-ff-00.log.tmp", "", "notes.txt"):
        assert LogName.parse(other) is None
