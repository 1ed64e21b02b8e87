"""Reads from entry logs are checked, cached within bounds, and never from a closed file."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from magnetar.broker.storage.block import Block
from magnetar.broker.storage.errors import QuarantinedError
from magnetar.broker.storage.index import Place
from magnetar.broker.storage.quarantine import Quarantine
from magnetar.broker.storage.shelf import READ_BYTES, SEQUENCES_MAX, Handles, Shelf, cut
from tests.storage.disk import SimulatedDisk
from tests.storage.rig import DATA, run_of
from tests.storage.test_segment import FOLDER, written


class CountedDisk(SimulatedDisk):
    """A disk that knows how many files are open."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: set[str] = set()


def test_a_file_is_not_closed_under_its_reader(tmp_path: Path) -> None:
    from magnetar.broker.files import DiskFiles

    files = DiskFiles()
    for number in range(5):
        files.write_whole(tmp_path / str(number), b"content %d" % number)
    handles = Handles(files, tmp_path, handles_max=2)
    with ExitStack() as readers:
        lent = [readers.enter_context(handles.use(str(number))) for number in range(5)]
        for number, file in enumerate(lent):
            assert file.pread(100, 0) == b"content %d" % number
        assert len(handles._open) == 2
        handles.forget("4")
        assert lent[4].pread(100, 0) == b"content 4"
    assert len(handles._open) <= 2
    with pytest.raises(OSError, match="Bad file descriptor"):
        lent[0].pread(1, 0)
    handles.close()


def test_a_block_is_cut_at_the_next_damage() -> None:
    found = Block(10, run_of([b"%d" % n for n in range(10)]), ((13, 14), (18, 18)))
    assert cut(found, 1, 10, 99, 99).count == 3
    assert cut(found, 1, 15, 99, 99).count == 3
    assert cut(found, 1, 19, 99, 99).count == 1
    assert bytes(cut(found, 1, 15, 1, 99).body(0)) == b"5"
    for entry in (13, 14):
        with pytest.raises(QuarantinedError) as lost:
            cut(found, 1, entry, 99, 99)
        assert (lost.value.first, lost.value.last) == (entry, 14)


def shelf_on(disk: SimulatedDisk, cache_bytes: int) -> Shelf:
    return Shelf(disk, FOLDER, Quarantine(disk, DATA / "quarantine"), cache_bytes)


def test_what_was_loaded_is_served_from_memory() -> None:
    disk = SimulatedDisk()
    table = written(disk)
    shelf = shelf_on(disk, 10 << 20)
    place = Place(table, 3)
    assert shelf.read_cached(place, 5, 10, 1 << 20) is None
    shelf.keep(place, shelf.load(place, 5))
    steps = disk.steps
    run = shelf.read_cached(place, 5, 10, 1 << 20)
    assert run is not None
    assert run.count == 10
    assert disk.steps == steps


def test_the_block_cache_and_the_index_cache_keep_their_bounds() -> None:
    disk = SimulatedDisk()
    table = written(disk, ledgers=8)
    shelf = shelf_on(disk, 300_000)
    for row in range(8):
        place = Place(table, row)
        shelf.keep(place, shelf.load(place, 0))
        assert shelf.cached_bytes <= 600_000
    assert shelf.cached_bytes == sum(
        len(found.run.rows) + len(found.run.buffer) for found in shelf._blocks.values()
    )
    shelf.forget(table.name)
    assert shelf.cached_bytes == 0
    assert shelf._index_items == 0


def test_blocks_behind_come_along_in_a_sequence_and_not_at_random() -> None:
    disk = SimulatedDisk()
    place = Place(written(disk, entries=4_000), 1)
    shelf = shelf_on(disk, 10 << 20)
    index = shelf.load(place, 0).places
    firsts = index.firsts
    assert len(shelf.load(place, 0).blocks) > 1, "the start of an extent begins a sequence"

    shelf = shelf_on(disk, 10 << 20)
    for number in (4, 2, 4):
        assert len(shelf.load(place, firsts[number]).blocks) == 1
    going_on = shelf.load(place, firsts[5])
    assert going_on.first_block == 5
    together = len(going_on.blocks)
    assert together > 1
    assert sum(index.sizes[5 : 5 + together]) <= READ_BYTES < sum(index.sizes[5 : 6 + together])
    shelf.forget(place.table.name)
    assert not shelf._sequences


def test_only_so_many_sequences_are_remembered() -> None:
    disk = SimulatedDisk()
    place = Place(written(disk, entries=4_000), 1)
    shelf = shelf_on(disk, 10 << 20)
    firsts = shelf.load(place, 0).places.firsts
    shelf.load(place, firsts[2])
    for number in range(2 * SEQUENCES_MAX):
        shelf._sequences["another", number] = None
    assert len(shelf.load(place, firsts[3]).blocks) == 1
    assert len(shelf._sequences) <= SEQUENCES_MAX + 1


def test_a_lost_block_is_named_with_all_its_entries() -> None:
    disk = SimulatedDisk()
    table = written(disk)
    shelf = shelf_on(disk, 10 << 20)
    place = Place(table, 1)
    index = shelf.load(place, 0).places
    content = bytearray(disk.names[str(FOLDER / table.name)].data)
    content[index.offsets[1]] ^= 1
    disk.replace(FOLDER / table.name, content)
    shelf.keep(place, shelf.load(place, index.firsts[1]))
    with pytest.raises(QuarantinedError) as lost:
        shelf.read_cached(place, index.firsts[1] + 1, 10, 1 << 20)
    assert lost.value.first == index.firsts[1] + 1
    assert lost.value.last == index.firsts[1] + index.counts[1] - 1
    (report,) = shelf._quarantine.reports()
    assert report.gaps[0].first == (2, index.firsts[1])
    assert disk.exists(DATA / "quarantine" / report.name)
