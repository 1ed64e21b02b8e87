"""`magnetar standalone`: what is asked for, and a broker that starts, refuses and stops."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from magnetar.broker import compiled
from magnetar.cli import standalone as module
from magnetar.cli.demo.broker import BrokerProcess, free_ports
from magnetar.cli.settings import Merged, SettingsError
from magnetar.cli.standalone import DEFAULT_DATA, options_from
from magnetar.standalone.options import StandaloneOptions

FULL = Path("/dev/full")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[StandaloneOptions]:
    """What would have been started."""
    found: list[StandaloneOptions] = []

    def run(options: StandaloneOptions, say: object, *, as_json: bool) -> int:
        assert callable(say)
        assert not as_json
        found.append(options)
        return 0

    monkeypatch.setattr(module, "run", run)
    for name in [name for name in os.environ if name.startswith("MAGNETAR_")]:
        monkeypatch.delenv(name)
    return found


def test_without_a_word_it_listens_to_this_machine_only(run: Any, started: Any) -> None:
    assert run("standalone").code == 0
    assert started == [StandaloneOptions(data=Path(DEFAULT_DATA))]
    assert started[0].listen == "127.0.0.1"
    assert not started[0].insecure


def test_a_value_out_of_bounds_is_a_usage_error_however_it_came(
    run: Any, started: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "magnetar.toml").write_text("[settings]\njournal_window_ms = 25\n")
    ended = run("standalone", "--config", str(tmp_path / "magnetar.toml"))
    assert (ended.code, started) == (2, [])
    assert "journal_window_ms is 25, allowed: 0 to 20" in ended.err
    monkeypatch.setenv("MAGNETAR_KEEP_ALIVE_S", "0")
    assert run("standalone").code == 2
    monkeypatch.delenv("MAGNETAR_KEEP_ALIVE_S")
    assert run("standalone", "--workers", "5000").code == 2


def test_file_environment_and_flags_come_together(
    run: Any, started: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "magnetar.toml").write_text(
        'workers = 2\ndata = "/in/file"\n[settings]\ndeduplication = true\n'
        '[listeners]\noutside = "broker.example"\n'
    )
    monkeypatch.setenv("MAGNETAR_JOURNAL_WINDOW_MS", "0.5")
    monkeypatch.setenv("MAGNETAR_DATA", "/in/environment")
    monkeypatch.setenv("MAGNETAR_WORKRES", "9")
    ended = run("standalone", "--config", str(tmp_path / "magnetar.toml"), "--workers", "3")
    assert started == [
        StandaloneOptions(
            data=Path("/in/environment"),
            workers=3,
            listeners={"outside": "broker.example"},
            settings={"deduplication": True, "journal_window_ms": 0.5},
        )
    ]
    assert ended.err == "magnetar: MAGNETAR_WORKRES is no setting, ignored\n"


@pytest.mark.parametrize("said", ["flag", "file", "environment"])
def test_a_single_port_can_be_asked_for_in_every_way(
    run: Any, started: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    (tmp_path / "magnetar.toml").write_text("single_port = true\n")
    if said == "environment":
        monkeypatch.setenv("MAGNETAR_SINGLE_PORT", "yes")
    flags = {
        "flag": ["--single-port"],
        "file": ["--config", str(tmp_path / "magnetar.toml")],
        "environment": [],
    }
    assert run("standalone", *flags[said]).code == 0
    assert started[0].single_port


def test_auto_is_one_worker_per_core() -> None:
    cores = options_from(Merged({"workers": "auto"}, {})).workers
    assert 1 <= cores <= (os.cpu_count() or 1)


@pytest.mark.parametrize("workers", ["0", "-1", "many", "1.5"])
def test_a_number_of_workers_that_is_none_is_refused(run: Any, started: Any, workers: str) -> None:
    with pytest.raises(SettingsError):
        options_from(Merged({"workers": workers}, {}))
    assert run("standalone", "--workers", workers).code == 2
    assert not started


def test_a_settings_file_that_makes_no_sense_is_refused(
    run: Any, started: Any, tmp_path: Path
) -> None:
    (tmp_path / "bad.toml").write_text("[settings]\njournal_window_m = 1\n")
    ended = run("standalone", "--config", str(tmp_path / "bad.toml"))
    assert ended.code == 2
    assert "did you mean journal_window_ms" in ended.err


def test_a_settings_file_that_is_no_text_is_refused_with_its_name(
    run: Any, started: Any, tmp_path: Path
) -> None:
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe[")
    ended = run("standalone", "--config", str(tmp_path / "bad.toml"))
    assert (ended.code, started) == (2, [])
    assert "no text in UTF-8" in ended.err
    assert "bad.toml" in ended.err


def test_in_json_a_refusal_is_json(run: Any) -> None:
    everywhere = "0.0.0.0"  # noqa: S104 - to be refused
    ended = run("standalone", "--listen", everywhere, "--auth", "", "-o", "json")
    assert (ended.code, ended.out) == (1, "")
    assert "reachable from other machines" in json.loads(ended.err)["error"]


def test_in_json_the_banner_is_one_object_with_the_addresses(tmp_path: Path) -> None:
    ports = free_ports(1)
    starting = [sys.executable, "-m", "magnetar", "standalone", "--data", str(tmp_path / "data")]
    starting += ["--port-offset", str(ports.offset), "--output", "json"]
    with subprocess.Popen(starting, stdout=subprocess.PIPE, text=True) as broker:
        assert broker.stdout is not None
        banner = json.loads(broker.stdout.readline())
        refused = subprocess.run(
            [*starting, "--port-offset", str(free_ports(1).offset)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        broker.terminate()
        assert broker.stdout.read() == ""
    assert banner == {
        "ready": True,
        "data": str(tmp_path / "data"),
        "url": f"pulsar://localhost:{6650 + ports.offset}",
        "admin_url": f"http://localhost:{8080 + ports.offset}",
        "workers": 1,
        "log_in": False,
        "this_machine_only": True,
        "warnings": banner["warnings"],
        "kernels": compiled.described(),
    }
    assert "walker" in banner["kernels"]
    assert refused.returncode == 1
    assert str(broker.pid) in json.loads(refused.stderr)["error"]


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
def test_a_banner_that_cannot_be_written_ends_it_with_the_reason(tmp_path: Path) -> None:
    starting = [sys.executable, "-m", "magnetar", "standalone", "--data", str(tmp_path / "data")]
    with FULL.open("w") as full:
        ended = subprocess.run(
            [*starting, "--port-offset", str(free_ports(1).offset)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 1
    assert "magnetar: cannot write to standard output: No space left on device" in ended.stderr


def second(folder: Path) -> subprocess.CompletedProcess[str]:
    """Try to start another program on a folder."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "magnetar", "standalone", "--data", str(folder)),
            *("--port-offset", str(free_ports(1).offset)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_banner_says_what_a_person_wants_to_know(broker: BrokerProcess) -> None:
    banner = broker.log.read_text()
    for fact in ("data", "synced to disk before it is acknowledged", "log-in", "off"):
        assert fact in banner
    assert str(6650 + broker.ports.offset) in banner
    assert str(8080 + broker.ports.offset) in banner


def test_sigterm_ends_it_with_0(broker: BrokerProcess) -> None:
    assert broker.stop() == 0


def test_ctrl_c_ends_it_with_0_too(broker: BrokerProcess) -> None:
    assert broker._process is not None
    broker._process.send_signal(signal.SIGINT)
    assert broker._process.wait(60) == 0
    broker._process = None


def test_a_second_program_on_the_same_folder_is_refused_with_the_pid_of_the_first(
    broker: BrokerProcess,
) -> None:
    refused = second(broker.log.parent / "data")
    assert refused.returncode == 1
    assert str(broker.pid) in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_folder_of_a_newer_format_is_refused_and_not_misread(tmp_path: Path) -> None:
    (tmp_path / "FORMAT").write_text("magnetar data folder, format 999\n")
    refused = second(tmp_path)
    assert refused.returncode == 1
    assert "999" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_port_that_is_taken_is_named(broker: BrokerProcess, tmp_path: Path) -> None:
    refused = subprocess.run(
        [
            *(sys.executable, "-m", "magnetar", "standalone", "--data", str(tmp_path / "other")),
            *("--port-offset", str(broker.ports.offset)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 1
    assert str(6650 + broker.ports.offset) in refused.stderr
    assert "--port-offset" in refused.stderr
