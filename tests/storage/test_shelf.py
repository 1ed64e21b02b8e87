"""Reads from entry logs are checked, cached within bounds, and never from a closed file."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from magnetar.broker.storage.block import Block
from magnetar.broker.storage.errors import QuarantinedError
from magnetar.broker.storage.index import Place
from magnetar.broker.storage.quarantine import Quarantine
from magnetar.broker.storage.segment import BlockIndex
from magnetar.broker.storage.shelf import Handles, Shelf, cut
from tests.storage.disk import SimulatedDisk
from tests.storage.rig import DATA, run_of
from tests.storage.test_segment import FOLDER, written


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


def load(shelf: Shelf, place: Place, first: int, last: int | None = None) -> BlockIndex:
    """Load blocks of an extent and keep them."""
    index = shelf.load_index(place)
    shelf.keep_index(place, index)
    brought = shelf.load(place, index, first, first if last is None else last)
    for number, each in enumerate(brought, first):
        shelf.cache.keep((place.table.name, index.offsets[number]), each, 0.0)
    return index


def test_what_was_loaded_is_served_from_memory() -> None:
    disk = SimulatedDisk()
    table = written(disk)
    shelf = shelf_on(disk, 10 << 20)
    place = Place(table, 3)
    assert shelf.read_cached(place, 5, 10, 1 << 20, 0.0) is None
    load(shelf, place, 0)
    steps = disk.steps
    run = shelf.read_cached(place, 5, 10, 1 << 20, 0.0)
    assert run is not None
    assert run.count == 10
    assert disk.steps == steps


def test_neighbouring_blocks_come_with_one_read_and_have_memory_of_their_own() -> None:
    disk = SimulatedDisk()
    place = Place(written(disk, entries=4_000), 1)
    shelf = shelf_on(disk, 10 << 20)
    index = shelf.load_index(place)
    steps = disk.steps
    brought = shelf.load(place, index, 1, 4)
    assert disk.steps == steps + 1
    assert [each.block.first_entry for each in brought] == list(index.firsts[1:5])
    assert len({id(each.slab.memory) for each in brought}) == 4


def test_the_block_cache_and_the_index_cache_keep_their_bounds() -> None:
    disk = SimulatedDisk()
    table = written(disk, ledgers=8)
    shelf = shelf_on(disk, 600_000)
    for row in range(8):
        load(shelf, Place(table, row), 0)
        assert shelf.cache.bytes <= 600_000
    assert len(shelf.cache) > 1
    shelf.forget(table.name)
    assert shelf.cache.bytes == 0
    assert shelf._index_items == 0


def test_a_file_that_ends_early_is_damage_though_the_memory_held_the_block_before() -> None:
    disk = SimulatedDisk()
    table = written(disk)
    shelf = shelf_on(disk, 10 << 20)
    place = Place(table, 1)
    index = load(shelf, place, 1)
    whole = bytearray(disk.names[str(FOLDER / table.name)].data)
    shelf.cache.drop_log(table.name)
    assert shelf._buffers.free_bytes, "the same memory will be used again"
    disk.replace(FOLDER / table.name, whole[: index.offsets[1] + index.sizes[1] // 2])
    load(shelf, place, 1)
    with pytest.raises(QuarantinedError):
        shelf.read_cached(place, index.firsts[1] + index.counts[1] - 1, 1, 1, 0.0)


def test_a_lost_block_is_named_with_all_its_entries() -> None:
    disk = SimulatedDisk()
    table = written(disk)
    shelf = shelf_on(disk, 10 << 20)
    place = Place(table, 1)
    index = shelf.load_index(place)
    content = bytearray(disk.names[str(FOLDER / table.name)].data)
    content[index.offsets[1]] ^= 1
    disk.replace(FOLDER / table.name, content)
    load(shelf, place, 0, 1)
    assert shelf.read_cached(place, index.firsts[1] - 1, 10, 1 << 20, 0.0) is not None
    with pytest.raises(QuarantinedError) as lost:
        shelf.read_cached(place, index.firsts[1] + 1, 10, 1 << 20, 0.0)
    assert lost.value.first == index.firsts[1] + 1
    assert lost.value.last == index.firsts[1] + index.counts[1] - 1
    (report,) = shelf._quarantine.reports()
    assert report.gaps[0].first == (2, index.firsts[1])
    assert disk.exists(DATA / "quarantine" / report.name)
