"""`magnetar doctor`: what it finds, and what it says about it."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from magnetar.broker.files import DiskFiles
from magnetar.cli.demo.broker import BrokerProcess, free_ports
from magnetar.client.cluster import Cluster
from magnetar.standalone.safety import MARK

COUNT = 200


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with messages, of a broker that was stopped: all is in entry logs."""
    broker = BrokerProcess(tmp_path, free_ports(1))
    try:
        broker.start()
        with Cluster(broker.ports.url) as cluster:
            producer = cluster.producer("t", block_if_queue_full=True)
            for number in range(COUNT):
                producer.send_async(f"message {number}".encode(), lambda *_: None)
            producer.flush()
        assert broker.stop() == 0
    finally:
        broker.discard()
    return tmp_path / "data"


def test_a_healthy_folder_is_sound(run: Any, folder: Path) -> None:
    ended = run("doctor", str(folder))
    assert ended.code == 0
    assert "everything is readable" in ended.out
    assert "quarantine" not in ended.out
    told = json.loads(run("doctor", str(folder), "-o", "json").out)
    assert told["sound"]
    assert told["entries"] + told["journal_entries"] >= COUNT
    assert told["findings"] == told["quarantine"] == told["metadata"] == []


def test_one_flipped_bit_is_found_and_the_lost_entries_are_named(run: Any, folder: Path) -> None:
    logs = sorted((folder / "entries").glob("*.log"))
    damaged = next(log for log in logs if b"message 100" in log.read_bytes())
    data = bytearray(damaged.read_bytes())
    data[data.index(b"message 100")] ^= 1
    damaged.write_bytes(data)

    ended = run("doctor", str(folder))
    assert ended.code == 1
    assert damaged.name in ended.out
    assert "NOT everything is readable" in ended.out
    told = json.loads(run("doctor", str(folder), "-o", "json").out)
    assert not told["sound"]
    lost = [each["lost"] for each in told["findings"] if each["lost"]]
    assert lost
    assert lost[0][0]["first"].endswith(":100")


def test_a_changed_fact_in_the_metadata_is_found(run: Any, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "metadata.sqlite")) as database, database:
        database.execute("UPDATE entries SET value = value || x'20' WHERE key LIKE '%default%'")
    ended = run("doctor", str(folder))
    assert ended.code == 1
    assert "metadata.sqlite" in ended.out


def test_what_is_no_data_folder_is_not_found(run: Any, tmp_path: Path) -> None:
    ended = run("doctor", str(tmp_path))
    assert ended.code == 3
    assert "no data folder" in ended.err


def test_a_newer_format_is_refused_and_not_misread(run: Any, tmp_path: Path) -> None:
    (tmp_path / "FORMAT").write_text("magnetar data folder, format 999\n")
    ended = run("doctor", str(tmp_path))
    assert ended.code == 1
    assert "999" in ended.err


def test_a_format_that_is_no_number_is_told_as_at_a_start(run: Any, tmp_path: Path) -> None:
    (tmp_path / "FORMAT").write_text("99\n")
    ended = run("doctor", str(tmp_path))
    assert ended.code == 1
    assert "expected magnetar data folder, format 1" in ended.err


def test_an_entry_log_that_is_gone_is_missed(run: Any, folder: Path) -> None:
    for log in (folder / "entries").glob("*.log"):
        log.unlink()
    ended = run("doctor", str(folder))
    assert ended.code == 1
    assert "entries are missing that the metadata knows; lost: " in ended.out


def test_ledgers_that_the_metadata_has_never_heard_of_are_named(run: Any, folder: Path) -> None:
    for beside in folder.glob("metadata.sqlite*"):
        beside.unlink()
    (folder / "metadata.snapshot.sqlite").rename(folder / "metadata.sqlite")
    ended = run("doctor", str(folder))
    assert ended.code == 1
    assert "ledgers on the disk belong to no topic" in ended.out
    told = json.loads(run("doctor", str(folder), "-o", "json").out)
    assert sum(told["unowned"].values()) == told["entries"] > 0


def test_it_says_that_the_last_broker_let_other_machines_in_unsafely(
    run: Any, folder: Path
) -> None:
    files = DiskFiles()
    files.write_whole(folder / "run" / MARK, b"")
    assert "INSECURE" in run("doctor", str(folder)).out
    assert json.loads(run("doctor", str(folder), "-o", "json").out)["insecure"]
    files.remove(folder / "run" / MARK)
    assert "INSECURE" not in run("doctor", str(folder)).out
