"""The metadata file: what is refused, what is noticed, what survives."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from magnetar.broker.files import DiskFiles
from magnetar.broker.metadata import database as module
from magnetar.broker.metadata.database import (
    FORMAT,
    Database,
    copy_database,
    read_rows,
    snapshot_path,
    verify_database,
)
from magnetar.broker.metadata.store import (
    Change,
    CorruptMetadataError,
    Delete,
    NewerFormatError,
    Put,
    StoreUnavailableError,
    Versioned,
    numbered,
)

FILES = DiskFiles()

Open = Callable[[], Database]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metadata.sqlite"


@pytest.fixture
def open_database(path: Path) -> Iterator[Open]:
    opened: list[Database] = []

    def open_one() -> Database:
        opened.append(Database(path, FILES))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def put(database: Database, *changes: Change) -> None:
    assert not isinstance(database.write([changes]).outcomes[0], Exception)


def tamper(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(statement, values)


# --- opening


def test_what_was_written_is_there_after_opening_again(path: Path) -> None:
    with closing(Database(path, FILES)) as database:
        put(database, Put("a", b"1"), Put("b", b"2"))
        put(database, Delete("b"))
    with closing(Database(path, FILES)) as database:
        assert database.scan("") == [("a", Versioned(b"1", 1))]
        put(database, Put("b", b"3"))
        assert database.get("b") == Versioned(b"3", 4)


def test_every_file_is_for_its_owner_only(path: Path, open_database: Open) -> None:
    put(open_database(), Put("a", b""))
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(
        ["metadata.sqlite", "metadata.sqlite-wal", "metadata.sqlite-shm"], 0o600
    )


def test_a_commit_is_synced_and_in_wal_mode(open_database: Open) -> None:
    db = open_database()._db
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_a_newer_format_is_refused_naming_both_versions_and_left_alone(path: Path) -> None:
    Database(path, FILES).close()
    tamper(path, f"PRAGMA user_version = {FORMAT + 6}")
    before = path.read_bytes()
    with pytest.raises(NewerFormatError, match=rf"format {FORMAT + 6}, .* up to {FORMAT}"):
        Database(path, FILES)
    assert path.read_bytes() == before


def test_somebody_elses_sqlite_file_is_refused_and_left_alone(path: Path) -> None:
    tamper(path, "CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(CorruptMetadataError, match="not Magnetar's"):
        Database(path, FILES)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + bytes(5000)])
def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CorruptMetadataError, match=r"metadata\.sqlite"):
        Database(path, FILES)
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_written_is_unavailable_and_not_corrupt(tmp_path: Path) -> None:
    with pytest.raises((StoreUnavailableError, OSError)):
        Database(tmp_path / "missing" / "metadata.sqlite", FILES)


def test_no_descriptor_is_left_behind_whether_opening_works_or_not(path: Path) -> None:
    def descriptors() -> int:
        return sum(1 for _ in Path(f"/proc/{os.getpid()}/fd").iterdir())

    if not Path("/proc").exists():
        pytest.skip("counts descriptors in /proc")
    before = descriptors()
    for _ in range(5):
        with closing(Database(path, FILES)) as database:
            put(database, Put("a", b""))
        copy_database(path, snapshot_path(path), FILES)
        assert verify_database(path) == []
    path.write_bytes(b"nonsense" * 1000)
    for _ in range(5):
        with pytest.raises(CorruptMetadataError):
            Database(path, FILES)
    assert descriptors() == before


# --- damage


def test_a_flipped_bit_in_a_value_is_noticed_naming_the_key(
    path: Path, open_database: Open
) -> None:
    database = open_database()
    put(database, Put("topics/x", b"right"), Put("topics/y", b"sound"))
    tamper(path, "UPDATE entries SET value = ? WHERE key = 'topics/x'", b"wrong")
    assert database.get("topics/y") is not None
    for read in (lambda: database.get("topics/x"), lambda: database.scan("topics/")):
        with pytest.raises(CorruptMetadataError, match="checksum of key topics/x"):
            read()
    assert verify_database(path) == ["the checksum of key topics/x is wrong"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET version = 7 WHERE key = 'a'",
        "UPDATE entries SET key = 'c' WHERE key = 'a'",
        "UPDATE entries SET value = (SELECT value FROM entries WHERE key = 'b') WHERE key = 'a'",
    ],
)
def test_the_checksum_covers_key_value_and_version(
    path: Path, open_database: Open, statement: str
) -> None:
    database = open_database()
    put(database, Put("a", b"1"), Put("b", b"2"))
    tamper(path, statement)
    with pytest.raises(CorruptMetadataError, match="checksum"):
        database.scan("")


def test_without_the_checksum_a_flipped_bit_would_go_unnoticed(
    path: Path, open_database: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_checksum", lambda key, value, version: 0)
    database = open_database()
    put(database, Put("a", b"right"))
    tamper(path, "UPDATE entries SET value = ?", b"wrong")
    assert database.get("a") == Versioned(b"wrong", 1)


def filled(path: Path) -> None:
    with closing(Database(path, FILES)) as database:
        for batch in range(10):
            put(database, *(Put(f"k/{batch}/{each}", b"v" * 50) for each in range(50)))


def test_damage_in_the_file_is_found_at_open_and_the_way_back_is_named(path: Path) -> None:
    filled(path)
    copy_database(path, snapshot_path(path), FILES)
    content = bytearray(path.read_bytes())
    content[4096 * 5 : 4096 * 6] = os.urandom(4096)
    path.write_bytes(content)
    with pytest.raises(CorruptMetadataError) as caught:
        Database(path, FILES)
    message = str(caught.value)
    for part in ("metadata.snapshot.sqlite", "copy", "Nothing was changed", "quarantine"):
        assert part in message
    assert path.read_bytes() == content


def test_the_way_back_that_the_message_names_works(path: Path) -> None:
    filled(path)
    copy_database(path, snapshot_path(path), FILES)
    path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(CorruptMetadataError):
        Database(path, FILES)

    for damaged in path.parent.glob("metadata.sqlite*"):
        damaged.rename(path.parent / f"damaged-{damaged.name}")
    shutil.copy(snapshot_path(path), path)

    with closing(Database(path, FILES)) as database:
        assert len(database.keys("")) == 500
        put(database, Put("a", b""))


def test_metadata_that_vanished_is_not_replaced_by_an_empty_file(path: Path) -> None:
    filled(path)
    copy_database(path, snapshot_path(path), FILES)
    path.unlink()
    with pytest.raises(CorruptMetadataError, match="it is gone, what it speaks of is not"):
        Database(path, FILES)
    assert not path.exists()


@pytest.mark.parametrize("content", [None, b""])
def test_where_entries_are_there_must_be_metadata(path: Path, content: bytes | None) -> None:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorruptMetadataError, match=r"what it speaks of is not.*from a backup"):
        Database(path, FILES, must_exist=True)
    assert path.exists() is (content is not None)
    assert content is None or path.read_bytes() == content
    Database(path, FILES).close()  # in an empty folder the same is a first start
    Database(path, FILES, must_exist=True).close()


def test_an_emptied_file_beside_its_copy_is_refused_with_the_way_back(path: Path) -> None:
    filled(path)
    copy_database(path, snapshot_path(path), FILES)
    path.write_bytes(b"")
    with pytest.raises(CorruptMetadataError, match=r"it is empty.*topics, policies and subs"):
        Database(path, FILES)
    assert path.read_bytes() == b""


def test_rows_are_read_beside_whoever_writes_and_only_if_they_are_sound(
    path: Path, open_database: Open
) -> None:
    database = open_database()
    put(database, Put("a/1", b"one"), Put("b/1", b"two"), Put("c/1", b"three"))
    assert read_rows(path, ["c/", "a/"]) == [("c/1", b"three"), ("a/1", b"one")]
    database._db.execute("UPDATE entries SET value = ? WHERE key = ?", (b"tow", "b/1"))
    assert read_rows(path, ["a/"]) == [("a/1", b"one")]
    with pytest.raises(CorruptMetadataError, match="b/1"):
        read_rows(path, ["a/", "b/"])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "metadata.sqlite"
    filled(path)
    return path


@settings(max_examples=200)
@example(position=0.06640625, bit=7)  # in the name of a table: SQLite's complaint is not UTF-8
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_leads_to_a_clear_error_or_to_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, sound: Path, position: float, bit: int
) -> None:
    path = tmp_path_factory.mktemp("flip") / "metadata.sqlite"
    content = bytearray(sound.read_bytes())
    content[int(position * len(content))] ^= 1 << bit
    path.write_bytes(content)
    try:
        with closing(Database(path, FILES)) as database:
            found = database.scan("k/")
    except (CorruptMetadataError, NewerFormatError):
        return
    assert [key for key, _ in found] == sorted(f"k/{b}/{e}" for b in range(10) for e in range(50))
    assert {value for _, (value, _) in found} == {b"v" * 50}


# --- the copy


def test_a_copy_is_one_whole_file_as_of_one_moment(path: Path, open_database: Open) -> None:
    database = open_database()
    put(database, Put("a", b"1"))
    target = snapshot_path(path)
    copy_database(path, target, FILES)
    put(database, Put("a", b"2"))
    assert not list(path.parent.glob("*.tmp*"))
    assert not list(path.parent.glob("*snapshot*-wal"))
    assert verify_database(target) == []
    with closing(Database(target, FILES)) as copy:
        assert copy.get("a") == Versioned(b"1", 1)


def test_a_new_copy_replaces_the_old_one_even_if_that_is_damaged(
    path: Path, open_database: Open
) -> None:
    put(open_database(), Put("a", b"1"))
    target = snapshot_path(path)
    target.write_bytes(b"nonsense")
    (path.parent / "metadata.snapshot.sqlite.tmp").write_bytes(b"left over from a crash")
    copy_database(path, target, FILES)
    assert verify_database(target) == []


def test_a_copy_that_cannot_be_made_leaves_the_old_one(path: Path) -> None:
    filled(path)
    target = snapshot_path(path)
    copy_database(path, target, FILES)
    path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(CorruptMetadataError, match="cannot copy"):
        copy_database(path, target, FILES)
    assert verify_database(target) == []


# --- checking a file that is not in use


def test_a_sound_file_has_no_findings_and_a_damaged_one_has(path: Path) -> None:
    filled(path)
    assert verify_database(path) == []
    content = bytearray(path.read_bytes())
    content[4096 * 5 : 4096 * 6] = bytes(4096)
    path.write_bytes(content)
    assert verify_database(path)


def test_checking_names_files_that_are_not_ours_or_too_new(path: Path) -> None:
    tamper(path, "CREATE TABLE theirs (x)")
    assert verify_database(path) == ["not a metadata file of Magnetar"]
    path.unlink()
    filled(path)
    tamper(path, f"PRAGMA user_version = {FORMAT + 1}")
    assert "newer" in verify_database(path)[0]
    assert verify_database(path.with_name("missing")) == ["unable to open database file"]


# --- a disk that refuses


def test_a_full_disk_refuses_the_commit_whole_and_later_ones_work(open_database: Open) -> None:
    database = open_database()
    put(database, Put("a", b"1"))
    pages = database._number("PRAGMA page_count")
    database._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailableError, match="full"):
        database.write([[Put("a", b"2"), Put("big", bytes(100_000))], [Put("c", b"")]])
    assert database.scan("") == [("a", Versioned(b"1", 1))]
    database._db.execute("PRAGMA max_page_count = 100000")
    put(database, Put("big", bytes(100_000)))


def test_a_writer_that_takes_too_long_makes_the_others_unavailable_not_wrong(path: Path) -> None:
    with (
        closing(Database(path, FILES, busy_timeout_s=0.05)) as database,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="locked"):
            database.write([[Put("a", b"")]])
        other.execute("ROLLBACK")
        put(database, Put("a", b""))


# --- several processes


def test_what_others_wrote_is_told_once(open_database: Open) -> None:
    one, two = open_database(), open_database()
    put(two, Put("a", b""), Put("b", b""))
    put(two, Delete("a"))
    assert set(one.changed_elsewhere()) == {"a", "b"}
    assert one.changed_elsewhere() == []
    assert two.changed_elsewhere() == []


def test_what_others_wrote_is_told_with_the_next_own_write(open_database: Open) -> None:
    one, two = open_database(), open_database()
    put(two, Put("a", b""))
    assert set(one.write([[Put("b", b"")]]).changed) == {"a", "b"}
    assert one.changed_elsewhere() == []
    assert set(two.changed_elsewhere()) == {"b"}


def test_old_changes_are_forgotten_and_whoever_missed_them_is_told_everything(
    open_database: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHANGES_KEPT", 50)
    monkeypatch.setattr(module, "PRUNE_STEP", 10)
    one, two = open_database(), open_database()
    for each in range(200):
        put(two, Put(f"k/{each % 30}", b""))
    assert two._number("SELECT count(*) FROM changes") <= 60
    assert set(one.changed_elsewhere()) == {f"k/{each}" for each in range(30)}


# --- a process that is killed

WRITER = """
import sys
import threading
from pathlib import Path
from magnetar.broker.files import DiskFiles
from magnetar.broker.metadata.database import Database
from magnetar.broker.metadata.store import Append, Put

database = Database(Path(sys.argv[1]), DiskFiles())
while True:
    (done,) = database.write([[Append("n", "k/", b""), Put("twin", b"")]]).outcomes
    print(done[0], flush=True)
"""


def test_nothing_that_was_acknowledged_is_lost_when_the_process_is_killed(path: Path) -> None:
    acknowledged = 0
    for round_number in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for _ in range(20 + 7 * round_number):
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read().splitlines(keepends=True)
            whole = [int(line) for line in rest if line.endswith("\n")]
            acknowledged = max([acknowledged, *whole])
        with closing(Database(path, FILES)) as database:
            counter = database.get("n")
            assert counter is not None
            assert database.get("twin") is not None
            assert int(counter.value) >= acknowledged
            numbers = range(1, int(counter.value) + 1)
            assert database.keys("k/") == [numbered("k/", number) for number in numbers]


# --- workers that start together


def test_workers_that_start_together_make_one_file(tmp_path: Path) -> None:
    together = 6
    for number in range(8):
        path = tmp_path / f"{number}.sqlite"
        start = threading.Barrier(together)

        def open_and_close(path: Path = path, start: threading.Barrier = start) -> None:
            start.wait(timeout=30)
            Database(path, FILES).close()

        with ThreadPoolExecutor(together) as pool:
            for opened in [pool.submit(open_and_close) for _ in range(together)]:
                opened.result(timeout=30)
