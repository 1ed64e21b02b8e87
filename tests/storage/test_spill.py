"""Delayed entries that wait in a file come back whole, or not at all."""

import logging
from pathlib import Path

import pytest

from magnetar.broker.files import DiskFiles
from magnetar.broker.storage.spill import CHUNK, SpillFolder


def folder_in(path: Path) -> SpillFolder:
    folder = SpillFolder(DiskFiles(), path / "spill")
    folder.clear()
    return folder


def test_a_bucket_gives_back_what_was_added_in_order(tmp_path: Path) -> None:
    owner = folder_in(tmp_path).owner()
    for entries in (b"first" * 100, b"second", b"third"):
        owner.append(7, entries)
    owner.append(8, b"another bucket")
    assert list(owner.read(7)) == [b"first" * 100, b"second", b"third"]
    assert list(owner.read(9)) == []


def test_owners_do_not_see_each_other(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    one, other = folder.owner(), folder.owner()
    one.append(7, b"mine")
    other.append(7, b"yours")
    assert (list(one.read(7)), list(other.read(7))) == ([b"mine"], [b"yours"])


def test_a_forgotten_bucket_gives_its_space_back_and_can_be_used_again(tmp_path: Path) -> None:
    owner = folder_in(tmp_path).owner()
    owner.append(7, b"old")
    owner.remove(7)
    owner.remove(7)
    assert list((tmp_path / "spill").iterdir()) == []
    owner.append(7, b"new")
    assert list(owner.read(7)) == [b"new"]


def test_a_start_removes_what_an_earlier_process_left_and_nothing_else(tmp_path: Path) -> None:
    folder_in(tmp_path).owner().append(7, b"left behind")
    (tmp_path / "spill" / "notes.txt").write_text("not ours")
    folder_in(tmp_path)
    assert [each.name for each in (tmp_path / "spill").iterdir()] == ["notes.txt"]


def test_a_damaged_chunk_is_left_out_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    owner = folder_in(tmp_path).owner()
    for entries in (b"first", b"second", b"third"):
        owner.append(7, entries)
    [path] = (tmp_path / "spill").iterdir()
    data = bytearray(path.read_bytes())
    data[2 * CHUNK.size + len(b"first") + 2] ^= 1
    path.write_bytes(data)
    with caplog.at_level(logging.ERROR):
        assert list(owner.read(7)) == [b"first", b"third"]
    assert "damaged" in caplog.text
