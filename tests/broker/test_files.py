"""The one module that touches files does exactly what its callers rely on."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from magnetar.broker.files import Buffer, DiskFiles, FileLockedError


@pytest.fixture
def files() -> DiskFiles:
    return DiskFiles()


def test_short_writes_are_finished(
    files: DiskFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = os.pwritev

    def short(fd: int, buffers: list[Any], offset: int) -> int:
        return honest(fd, [b"".join(buffers)[:7]], offset)

    monkeypatch.setattr(os, "pwritev", short)
    file = files.open(tmp_path / "f", create=True)
    pieces: list[Buffer] = [b"one", bytearray(b"two"), memoryview(b"and three"), b"", b"4"]
    file.pwritev(pieces, 5)
    assert file.pread(100, 5) == b"onetwoand three4"
    file.close()


def test_more_buffers_than_one_call_takes(files: DiskFiles, tmp_path: Path) -> None:
    file = files.open(tmp_path / "f", create=True)
    file.pwritev([b"%04d" % number for number in range(3000)], 0)
    assert file.size() == 12_000
    assert file.pread(4, 4 * 2999) == b"2999"
    file.close()


def test_reading_stops_at_the_end(files: DiskFiles, tmp_path: Path) -> None:
    file = files.open(tmp_path / "f", create=True)
    file.pwritev([b"abc"], 0)
    assert file.pread(10, 1) == b"bc"
    assert file.pread(10, 3) == b""
    file.close()


def test_reserved_room_reads_as_zeros(files: DiskFiles, tmp_path: Path) -> None:
    file = files.open(tmp_path / "f", create=True)
    file.preallocate(10_000)
    file.sync()
    assert file.size() == 10_000
    assert file.pread(10, 9_990) == bytes(10)
    file.truncate(5)
    assert file.size() == 5
    file.close()


def test_create_does_not_take_a_name_that_is_taken(files: DiskFiles, tmp_path: Path) -> None:
    files.open(tmp_path / "f", create=True).close()
    with pytest.raises(FileExistsError):
        files.open(tmp_path / "f", create=True)
    with pytest.raises(FileNotFoundError):
        files.open(tmp_path / "g", write=True)


def test_everything_is_private(files: DiskFiles, tmp_path: Path) -> None:
    files.make_dir(tmp_path / "a" / "b")
    files.open(tmp_path / "a" / "f", create=True).close()
    files.write_whole(tmp_path / "a" / "g", b"")
    files.copy(tmp_path / "a" / "g", tmp_path / "a" / "h")
    files.lock(tmp_path / "a" / "lock", "").close()
    for path in (tmp_path / "a").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_small_file_is_replaced_whole(files: DiskFiles, tmp_path: Path) -> None:
    files.write_whole(tmp_path / "f", b"first")
    files.write_whole(tmp_path / "f", b"2nd")
    assert files.read(tmp_path / "f") == b"2nd"
    assert files.list(tmp_path) == ["f"]


def test_names_are_listed_in_order_and_a_missing_folder_has_none(
    files: DiskFiles, tmp_path: Path
) -> None:
    for name in ("b", "a", "c"):
        files.write_whole(tmp_path / name, b"")
    assert files.list(tmp_path) == ["a", "b", "c"]
    assert files.list(tmp_path / "nowhere") == []


def test_rename_link_and_remove(files: DiskFiles, tmp_path: Path) -> None:
    files.write_whole(tmp_path / "old", b"data")
    files.rename(tmp_path / "old", tmp_path / "new")
    files.link(tmp_path / "new", tmp_path / "second")
    files.remove(tmp_path / "new")
    files.sync_dir(tmp_path)
    assert files.read(tmp_path / "second") == b"data"
    assert not files.exists(tmp_path / "old")
    files.make_dir(tmp_path / "folder")
    assert files.is_dir(tmp_path / "folder")
    files.remove_dir(tmp_path / "folder")
    assert not files.exists(tmp_path / "folder")


def test_a_lock_has_one_holder_who_is_named(files: DiskFiles, tmp_path: Path) -> None:
    held = files.lock(tmp_path / "lock", "17")
    with pytest.raises(FileLockedError) as refused:
        files.lock(tmp_path / "lock", "18")
    assert refused.value.holder == "17"
    held.close()
    files.lock(tmp_path / "lock", "18").close()


def test_a_copy_is_of_its_own(files: DiskFiles, tmp_path: Path) -> None:
    files.write_whole(tmp_path / "a", b"x" * 3_000_000)
    assert files.copy(tmp_path / "a", tmp_path / "b") == 3_000_000
    files.write_whole(tmp_path / "a", b"")
    assert len(files.read(tmp_path / "b")) == 3_000_000


def test_space_is_told_in_bytes(files: DiskFiles, tmp_path: Path) -> None:
    space = files.space(tmp_path)
    assert 0 < space.available <= space.total


def test_room_is_reserved_with_zeros_where_the_file_system_cannot_do_it(
    files: DiskFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    file = files.open(tmp_path / "f", create=True)
    file.preallocate(3_000_000)
    assert file.size() == 3_000_000
    file.close()
