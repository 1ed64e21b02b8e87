"""What is damaged is kept, named, and remembered over restarts."""

import errno

import pytest

from magnetar.broker.entry import EntryId
from magnetar.broker.storage.errors import Gap
from magnetar.broker.storage.quarantine import Quarantine
from tests.storage.disk import SimulatedDisk
from tests.storage.rig import DATA

FOLDER = DATA / "quarantine"
GAP = Gap(EntryId(3, 4), EntryId(3, 9), "flipped")


def test_reports_survive_a_restart() -> None:
    disk = SimulatedDisk()
    Quarantine(disk, FOLDER).copy_bytes("piece", b"damaged", [GAP], "flipped")
    again = Quarantine(disk, FOLDER)
    (report,) = again.reports()
    assert (report.name, report.reason, report.gaps) == ("piece", "flipped", [GAP])
    assert again.gaps() == [GAP]
    assert disk.read(FOLDER / "piece") == b"damaged"


def test_the_same_damage_is_reported_once() -> None:
    disk = SimulatedDisk()
    quarantine = Quarantine(disk, FOLDER)
    for _ in range(3):
        quarantine.copy_bytes("piece", b"damaged", [GAP], "flipped")
    assert len(quarantine.reports()) == 1


def test_a_moved_file_never_replaces_another() -> None:
    disk = SimulatedDisk()
    quarantine = Quarantine(disk, FOLDER)
    for content in (b"first", b"second"):
        disk.make_dir(DATA / "entries")
        disk.write_whole(DATA / "entries" / "x", content)
        quarantine.move(DATA / "entries" / "x", "unknown")
    assert disk.read(FOLDER / "x") == b"first"
    assert disk.read(FOLDER / "x~") == b"second"


def test_a_disk_without_room_does_not_stop_reading() -> None:
    disk = SimulatedDisk()
    disk.fail = lambda step, what, path: errno.ENOSPC if what == "write" else None
    quarantine = Quarantine(disk, FOLDER)
    quarantine.copy_bytes("piece", b"damaged", [GAP], "flipped")
    assert quarantine.reports() == []


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"why": 1, "gaps": 3, "from": 1}'])
def test_a_report_that_cannot_be_read_is_still_listed(text: bytes) -> None:
    disk = SimulatedDisk()
    disk.make_dir(FOLDER)
    disk.write_whole(FOLDER / "piece.json", text)
    (report,) = Quarantine(disk, FOLDER).reports()
    assert report.name == "piece"
    assert "cannot be read" in report.reason
