"""A data folder has one user, one format, and no surprises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from magnetar.broker.files import DiskFiles
from magnetar.broker.storage.folder import (
    FORMAT_VERSION,
    ORPHANS_WAIT_S,
    DataFolder,
    FolderError,
    _file_system,
    holds_entries,
)


def open_folder(path: Path) -> DataFolder:
    return DataFolder.open(DiskFiles(), path, sleep=lambda _: None)


def test_a_new_folder_is_private_and_says_its_format(tmp_path: Path) -> None:
    with open_folder(tmp_path / "data") as folder:
        assert folder.path.stat().st_mode & 0o777 == 0o700
        assert (
            folder.path / "FORMAT"
        ).read_text() == f"magnetar data folder, format {FORMAT_VERSION}\n"
        assert (folder.path / "FORMAT").stat().st_mode & 0o777 == 0o600


def test_a_folder_can_be_opened_again_after_it_was_closed(tmp_path: Path) -> None:
    for _ in range(2):
        with open_folder(tmp_path / "data"):
            pass


def test_a_second_program_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    with (
        open_folder(tmp_path / "data"),
        pytest.raises(FolderError, match=rf"in use by process {os.getpid()}\b"),
    ):
        open_folder(tmp_path / "data")


def test_a_lock_that_outlives_its_supervisor_is_waited_for(tmp_path: Path) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    first = open_folder(tmp_path / "data")
    (first.path / "LOCK").write_text(str(done.pid))
    waits: list[float] = []

    def let_go(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            first.lock.close()

    with DataFolder.open(DiskFiles(), first.path, sleep=let_go):
        assert len(waits) == 3


def test_waiting_for_a_lock_has_an_end(tmp_path: Path) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    waits: list[float] = []
    with open_folder(tmp_path / "data") as first:
        (first.path / "LOCK").write_text(str(done.pid))
        with pytest.raises(FolderError, match="in use"):
            DataFolder.open(DiskFiles(), first.path, sleep=waits.append)
    assert sum(waits) == pytest.approx(ORPHANS_WAIT_S, abs=0.1)


def test_the_lock_is_held_by_whoever_inherited_it(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "data")
    heir = subprocess.Popen(
        [sys.executable, "-c", "input()"], pass_fds=[folder.lock_fd], stdin=subprocess.PIPE
    )
    folder.lock.close()
    with pytest.raises(FolderError, match="in use"):
        open_folder(tmp_path / "data")
    heir.communicate(b"\n")
    open_folder(tmp_path / "data").lock.close()


def test_a_newer_format_is_refused_and_left_untouched(tmp_path: Path) -> None:
    data = tmp_path / "data"
    open_folder(data).lock.close()
    (data / "FORMAT").write_text("magnetar data folder, format 2\n")
    with pytest.raises(FolderError, match=r"format 2, this version reads format 1"):
        open_folder(data)
    assert (data / "FORMAT").read_text() == "magnetar data folder, format 2\n"


@pytest.mark.parametrize("text", ["", "something else", "magnetar data folder, format x"])
def test_a_format_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    data = tmp_path / "data"
    open_folder(data).lock.close()
    (data / "FORMAT").write_text(text)
    with pytest.raises(FolderError, match="expected magnetar data folder"):
        open_folder(data)


def test_a_folder_that_was_served_from_holds_a_journal_or_an_entry_log(tmp_path: Path) -> None:
    assert not holds_entries(tmp_path, DiskFiles())
    for folder in ("journal/0", "entries", "quarantine"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "metadata.sqlite").touch()
    assert not holds_entries(tmp_path, DiskFiles()), "a first start that was cut short"
    (tmp_path / "journal/0/spare-0000000000000001.journal").touch()
    assert holds_entries(tmp_path, DiskFiles())
    (tmp_path / "journal/0/spare-0000000000000001.journal").unlink()
    (tmp_path / "entries/0-1-1.log").touch()
    assert holds_entries(tmp_path, DiskFiles())


def test_somebody_elses_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("years of work")
    with pytest.raises(FolderError, match=r"thesis\.doc but is no data folder"):
        open_folder(tmp_path)


def test_a_path_too_long_for_its_sockets_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with (
        open_folder(tmp_path / ("x" * 100)) as folder,
        pytest.raises(FolderError, match="too long"),
    ):
        folder.admin_sockets(1)


def test_the_file_system_is_that_of_the_innermost_mount() -> None:
    mounts = "/dev/sda / ext4 rw 0 0\ntmpfs /mnt/ram\\040disk tmpfs rw 0 0\n"
    assert _file_system(Path("/home/data"), mounts) == "ext4"
    assert _file_system(Path("/mnt/ram disk/data"), mounts) == "tmpfs"
    assert _file_system(Path("/mnt/ram disks"), mounts) == "ext4"
