"""`magnetar backup` and `restore`, while the broker goes on writing."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from magnetar.cli.demo.broker import BrokerProcess, free_ports
from magnetar.client.cluster import Cluster
from magnetar.client.follow import follow


class Publishing(threading.Thread):
    """Publishes numbers, one after the other, and knows which are acknowledged."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self._producer = cluster.producer("t")
        self.acknowledged = 0
        self.enough = threading.Event()
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            self._producer.send(f"{self.acknowledged}".encode())
            self.acknowledged += 1
            if self.acknowledged == 100:
                self.enough.set()


def test_a_backup_made_while_writing_holds_all_that_was_acknowledged_before(
    run: Any, broker: BrokerProcess, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Cluster(broker.ports.url) as cluster:
        consumer = cluster.consumer("t", "s")
        publishing = Publishing(cluster)
        publishing.start()
        for _ in range(50):
            consumer.acknowledge(consumer.receive(10_000))
        assert publishing.enough.wait(60)
        before = publishing.acknowledged
        ended = run("backup", str(tmp_path / "data"), str(tmp_path / "copy"), "-o", "json")
        publishing.stopping.set()
        publishing.join()
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["files"] > 0
    assert run("doctor", str(tmp_path / "copy")).code == 0

    other = tmp_path_factory.mktemp("other")  # a short path: sockets are in it
    assert run("restore", str(tmp_path / "copy"), str(other / "data")).code == 0
    second = BrokerProcess(other, free_ports(1))
    try:
        second.start()
        with Cluster(second.ports.url) as cluster:
            found = [int(each.data()) for each in follow(cluster, "t", until_end=True)]
            assert found == list(range(len(found)))  # nothing missing in between
            assert len(found) >= before
            consumer = cluster.consumer("t", "s")
            assert int(consumer.receive(10_000).data()) <= 50
            cluster.producer("t").send(b"life goes on")
        assert second.stop() == 0
    finally:
        second.discard()
    assert broker.stop() == 0  # the first one never noticed


def test_a_backup_goes_into_an_empty_folder_only(
    run: Any, broker: BrokerProcess, tmp_path: Path
) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "mine").touch()
    for verb in ("backup", "restore"):
        ended = run(verb, str(tmp_path / "data"), str(tmp_path / "copy"))
        assert ended.code == 1
        assert "not empty" in ended.err
    assert (tmp_path / "copy" / "mine").exists()


def test_what_is_no_data_folder_is_not_copied(run: Any, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    for verb in ("backup", "restore"):
        ended = run(verb, str(tmp_path / "nothing"), str(tmp_path / "copy"))
        assert ended.code == 3
    assert not (tmp_path / "copy").exists()
