"""The store on one machine: groups, threads and several processes."""

import asyncio
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from magnetar.broker.files import DiskFiles
from magnetar.broker.metadata.database import Database, Group, snapshot_path, verify_database
from magnetar.broker.metadata.partitions import Partitions, TopicRecord
from magnetar.broker.metadata.sqlite import SqliteStore
from magnetar.broker.metadata.store import (
    Change,
    CorruptMetadataError,
    Increment,
    NewerFormatError,
    Put,
    StoreUnavailableError,
)
from magnetar.names import NamespaceName, TopicName

FILES = DiskFiles()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metadata.sqlite"


class Counting(Database):
    """Counts transactions, and can be told to fail one."""

    groups: list[int]
    fail: Exception | None = None

    def write(self, commits: Sequence[Sequence[Change]]) -> Group:
        self.groups.append(len(commits))
        if self.fail:
            error, self.fail = self.fail, None
            raise error
        return super().write(commits)


async def counting_store(path: Path) -> tuple[SqliteStore, Counting]:
    database = Counting(path, FILES)
    database.groups = []
    return SqliteStore(path, FILES, database, None), database


async def test_commits_that_come_together_share_a_transaction(path: Path) -> None:
    store, database = await counting_store(path)
    await asyncio.gather(*(store.commit([Put(f"k/{each}", b"")]) for each in range(1000)))
    assert len(await store.keys("k/")) == 1000
    assert sum(database.groups) == 1000
    assert len(database.groups) <= 10
    await store.close()


async def test_ten_thousand_topics_are_created_in_a_few_transactions(path: Path) -> None:
    store, database = await counting_store(path)
    await store.commit([Put("namespaces/public/default", b"{}")])
    topics = [TopicName.parse(f"t{each}") for each in range(10_000)]
    partitions = Partitions(store)
    await asyncio.gather(*(partitions.create_topic(each, TopicRecord()) for each in topics))
    assert len(await partitions.list_topics(NamespaceName("public", "default"))) == 10_000
    assert len(database.groups) < 100
    await store.close()


async def test_a_commit_then_a_read_sees_the_commit_however_they_are_grouped(path: Path) -> None:
    store = await SqliteStore.open(path, FILES)
    for each in range(50):
        _, found = await asyncio.gather(store.commit([Put("a", b"%d" % each)]), store.get("a"))
        assert found is not None
        assert found.value == b"%d" % each
    await store.close()


async def test_a_failed_transaction_fails_its_group_and_not_the_next(path: Path) -> None:
    store, database = await counting_store(path)
    database.fail = StoreUnavailableError("planted")
    with pytest.raises(StoreUnavailableError, match="planted"):
        await store.commit([Put("a", b"")])
    await store.commit([Put("b", b"")])
    assert await store.keys("") == ["b"]
    await store.close()


async def test_even_a_bug_below_reaches_who_waits(path: Path) -> None:
    store, database = await counting_store(path)
    database.fail = RuntimeError("planted")
    with pytest.raises(RuntimeError, match="planted"):
        await store.commit([Put("a", b"")])
    await store.close()


async def test_who_stops_waiting_disturbs_nobody(path: Path) -> None:
    store = await SqliteStore.open(path, FILES)
    impatient = asyncio.create_task(store.commit([Put("a", b"")]))
    await asyncio.sleep(0)
    impatient.cancel()
    await store.commit([Put("b", b"")])
    assert "b" in await store.keys("")
    await store.close()


async def test_what_was_committed_before_closing_is_done(path: Path) -> None:
    store = await SqliteStore.open(path, FILES)
    commits = [asyncio.create_task(store.commit([Put(f"k/{each}", b"")])) for each in range(50)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*commits)
    with closing(Database(path, FILES)) as database:
        assert len(database.keys("k/")) == 50


async def test_a_closed_store_leaves_one_file_and_no_thread(path: Path) -> None:
    before = set(threading.enumerate())  # tests that kill a broker leave theirs behind
    store = await SqliteStore.open(path, FILES)
    await store.commit([Put("a", b"")])
    assert _metadata_threads_since(before)
    await asyncio.gather(store.close(), store.close())
    assert [file.name for file in path.parent.iterdir()] == ["metadata.sqlite"]
    assert not _metadata_threads_since(before)


def _metadata_threads_since(before: set[threading.Thread]) -> list[threading.Thread]:
    return [each for each in set(threading.enumerate()) - before if each.name == "metadata"]


async def test_a_file_that_is_refused_is_refused_by_the_store(path: Path) -> None:
    path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(CorruptMetadataError):
        await SqliteStore.open(path, FILES)
    path.unlink()
    await (await SqliteStore.open(path, FILES)).close()
    with closing(Database(path, FILES)) as database:
        database._db.execute("PRAGMA user_version = 99")
    with pytest.raises(NewerFormatError):
        await SqliteStore.open(path, FILES)


async def test_a_snapshot_is_taken_while_work_goes_on(path: Path) -> None:
    store = await SqliteStore.open(path, FILES)
    await store.commit([Put("a", b"1")])
    copy, *_ = await asyncio.gather(
        store.snapshot(), *(store.commit([Put(f"k/{each}", b"")]) for each in range(100))
    )
    assert copy == snapshot_path(path)
    assert verify_database(copy) == []
    await store.close()


# --- several stores on one file; each has its own thread and connection, as processes do


async def test_a_watcher_hears_what_another_process_changed(path: Path) -> None:
    one = await SqliteStore.open(path, FILES, poll_interval_s=0.01)
    two = await SqliteStore.open(path, FILES, verify=False, poll_interval_s=None)
    heard: asyncio.Queue[str] = asyncio.Queue()

    def hear(keys: Sequence[str]) -> None:
        for key in keys:
            heard.put_nowait(key)

    one.watch("a/", hear)
    await two.commit([Put("b/1", b""), Put("a/1", b"")])
    assert await asyncio.wait_for(heard.get(), 30) == "a/1"
    assert heard.empty()
    await asyncio.gather(one.close(), two.close())


async def test_a_nudge_is_enough_where_nobody_polls(path: Path) -> None:
    one = await SqliteStore.open(path, FILES, poll_interval_s=None)
    two = await SqliteStore.open(path, FILES, verify=False, poll_interval_s=None)
    heard: asyncio.Queue[Sequence[str]] = asyncio.Queue()
    one.watch("", heard.put_nowait)
    await one.get("")  # the look that follows `watch` is over
    await two.commit([Put("a", b"")])
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(heard.get(), 0.1)
    one.nudge()
    assert await asyncio.wait_for(heard.get(), 30) == ["a"]
    await asyncio.gather(one.close(), two.close())


COUNTER = """
import asyncio, sys
from pathlib import Path
from magnetar.broker.files import DiskFiles
from magnetar.broker.metadata.sqlite import SqliteStore
from magnetar.broker.metadata.store import Increment

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]), DiskFiles())
    for _ in range(20):
        await asyncio.gather(*(store.commit([Increment("n")]) for _ in range(25)))
    await store.close()

asyncio.run(main())
"""


async def test_processes_that_start_together_on_nothing_count_together(path: Path) -> None:
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", COUNTER, str(path))
        for _ in range(3)
    ]
    assert [await each.wait() for each in processes] == [0, 0, 0]
    store = await SqliteStore.open(path, FILES)
    assert await store.commit([Increment("n")]) == [1501]
    await store.close()
