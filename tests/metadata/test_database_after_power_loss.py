"""The metadata file after a power loss at every system call: what was acknowledged is there.

The writer's system calls are recorded by strace and replayed onto a model of a disk. Where
strace is missing, `test_database` still kills a writer.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from magnetar.broker.files import DiskFiles
from magnetar.broker.metadata.database import Database
from magnetar.broker.metadata.store import StoreError
from tests.metadata.power_loss import Disk, Operation, trace

WRITER = """
import sys
from pathlib import Path
from magnetar.broker.files import DiskFiles
from magnetar.broker.metadata.database import Database
from magnetar.broker.metadata.store import Append, Delete, Put, numbered

def write(receipts):
    database = Database(Path(sys.argv[1]), DiskFiles())
    database._db.execute("PRAGMA wal_autocheckpoint = 12")  # so that there are some
    for _ in range(receipts):
        value = b"v" * 1500
        changes = [Append("n", "k/", value), Put("large", value * 4), Put("small", b"")]
        ((number, *_),) = database.write([changes]).outcomes
        sys.stdout.write(f"{number}")
        sys.stdout.flush()
    database.close()

write(24)
write(12)
"""

STATES_PER_OPERATION = 6

strace = shutil.which("strace")

pytestmark = [
    pytest.mark.skipif(strace is None, reason="records system calls with strace"),
    pytest.mark.timeout(120),
]


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> list[Operation]:
    folder = tmp_path_factory.mktemp("traced")
    assert strace is not None
    return trace([sys.executable, "-c", WRITER, str(folder / "metadata.sqlite")], folder, strace)


@pytest.fixture
def after(tmp_path: Path) -> Iterator[Path]:
    """Yield where to lay out what a crash left: in memory where possible, it is only read."""
    memory = Path("/dev/shm")
    top = memory if os.access(memory, os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(dir=top) as folder:
        yield Path(folder) / "after"


def crashes(operations: list[Operation], disk: Disk) -> Iterator[tuple[int, dict[str, bytes]]]:
    """Yield what was acknowledged before each crash, and the folder it left; no folder twice."""
    acknowledged, seen = 0, set[int]()
    for number, operation in enumerate(operations):
        if operation.call == "receipt":
            acknowledged = int(operation.path)
            continue
        disk.apply(operation)
        for state in disk.states(number, STATES_PER_OPERATION):
            if (folder := hash((acknowledged, *sorted(state.items())))) not in seen:
                seen.add(folder)
                yield acknowledged, state


def found_after(state: dict[str, bytes], folder: Path) -> int:
    """Open what a crash left; return how many commits are there, whole."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in state.items():
        (folder / name).write_bytes(content)
    with closing(Database(folder / "metadata.sqlite", DiskFiles())) as database:
        counter = database.get("n")
        count = 0 if counter is None else int(counter.value)
        assert len(database.scan("k/")) == count
        assert (database.get("large") is not None) == (count > 0)
        assert (database.get("small") is not None) == (count > 0)
    return count


def test_the_trace_holds_what_a_writer_does(operations: list[Operation]) -> None:
    calls = [operation.call for operation in operations]
    assert calls.count("receipt") == 36
    assert calls.count("sync") >= 36
    assert {"create", "remove", "write", "sync_folder"} <= set(calls)
    assert {operation.path for operation in operations if operation.call == "write"} >= {
        "metadata.sqlite",
        "metadata.sqlite-wal",
    }


def test_a_power_loss_at_any_system_call_loses_nothing_that_was_acknowledged(
    operations: list[Operation], after: Path
) -> None:
    states = 0
    for acknowledged, state in crashes(operations, Disk()):
        states += 1
        assert found_after(state, after) in {acknowledged, acknowledged + 1}
    assert states > 1000


def test_on_a_disk_that_ignores_syncs_the_loss_is_noticed(
    operations: list[Operation], after: Path
) -> None:
    for acknowledged, state in crashes(operations, Disk(syncs_work=False)):
        try:
            lost = found_after(state, after) < acknowledged
        except (StoreError, AssertionError):
            lost = True
        if lost:
            return
    pytest.fail("no state of a disk without syncs lost anything")
