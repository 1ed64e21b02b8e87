"""Programs in other languages, against a whole broker with one process and with two.

    tests/clients/java    the official client, pulsar-admin and pulsar-perf, by Maven
    tests/clients/go      the official client, by go
    tests/clients/node    pulsar-flex, which shares no code with the official ones, by npm

A program prints one line for each of its checks, `ok    sentence` or `FAIL  sentence: why`; what
it fails on is what the test fails with. Runs only when TESTS_CLIENTS is set, as `make
test-clients` does, because it fetches some 200 MB into build/clients first. What is not installed
is said and left out.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from magnetar.cli.demo.broker import BrokerProcess, free_ports

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / "build" / "clients"
"""What was fetched and built; kept between runs."""

FETCH_LIMIT_S = 400
RUN_LIMIT_S = 300


@pytest.fixture(autouse=True)
def _asked_for() -> None:
    if not os.environ.get("TESTS_CLIENTS"):
        pytest.skip("programs in other languages: make test-clients")


def needs(*programs: str) -> None:
    """Leave a test out where a program is missing."""
    missing = [each for each in programs if shutil.which(each) is None]
    if missing:
        pytest.skip(f"not installed here: {', '.join(missing)}")


def prepare(
    name: str, sources: Sequence[Path], commands: Sequence[Sequence[str]], **env: str
) -> Path:
    """Run commands in a folder of the cache, unless that was done since the sources changed."""
    folder = CACHE / name
    stamp = folder / "ready"
    newest = max(each.stat().st_mtime for each in sources)
    if stamp.exists() and stamp.stat().st_mtime > newest:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for command in commands:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=FETCH_LIMIT_S,
            check=False,
        )
        output = (done.stdout + done.stderr)[-3000:]
        assert done.returncode == 0, f"{' '.join(command)}:\n{output}"
    stamp.touch()
    return folder


def run(command: Sequence[str], cwd: Path, *, checks: bool = True, **env: str) -> list[str]:
    """Run a program; print what it prints, and return the checks that failed.

    Without `checks` it makes none of its own, and how it ends is all it says.
    """
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
        check=False,
    )
    print(done.stdout)  # noqa: T201 - pytest shows it when something fails, or with -s
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    if done.returncode != 0 and not failed:
        failed.append(f"{command[-1]} ended with {done.returncode}: {done.stderr[-2000:]}")
    if checks and not any(line.startswith("ok") for line in done.stdout.splitlines()):
        failed.append(f"it checked nothing: {done.stderr[-2000:]}")
    return failed


@pytest.fixture(scope="session", params=[1, 2], ids=["one process", "two processes"])
def broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BrokerProcess]:
    """A broker that all programs use one after the other."""
    if not os.environ.get("TESTS_CLIENTS"):
        pytest.skip("programs in other languages: make test-clients")
    workers: int = request.param
    broker = BrokerProcess(tmp_path_factory.mktemp("broker"), free_ports(workers), workers)
    try:
        broker.start()
        yield broker
        assert broker.stop() == 0, broker.log_end()
    finally:
        broker.discard()
