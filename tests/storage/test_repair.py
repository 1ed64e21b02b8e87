"""What a start mends: damaged tables, unfinished files, rewritings that a crash cut off."""

from magnetar.broker.storage.segment import LogName, load_table
from tests.storage.disk import SimulatedDisk
from tests.storage.rig import DATA, Rig, small_config
from tests.storage.test_damage import filled


def logs(disk: SimulatedDisk) -> list[str]:
    return [name for name in disk.names if name.startswith(f"{DATA}/entries/")]


async def test_a_log_with_a_damaged_trailer_is_written_anew() -> None:
    disk = await filled(4, flushed=True)
    ends: dict[int, int] = disk.ends  # type: ignore[attr-defined]
    (name,) = logs(disk)
    content = bytearray(disk.names[name].data)
    content[-20] ^= 1
    disk.replace(name, content)
    rig = Rig(disk)
    await rig.recover()
    for ledger, end in ends.items():
        assert await rig.check(ledger) == end
    (fresh,) = logs(disk)
    assert fresh != name
    load_table(disk.open(DATA / fresh), fresh)
    assert bytes(disk.names[f"{DATA}/quarantine/{name.rsplit('/')[-1]}"].data) == bytes(content)
    assert rig.ledgers.stored.quarantined() == []


async def test_a_log_of_which_nothing_can_be_read_goes_to_quarantine() -> None:
    disk = await filled(4, flushed=True)
    (name,) = logs(disk)
    disk.replace(name, bytes(len(disk.names[name].data)))
    rig = Rig(disk)
    await rig.recover()
    assert logs(disk) == []
    assert f"{DATA}/quarantine/{name.rsplit('/')[-1]}" in disk.names


async def test_an_unfinished_log_is_removed_by_the_process_that_wrote_it() -> None:
    disk = await filled(4, flushed=True)
    for worker in (0, 1):
        unfinished = DATA / "entries" / f"{LogName(worker, 99, 5)}.tmp"
        disk.open(unfinished, create=True).pwritev([b"half of it"], 0)
    await Rig(disk).recover()
    assert [name for name in logs(disk) if name.endswith(".tmp")] == [
        f"{DATA}/entries/{LogName(1, 99, 5)}.tmp"
    ]
    await Rig(disk, small_config(worker=1, workers=2)).recover(1)
    assert not [name for name in logs(disk) if name.endswith(".tmp")]


async def test_a_rewriting_that_was_cut_off_leaves_one_log() -> None:
    disk = SimulatedDisk()
    rig = Rig(disk)
    await rig.recover()
    rig.create(1, 2)
    rig.append((1, 80), (2, 10))
    await rig.ledgers.seal(1)
    await rig.ledgers.flush()
    (old,) = logs(disk)
    content = bytes(disk.names[old].data)
    await rig.ledgers.stored.reclaim(lambda ledger: ledger == 1)
    (new,) = logs(disk)
    # As if the crash came before the old one was unlinked: here with ledger 1 still wanted.
    disk.open(DATA / old, create=True).pwritev([content], 0)
    again = Rig(disk)
    await again.recover()
    assert set(logs(disk)) == {old, new}, "ledger 1 is nowhere else"
    await again.ledgers.stored.reclaim(lambda ledger: ledger == 1)
    assert await again.check(2) == 10
    # And with everything in it also in the new one.
    disk.open(DATA / "entries" / f"{LogName(0, 1, 9)}", create=True).pwritev(
        [bytes(disk.names[logs(disk)[0]].data)], 0
    )
    last = Rig(disk)
    await last.recover()
    assert len(logs(disk)) == 1
    assert await last.check(2) == 10
