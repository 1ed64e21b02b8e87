"""The database: the metadata file itself, for one thread that may block.

    entries   key (primary) | value | version | checksum      one row per key
    changes   number (primary) | key                          who wrote what, newest last

    application_id  0x4d474e52 ("MGNR")       user_version  FORMAT

SQLite in WAL mode, synchronous=FULL: a transaction that returned is on disk. `checksum` is
the CRC32-C of key, value and version, verified on every read, because SQLite itself would
hand out a flipped bit. `changes` lets other processes see what was written since they last
looked; only the newest CHANGES_KEPT are kept.

While a process has the file open, nothing in it may open and close the file in another way:
closing any descriptor of a file drops all locks that the process holds on it (POSIX).
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from crc32c import crc32c

from magnetar.broker.files import Files
from magnetar.broker.metadata.draft import Draft
from magnetar.broker.metadata.store import (
    Change,
    CorruptMetadataError,
    NewerFormatError,
    StoreError,
    StoreUnavailableError,
    Versioned,
    check_prefix,
)

FORMAT = 1
"""Raised when an older program would misread what this one writes."""

APPLICATION_ID = 0x4D474E52
SNAPSHOT_SUFFIX = ".snapshot.sqlite"

CHANGES_KEPT = 100_000
"""A process that slept through more changes than these is told that everything may differ."""

PRUNE_STEP = 10_000
"""Old rows of `changes` go in steps of this many, so that no commit pays for all of them."""

WAL_BYTES_KEPT = 16 * 2**20
"""The WAL file is cut back to this after it was written into the main file."""

CACHE_KIB = 2048
"""Memory for pages, per process."""

RETRY_S = 0.01
"""Pause between attempts to become WAL while another process does the same."""

_SCHEMA = """
CREATE TABLE entries (
  key TEXT PRIMARY KEY, value BLOB NOT NULL, version INTEGER NOT NULL, checksum INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE changes (number INTEGER PRIMARY KEY, key TEXT NOT NULL);
"""

_KEYS = "SELECT key FROM entries WHERE key >= ? AND key < ? ORDER BY key"
_SCAN = """
SELECT key, value, version, checksum FROM entries WHERE key >= ? AND key < ? ORDER BY key
"""

_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
}


class Group(NamedTuple):
    """What became of commits that were written together."""

    outcomes: list[Any]
    """One per commit: its results, or the exception that says why it was refused."""
    changed: list[str]
    """Keys written by this group, and by other processes since the last look."""


class Database:
    """One connection to the metadata file."""

    def __init__(
        self,
        path: Path,
        files: Files,
        *,
        must_exist: bool = False,
        verify: bool = True,
        busy_timeout_s: float = 10.0,
    ) -> None:
        """Open the file, making it if there is none; `verify` reads through all of it.

        `must_exist`: the folder has been served from, so there was one, and something in it.

        Raises:
            CorruptMetadataError: it is damaged, gone, or no metadata. Nothing was changed.
            NewerFormatError: a newer program wrote it. Nothing was changed.
            StoreUnavailableError: the disk refused.
        """
        self._path = path
        self._files = files
        # What says so is older than this look at the file, which another process may just make.
        self._must_exist = must_exist or files.exists(snapshot_path(path))
        self._demand_not_lost()
        if not files.exists(path):
            with suppress(FileExistsError):  # another process that starts now was faster
                files.open(path, write=True, create=True).close()  # with our mode; SQLite keeps it
        with self._explained():
            self._db = sqlite3.connect(
                path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(busy_timeout_s, verify=verify)
                self._seen = self._last_change()
                self._data_version = self._number("PRAGMA data_version")
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Let go of the file. Calling it twice is harmless."""
        self._db.close()

    # --- reading

    def get(self, key: str) -> Versioned | None:
        """Return what lies under a key; None: nothing.

        Raises:
            CorruptMetadataError: its checksum is wrong.
        """
        with self._explained():
            row = self._db.execute(
                "SELECT value, version, checksum FROM entries WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else self._checked(key, *row)

    def keys(self, prefix: str) -> list[str]:
        """Return the keys under a prefix, sorted."""
        with self._explained():
            rows = self._db.execute(_KEYS, _range(prefix))
            return [key for (key,) in rows]

    def scan(self, prefix: str) -> list[tuple[str, Versioned]]:
        """Return everything under a prefix, sorted by key.

        Raises:
            CorruptMetadataError: the checksum of one is wrong.
        """
        with self._explained():
            rows = self._db.execute(_SCAN, _range(prefix)).fetchall()
        return [(key, self._checked(key, *rest)) for key, *rest in rows]

    # --- writing

    def write(self, commits: Sequence[Sequence[Change]]) -> Group:
        """Make commits durable, in one transaction; those whose conditions fail are left out.

        Raises:
            StoreUnavailableError: the disk refused, or another process writes for too long.
                None of the commits was made.
            CorruptMetadataError: the file is damaged. None of the commits was made.
        """
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                last = self._last_change()
                changed = self._changed_since(self._seen, last)
                draft = Draft(self.get, self.keys, last)
                outcomes = [_add(draft, commit) for commit in commits]
                self._write(draft)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        self._seen = draft.last_change
        return Group(outcomes, [*changed, *draft.writes])

    def changed_elsewhere(self) -> list[str]:
        """Return the keys that other processes have written since the last look or write."""
        with self._explained():
            data_version = self._number("PRAGMA data_version")
            if data_version == self._data_version:
                return []
            last = self._last_change()
            changed = self._changed_since(self._seen, last)
        self._data_version, self._seen = data_version, last
        return changed

    def _write(self, draft: Draft) -> None:
        if not draft.writes:
            return
        rows = sorted(draft.writes.items())  # neighbours in the file are written together
        self._db.executemany(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)",
            [
                (key, value, number, _checksum(key, value, number))
                for key, (number, value) in rows
                if value is not None
            ],
        )
        self._db.executemany(
            "DELETE FROM entries WHERE key = ?",
            [(key,) for key, (_, value) in rows if value is None],
        )
        self._db.executemany(
            "INSERT INTO changes VALUES (?, ?)",
            sorted((number, key) for key, (number, _) in rows),
        )
        first = self._number("SELECT min(number) FROM changes")
        if draft.last_change - first >= CHANGES_KEPT + PRUNE_STEP:
            oldest_kept = draft.last_change - CHANGES_KEPT
            self._db.execute("DELETE FROM changes WHERE number < ?", (oldest_kept,))

    def _changed_since(self, seen: int, last: int) -> list[str]:
        if last == seen:
            return []
        first = self._number("SELECT coalesce(min(number), 0) FROM changes")
        if seen + 1 < first - PRUNE_STEP:  # numbers have gaps, hence some slack
            return self.keys("")
        rows = self._db.execute("SELECT key FROM changes WHERE number > ?", (seen,))
        return [key for (key,) in rows]

    def _last_change(self) -> int:
        return self._number("SELECT coalesce(max(number), 0) FROM changes")

    def _number(self, query: str) -> int:
        number: int = self._db.execute(query).fetchone()[0]
        return number

    # --- opening

    def _prepare(self, busy_timeout_s: float, *, verify: bool) -> None:
        self._db.execute("PRAGMA trusted_schema = OFF")
        self._db.execute("PRAGMA cell_size_check = ON")
        self._demand_format()
        self._become_wal(busy_timeout_s)
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA fullfsync = ON")  # macOS: a plain fsync stops in the drive
        self._db.execute("PRAGMA checkpoint_fullfsync = ON")
        self._db.execute(f"PRAGMA cache_size = {-CACHE_KIB}")
        self._db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
        self._create()
        if verify and (finding := next(_findings(self._db), None)):
            raise CorruptMetadataError(self._advice(finding))

    def _demand_not_lost(self) -> None:
        """Refuse to start from nothing where there was something."""
        if self._must_exist and not self._files.exists(self._path):
            raise CorruptMetadataError(self._advice("it is gone, what it speaks of is not"))

    def _demand_format(self) -> None:
        # One transaction: another process may be creating the file between two of the reads.
        self._db.execute("BEGIN")
        application = self._number("PRAGMA application_id")
        version = self._number("PRAGMA user_version")
        tables = self._number("SELECT count(*) FROM sqlite_schema")
        self._db.execute("COMMIT")
        if application == 0 and version == 0 and tables == 0:
            if self._must_exist:
                raise CorruptMetadataError(self._advice("it is empty, what it speaks of is not"))
            return  # fresh
        if application != APPLICATION_ID:
            raise CorruptMetadataError(f"{self._path} is an SQLite file, but not Magnetar's")
        if version > FORMAT:
            raise NewerFormatError(
                f"{self._path} has metadata format {version}, written by a newer Magnetar; this "
                f"one understands up to {FORMAT}. Nothing was changed; start the newer program."
            )

    def _become_wal(self, busy_timeout_s: float) -> None:
        deadline = time.monotonic() + busy_timeout_s  # noqa: TID251 - waits for another process
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                # Two processes that start together: SQLite does not wait here by itself.
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:  # noqa: TID251
                    raise
                time.sleep(RETRY_S)
            else:
                return

    def _create(self) -> None:
        if self._number("PRAGMA user_version"):
            return
        self._db.execute("BEGIN IMMEDIATE")
        if not self._number("PRAGMA user_version"):  # nobody was faster
            for statement in _SCHEMA.strip().split(";\n"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version = {FORMAT}")
        self._db.execute("COMMIT")

    # --- errors

    def _checked(self, key: str, value: bytes, version: int, checksum: int) -> Versioned:
        if not _sound(key, value, version, checksum):
            raise CorruptMetadataError(self._advice(f"the checksum of key {key} is wrong"))
        return Versioned(value, version)

    def _advice(self, finding: str) -> str:
        snapshot = snapshot_path(self._path)
        advice = f"{self._path} is damaged: {finding}. Nothing was changed. "
        if not self._files.exists(snapshot):
            return advice + "There is no copy beside it; restore the folder from a backup."
        return advice + (
            f"{snapshot.name} is a copy from the last clean start. To go back to it: stop "
            f"Magnetar, move {self._path.name}, {self._path.name}-wal and {self._path.name}-shm "
            f"into quarantine, copy {snapshot.name} to {self._path.name}, start again. What was "
            "changed since then is lost: topics, policies and subscriptions have to be made "
            "again, subscriptions that were there go back to where they stood, and messages "
            "published to ledgers that the copy does not know are kept on the disk, but no topic "
            "has them. The log of the start, and `magnetar doctor`, name them. A backup may be "
            "the better way back."
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into ours."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # ours
        except sqlite3.DatabaseError as error:
            if _code(error) in _UNAVAILABLE:
                raise StoreUnavailableError(f"{self._path}: {error}; try again") from error
            # Not only SQLITE_CORRUPT: a damaged schema is "no such table", a key "not UTF-8".
            raise CorruptMetadataError(self._advice(str(error))) from error
        except UnicodeDecodeError as error:  # what SQLite says quotes the damaged name
            raise CorruptMetadataError(self._advice("a name in it is not UTF-8")) from error


def snapshot_path(path: Path) -> Path:
    """Return where the copy of a metadata file lies."""
    return path.with_name(path.stem + SNAPSHOT_SUFFIX)


def copy_database(path: Path, target: Path, files: Files) -> None:
    """Copy a metadata file, as of one moment, while others may write to it.

    The target appears whole and synced, in place of an older one, or not at all.

    Raises:
        CorruptMetadataError: the file cannot be read.
        StoreUnavailableError: the disk refused.
    """
    unfinished = target.with_name(target.name + ".tmp")
    for leftover in (unfinished, Path(f"{unfinished}-journal"), Path(f"{unfinished}-wal")):
        if files.exists(leftover):
            files.remove(leftover)
    files.open(unfinished, write=True, create=True).close()
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(unfinished)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, with nothing beside it
    except sqlite3.DatabaseError as error:
        if _code(error) in _UNAVAILABLE:
            raise StoreUnavailableError(f"cannot copy {path}: {error}") from error
        raise CorruptMetadataError(f"cannot copy {path}: {error}") from error
    files.rename(unfinished, target)
    files.sync_dir(target.parent)


def verify_database(path: Path) -> list[str]:
    """Return everything that is wrong with a metadata file, in words. Changes nothing."""
    findings: list[str] = []
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                return ["not a metadata file of Magnetar"]
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > FORMAT:
                return [f"format {version} of a newer Magnetar; this one understands {FORMAT}"]
            findings.extend(_findings(db))
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        findings.append(str(error))
    return findings


def read_rows(path: Path, prefixes: Sequence[str]) -> list[tuple[str, bytes]]:
    """Return the keys and values under some prefixes, as of one moment. Changes nothing.

    Raises:
        CorruptMetadataError: the file cannot be read, or a checksum is wrong.
    """
    rows: list[tuple[str, bytes]] = []
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            db.execute("BEGIN")
            for prefix in prefixes:
                for key, value, version, checksum in db.execute(_SCAN, _range(prefix)):
                    if not _sound(key, value, version, checksum):
                        raise CorruptMetadataError(f"the checksum of key {key} is wrong")
                    rows.append((key, value))
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise CorruptMetadataError(f"cannot read {path}: {error}") from error
    return rows


def _findings(db: sqlite3.Connection) -> Iterator[str]:
    """Yield what is wrong. Every row is read: SQLite's checks take keys on trust.

    One flipped bit in a key of an inner page hides a part of the tree from searches, and
    neither quick_check nor integrity_check sees it; the checksum of that row does.
    """
    for (finding,) in db.execute("PRAGMA quick_check"):
        if finding != "ok":
            yield finding
    for key, value, version, checksum in db.execute(
        "SELECT key, value, version, checksum FROM entries"
    ):
        if not _sound(key, value, version, checksum):
            yield f"the checksum of key {key} is wrong"


def _range(prefix: str) -> tuple[str, str]:
    """Return the first key under a prefix, and the first one beyond."""
    if not check_prefix(prefix):
        return "", "\U0010ffff"
    return prefix, prefix[:-1] + chr(ord("/") + 1)


def _add(draft: Draft, changes: Sequence[Change]) -> list[int | None] | StoreError:
    try:
        return draft.add(changes)
    except StoreError as error:
        return error


def _sound(key: object, value: object, version: object, checksum: object) -> bool:
    """Return whether a row is as it was written; damage may change even the type of a field."""
    match key, value, version:
        case str(), bytes(), int() if version >= 0:
            return _checksum(key, value, version) == checksum
    return False


def _checksum(key: str, value: bytes, version: int) -> int:
    return crc32c(version.to_bytes(8, "little"), crc32c(value, crc32c(key.encode())))


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code; 0: the error is not SQLite's."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
