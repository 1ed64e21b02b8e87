"""The doctor reads every byte, finds every damage, and changes nothing."""

from pathlib import Path
from random import Random
from typing import Any

import pytest

from magnetar.broker.metadata.holdings import Facts, Held, LedgerFact
from magnetar.broker.storage.verify import verify_folder
from tests.storage.disk import SimulatedDisk
from tests.storage.rig import DATA, Rig, body_of
from tests.storage.test_damage import filled


async def mixed() -> SimulatedDisk:
    """Return a disk with entries in entry logs and in the journal."""
    disk = await filled(5, flushed=True)
    rig = Rig(disk)
    await rig.recover()
    rig.create(11)
    rig.append((11, 30))
    await rig.settle()
    rig.ledgers._committer._journal.mark()  # type: ignore[union-attr]
    rig.abandon()
    return disk


async def test_a_sound_folder_has_no_findings() -> None:
    disk = await mixed()
    told: list[tuple[int, int]] = []
    found = verify_folder(DATA, disk, lambda done, total: told.append((done, total)))
    assert found.sound
    assert found.findings == []
    assert found.journal_entries == 30
    assert found.entries == sum(disk.ends.values())  # type: ignore[attr-defined]
    assert found.ledgers == 4
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1] == found.bytes


async def test_a_damaged_entry_is_named() -> None:
    disk = await mixed()
    name = next(n for n in disk.names if n.startswith(f"{DATA}/entries/"))
    content = bytearray(disk.names[name].data)
    content[content.index(body_of(3, 17)) + 1] ^= 1
    disk.replace(name, content)
    found = verify_folder(DATA, disk)
    assert not found.sound
    gaps = [gap for finding in found.findings for gap in finding.gaps]
    assert [(gap.first, gap.last) for gap in gaps] == [((3, 17), (3, 17))]
    assert any("whole file" in finding.problem for finding in found.findings)


async def test_every_flipped_bit_of_an_entry_log_is_found() -> None:
    disk = await mixed()
    name = next(n for n in disk.names if n.startswith(f"{DATA}/entries/"))
    content = bytes(disk.names[name].data)
    random = Random(1)
    for _ in range(200):
        damaged = bytearray(content)
        at = random.randrange(len(damaged))
        damaged[at] ^= 1 << random.randrange(8)
        disk.replace(name, damaged)
        assert not verify_folder(DATA, disk).sound, f"byte {at} of {len(content)}"


async def test_verifying_changes_nothing() -> None:
    disk = await mixed()
    name = next(n for n in disk.names if n.endswith(".journal") and "spare" not in n)
    content = bytearray(disk.names[name].data)
    content[200] ^= 1
    disk.replace(name, content)
    before = disk.contents()
    assert not verify_folder(DATA, disk).sound
    assert disk.contents() == before


async def test_what_lies_in_quarantine_is_listed() -> None:
    disk = await mixed()
    file = disk.open(DATA / "entries" / "diary.txt", create=True)
    file.pwritev([b"dear"], 0)
    assert [f.problem for f in verify_folder(DATA, disk).findings] == ["not an entry log"]
    await Rig(disk).recover()
    found = verify_folder(DATA, disk)
    assert [report.name for report in found.quarantine] == ["diary.txt"]
    assert found.sound, "nothing that was stored is missing"


class Moving:
    """A disk whose entry logs are somewhere else whenever they are looked for, at first."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self._disk = disk
        self.settled = False

    def open(self, path: Path, **options: Any) -> Any:
        if path.parent.name == "entries" and not self.settled:
            raise FileNotFoundError(path)
        return self._disk.open(path, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)


@pytest.mark.parametrize("settles", [True, False])
async def test_what_moves_while_we_read_is_looked_for_again(settles: bool) -> None:
    disk = await mixed()
    ledgers = {**disk.ends, 11: 30}  # type: ignore[attr-defined]
    facts = Facts({each: LedgerFact(0, end) for each, end in ledgers.items()}, set(), {}, {})
    moving = Moving(disk)
    looks: list[Facts] = []

    def read_facts() -> Facts:
        looks.append(facts)
        moving.settled = settles and len(looks) == 2
        return facts

    found = verify_folder(DATA, moving, read_facts=read_facts)
    assert found.sound is settles
    assert len(looks) > 2
    assert {gap.first.ledger for each in found.findings for gap in each.gaps} == (
        set() if settles else set(disk.ends)  # type: ignore[attr-defined]
    )


async def test_what_was_written_down_after_the_disk_was_read_need_not_be_there() -> None:
    disk = await mixed()
    ledgers = {each: LedgerFact(0, end) for each, end in disk.ends.items()}  # type: ignore[attr-defined]
    before = Facts({**ledgers, 11: LedgerFact(0)}, set(), {0: Held(journal=[2])}, {})
    after = Facts({**ledgers, 11: LedgerFact(0, 99)}, set(), {0: Held(journal=[3])}, {})
    told = iter([before, after])
    assert verify_folder(DATA, disk, read_facts=lambda: next(told)).sound
    told = iter([after] * 9)
    assert not verify_folder(DATA, disk, read_facts=lambda: next(told)).sound
