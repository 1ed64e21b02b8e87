"""The command line as a whole: what it imports, what it says, how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from magnetar.cli.main import COMMANDS
from magnetar.cli.verb import Noun, Verb

HEAVY = (
    "pulsar",
    "_pulsar",
    "rich",
    "starlette",
    "uvicorn",
    "asyncio",
    "msgspec",
    "google.protobuf",
    "crc32c",
    "sqlite3",
    "magnetar.broker",
    "magnetar.standalone",
    "magnetar.client",
)


FULL = Path("/dev/full")


def imported_by(*arguments: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after a command line."""
    code = (
        "import sys; from magnetar.cli.main import main; main(sys.argv[1:]);"
        " print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_and_version_import_nothing_but_click(arguments: list[str]) -> None:
    loaded = imported_by(*arguments)
    assert "click" in loaded
    assert not loaded & set(HEAVY)


def test_the_import_guard_notices_a_heavy_command() -> None:
    """Negative control: a command that needs the client does load it."""
    assert "pulsar" in imported_by("tail", "--help")


def test_every_command_says_of_itself_what_the_table_says(run: Any) -> None:
    listing = run("--help").out
    for name, (module, attribute, text) in COMMANDS.items():
        command = getattr(import_module(f"magnetar.cli.{module}"), attribute)
        assert command.name == name
        assert command.get_short_help_str(limit=200) == text
        assert f"{name} " in listing


def test_every_command_has_the_common_options() -> None:
    for module, attribute, _ in COMMANDS.values():
        command = getattr(import_module(f"magnetar.cli.{module}"), attribute)
        verbs = list(command.commands.values()) if isinstance(command, Noun) else [command]
        for verb in verbs:
            assert isinstance(verb, Verb)
            names = {option for param in verb.params for option in param.opts}
            assert {"--output", "--debug"} <= names
            if verb.uses_cluster:
                assert {"--url", "--admin-url"} <= names


def test_every_command_explains_itself(run: Any) -> None:
    for name in COMMANDS:
        shown = run(name, "--help")
        assert shown.code == 0
        assert shown.out.startswith(f"Usage: magnetar {name}")
        assert "\\b" not in shown.out


def test_a_command_that_is_not_there_is_a_usage_error(run: Any) -> None:
    ended = run("produze")
    assert ended.code == 2
    assert "produze" in ended.err
    assert not ended.out


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize(
    "arguments",
    [
        ["produce", "t", "x"],
        ["consume", "t", "-s", "s"],
        ["tail", "t"],
        ["peek", "t"],
        ["topics", "list"],
        ["namespaces", "list"],
        ["subscriptions", "list", "t"],
    ],
)
def test_where_nothing_answers_each_command_says_so_at_once(
    run: Any, unused_port: int, arguments: list[str]
) -> None:
    url, admin_url = f"pulsar://127.0.0.1:{unused_port}", f"http://127.0.0.1:{unused_port}"
    ended = run(*arguments, "--url", url, "--admin-url", admin_url)
    assert ended.code == 4
    assert ended.err.startswith("magnetar: no broker answers at")
    assert "magnetar standalone" in ended.err
    assert ended.err.count("\n") == 1
    assert not ended.out


def test_with_json_the_error_is_json_too_and_not_on_standard_output(
    run: Any, unused_port: int
) -> None:
    ended = run("topics", "list", "--admin-url", f"http://127.0.0.1:{unused_port}", "-o", "json")
    told = json.loads(ended.err)
    assert told["exit_code"] == ended.code == 4
    assert "no broker answers" in told["error"]
    assert not ended.out


def test_the_addresses_come_from_the_environment(
    run: Any, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAGNETAR_ADMIN_URL", f"http://127.0.0.1:{unused_port}")
    assert str(unused_port) in run("topics", "list").err


def test_a_port_that_does_not_speak_http_is_called_so_and_its_bytes_are_not_shown(
    run: Any,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"\0\0\0\x44\x1b[2Jframe")

        answering = threading.Thread(target=serve)
        answering.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        ended = run("topics", "list", "--admin-url", url)
        answering.join(30)
    assert ended.code == 4
    assert ended.err == (
        f"magnetar: {url} is not an HTTP admin port,"
        r" it answered '\x00\x00\x00D\x1b[2Jframe'; name another with --admin-url"
        "\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["consume", "t", "-o", "json"],
        ["tail", "t", "--from", "?", "--output=json"],
        ["topics", "lisst", "--output", "json"],
        ["produze", "-ojson"],
    ],
)
def test_with_json_a_command_line_that_makes_no_sense_is_told_in_json(
    run: Any, arguments: list[str]
) -> None:
    ended = run(*arguments)
    told = json.loads(ended.err)
    assert told["exit_code"] == ended.code == 2
    assert told["error"]
    assert told["advice"].startswith("see `magnetar ")
    assert not ended.out


def test_a_message_that_looks_like_an_option_does_not_ask_for_json(run: Any) -> None:
    ended = run("produce", "t", "--rate", "0", "--", "-o", "json")
    assert ended.code == 2
    assert ended.err.startswith("Usage: ")


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
@pytest.mark.parametrize("arguments", [["--help"], ["topics", "--help"], ["topics", "list"]])
def test_output_that_cannot_be_written_is_an_error_and_no_defect(arguments: list[str]) -> None:
    listing = "from magnetar.client.admin import Admin; Admin.topics = lambda *_: ['t'];"
    code = listing + "import sys; from magnetar.cli.main import main; sys.exit(main(sys.argv[1:]))"
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == (
        "magnetar: cannot write to standard output: No space left on device;"
        " free space, or write elsewhere\n"
    )


def test_an_address_that_is_none_is_a_usage_error(run: Any) -> None:
    ended = run("produce", "t", "x", "--url", "localhost:6650")
    assert ended.code == 2
    assert "expected pulsar://host:port" in ended.err


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "magnetar", "--help"]
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(write)
    assert done.returncode == 0
    assert done.stderr == b""


def test_ctrl_c_ends_with_130_and_without_a_traceback(tmp_path: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        waiting = subprocess.Popen(
            [sys.executable, "-m", "magnetar", "topics", "list", "--admin-url", url],
            stderr=subprocess.PIPE,
        )
        silent.settimeout(60)
        connection, _ = silent.accept()  # it is waiting for its answer now
        waiting.send_signal(signal.SIGINT)
        _, err = waiting.communicate(timeout=60)
        connection.close()
    assert waiting.returncode == 130
    assert b"Traceback" not in err


TAKEN_DOWN = (
    "import atexit; atexit.register(print, 'taken down');from magnetar.cli.main import run; run()"
)


@pytest.mark.parametrize(("arguments", "down"), [(["tail", "--help"], False), (["--help"], True)])
def test_with_the_official_client_the_interpreter_is_not_taken_down(
    arguments: list[str], down: bool
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TAKEN_DOWN, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("Usage: magnetar")
    assert ("taken down" in done.stdout) is down


def test_a_fault_of_ours_is_shown_also_when_the_interpreter_is_not_taken_down() -> None:
    code = (
        "import pulsar; from magnetar.cli import main as cli; cli.main = lambda: 1 / 0; cli.run()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
