"""The broker process of the demo: finding ports, waiting, killing a whole family."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from magnetar.cli.demo.broker import BrokerProcess, Ports, free_ports, group_members, wait_until
from magnetar.cli.errors import CommandError


def test_the_ports_found_are_free_and_move_together() -> None:
    ports = free_ports(workers=2)
    assert ports.url == f"pulsar://127.0.0.1:{6650 + ports.offset}"
    assert ports.admin_url == f"http://127.0.0.1:{8080 + ports.offset}"
    for port in (6650, 6660, 6661, 8080):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", port + ports.offset))


def test_without_attempts_no_ports_are_found() -> None:
    with pytest.raises(CommandError, match="no free ports"):
        free_ports(1, attempts=0)


def test_waiting_ends_with_the_condition_or_with_the_limit() -> None:
    asked = list[int]()

    def third_time() -> bool:
        asked.append(1)
        return len(asked) == 3

    wait_until(third_time, "it", 5)
    now = iter(range(100))
    with pytest.raises(CommandError, match="it: not within 3 s"):
        wait_until(lambda: False, "it", 3, lambda: next(now))


PARENT = """
import subprocess, sys, time
children = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) for _ in "ab"]
print("started", flush=True)
time.sleep(60)
"""


def test_killing_takes_the_workers_with_the_supervisor(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path, Ports(0))
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    broker._process = process
    family = group_members(process.pid)
    assert len(family) == 3
    assert broker.kill() == 3
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    assert broker.pid == 0
    for pid in family:
        state = Path(f"/proc/{pid}/stat")
        assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_broker_that_ends_at_once_shows_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = BrokerProcess(tmp_path, free_ports(1))
    code = "import sys; print(*range(100), sep='\\n'); sys.exit('port is taken')"
    monkeypatch.setattr(broker, "_command", [sys.executable, "-c", code])
    with pytest.raises(CommandError, match="port is taken") as caught:
        broker.start()
    assert "\n    99" in str(caught.value)
    assert "\n    50" not in str(caught.value)
    broker.discard()


def test_the_users_own_settings_do_not_reach_the_demos_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAGNETAR_WORKERS", "7")
    broker = BrokerProcess(tmp_path, free_ports(1))
    code = "import os; print('settings:', *(k for k in os.environ if k.startswith('MAGNETAR')))"
    monkeypatch.setattr(broker, "_command", [sys.executable, "-c", code])
    with pytest.raises(CommandError):
        broker.start()
    assert broker.log_end().strip() == "settings:"
    assert os.environ["MAGNETAR_WORKERS"] == "7"
