"""What the kernel was really asked to do, replayed into power losses: SQLite's files included.

The simulated disk of the other tests sits behind `files.py`, and sees what that module says.
Here a tracer records the system calls of a real process, metadata and all. Slower, so the
day is short and the states are many.
"""

import asyncio
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from magnetar.broker.clock import ManualClock
from magnetar.broker.entry import EARLIEST, EntryId
from magnetar.broker.files import DiskFiles
from magnetar.broker.metadata.chains import Chain
from magnetar.broker.metadata.sqlite import SqliteStore
from magnetar.broker.metrics import Metrics
from magnetar.broker.port import TopicNotFoundError
from magnetar.broker.storage.errors import Gap
from magnetar.broker.storage.ledgers import Ledgers
from magnetar.broker.storage.log import Log
from tests.storage import traced_writer
from tests.storage.disk import CrashState, Event, crash_states
from tests.storage.rig import inline_pools
from tests.storage.system_calls import OPTIONS, Recorder
from tests.storage.traced_writer import METADATA, TOPIC, body_of, config_of

STATES = int(os.environ.get("TESTS_TRACE_STATES", "250"))
MESSAGES = 80

pytestmark = [
    pytest.mark.skipif(platform.system() != "Linux", reason="system calls are traced on Linux"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event], set[str]]:
    """Run the writer once under strace."""
    folder = tmp_path_factory.mktemp("traced").resolve()
    data, trace = folder / "data", folder / "trace"
    data.mkdir()
    writer = Path(traced_writer.__file__)
    source = Path(sys.modules["magnetar"].__file__ or "").parents[1]
    ran = subprocess.run(
        [
            "strace",
            *OPTIONS,
            "-o",
            str(trace),
            sys.executable,
            str(writer),
            str(data),
            str(MESSAGES),
        ],
        env={**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    if ran.returncode and b"ptrace" in ran.stderr:
        pytest.skip("this machine does not allow tracing")
    assert ran.returncode == 0, ran.stderr.decode()
    recorder = Recorder(data)
    with trace.open() as lines:
        events = recorder.record(lines)
    assert f"ACK {MESSAGES}" in ran.stdout.decode()
    return data, events, recorder.folders


def acknowledged(state: CrashState) -> int:
    """Return how many messages the writer had called durable."""
    printed = b"".join(note for note in state.notes if isinstance(note, bytes))
    lines = printed.split(b"\n")[:-1]
    return max((int(line.removeprefix(b"ACK ")) for line in lines), default=0)


async def survivors(state: CrashState, data: Path, scratch: Path) -> int:
    """Recover; return how many messages are there, in order and without a hole."""
    metadata = scratch / METADATA
    for name in list(state.disk.names):
        if name.startswith(str(data / METADATA)):
            target = scratch / Path(name).name
            target.write_bytes(state.disk.names.pop(name).data)
    store = await SqliteStore.open(metadata, DiskFiles(), poll_interval_s=None)
    config = config_of(data)
    ledgers = Ledgers(
        config,
        state.disk,
        ManualClock(),
        Metrics(),
        asyncio.get_running_loop(),
        threaded=False,
        pools=inline_pools(),
    )
    try:
        chain = Chain(store, TOPIC)
        ends = {record.ledger: record.end_entry for record in await chain.load()}
        recovered = await ledgers.recover([0], recorded_end=ends.get)
        assert recovered.gaps == []
        log = Log(ledgers, chain, config, ManualClock())
        try:
            await log.load()
        except TopicNotFoundError:
            return 0  # not even the topic had been acknowledged
        return await read_in_order(log)
    finally:
        ledgers._restart_flush_timer()
        await store.close()


async def read_in_order(log: Log) -> int:
    number = 0
    position = log.next_position(EARLIEST)
    while position < log.end:
        found = await log.read(position, 100, 1 << 20)
        assert not isinstance(found, Gap), found
        at, run = found
        for row in range(run.count):
            assert bytes(run.body(row)) == body_of(number)
            number += 1
        position = log.next_position(EntryId(at.ledger, at.entry + run.count))
    assert log.next_index == number
    return number


async def violations(
    events: Sequence[Event], data: Path, folders: set[str], scratch: Path, keep: float
) -> list[str]:
    """Return the crash states that lose something acknowledged, of a share of all states."""
    found, tried = [], 0
    for state in crash_states(events, folders, Random(1), keep=keep):
        place = scratch / str(tried)
        place.mkdir()
        tried += 1
        wanted = acknowledged(state)
        try:
            there = await survivors(state, data, place)
            assert there >= wanted, f"{there} messages of {wanted}"
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is a violation
            found.append(f"event {state.at}, {state.variant}: {error!r}")
        shutil.rmtree(place)
    assert tried
    return found


def test_the_replay_ends_with_the_files_that_are_really_there(
    traced: tuple[Path, list[Event], set[str]],
) -> None:
    data, events, folders = traced
    *_, last = crash_states(events, folders, Random(1), variants=["kept"])
    real = {
        str(path): path.read_bytes()
        for path in data.rglob("*")
        if path.is_file() and not path.name.endswith("-shm")
    }
    assert last.disk.contents() == real


@pytest.mark.timeout(240)
async def test_no_power_loss_of_the_real_process_loses_anything_acknowledged(
    traced: tuple[Path, list[Event], set[str]], tmp_path: Path
) -> None:
    data, events, folders = traced
    real = [event for event in events if event.what != "note"]
    assert len(real) > 100
    keep = min(1.0, STATES / (len(real) * 8))
    assert await violations(events, data, folders, tmp_path, keep) == []


@pytest.mark.timeout(240)
async def test_without_the_syncs_in_the_trace_the_loss_is_seen(
    traced: tuple[Path, list[Event], set[str]], tmp_path: Path
) -> None:
    data, events, folders = traced
    without = [event for event in events if event.what != "sync"]
    keep = min(1.0, 60 / (len(without) * 8))
    assert len(await violations(without, data, folders, tmp_path, keep)) > 5
