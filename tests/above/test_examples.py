"""The programs in examples/ and in the tutorial do what they say."""

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
TUTORIAL_URL = "pulsar://localhost:6650"
PRINTED = {
    "ten_lines.py": "consumed Hello\nconsumed World\nread Hello\nread again Hello\n",
    "replay.py": (
        "billing has acknowledged 5 prices\n"
        "all of them, again: 100 101 102 90 91\n"
        "after the market moved: 90 91\n"
    ),
    "work_queue.py": "30 jobs done by ",
}


def test_every_example_is_tested() -> None:
    assert {each.name for each in EXAMPLES.glob("*.py")} == set(PRINTED)


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_prints_what_it_should(name: str, addresses: Any) -> None:
    assert printed_by(addresses.url, str(EXAMPLES / name)).startswith(PRINTED[name])


def test_the_program_in_the_tutorial_runs_as_it_stands_there(addresses: Any) -> None:
    (program,) = re.findall(r"```python\n(.+?)```", TUTORIAL.read_text(), re.DOTALL)
    assert program.count(TUTORIAL_URL) == 1
    program = program.replace(TUTORIAL_URL, addresses.url)
    assert printed_by(addresses.url, "-c", program).startswith("b'75.0' (")


def test_the_queue_of_the_tutorial_is_shared_by_two_consumers(magnetar: Any, topic: str) -> None:
    """The commands of its step 3, on a topic that has messages already, as there."""
    lines = [line for line in TUTORIAL.read_text().splitlines() if " readings " in line]
    (consume,) = [line.split()[2:] for line in lines if "--type shared" in line]
    (produce,) = [line.split()[5:] for line in lines if line.startswith("$ seq 10 |")]
    consume = [topic if word == "readings" else word for word in consume]
    produce = [topic if word == "readings" else word for word in produce]
    assert magnetar("produce", topic, "73.9", "74.1", "101.2").returncode == 0
    with ThreadPoolExecutor(2) as both:
        # Each takes a few and ends: nobody could if the other had got a whole batch.
        workers = [both.submit(lambda: magnetar(*consume, "--count", "3")) for _ in range(2)]
        wait_for_consumers(magnetar, topic, 2)
        assert magnetar(*produce, given="".join(f"{i}\n" for i in range(1, 11))).returncode == 0
        printed = [worker.result().stdout.split() for worker in workers]
    assert all(len(each) == 3 for each in printed)
    numbers = [int(each) for each in printed[0] + printed[1]]  # not 73.9: it came before
    assert len(set(numbers)) == 6


def wait_for_consumers(magnetar: Any, topic: str, count: int) -> None:
    """Wait until a subscription of the topic has so many consumers."""
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        listed = magnetar("subscriptions", "list", topic, "--output", "json")
        if any(each["consumers"] == count for each in json.loads(listed.stdout)):
            return
    pytest.fail(f"there were never {count} consumers")


def printed_by(url: str, *program: str) -> str:
    """Return what a program prints, without what the official client logs."""
    done = subprocess.run(
        [sys.executable, *program],
        capture_output=True,
        text=True,
        env={**os.environ, "MAGNETAR_URL": url},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # The official client logs to standard output, with a time in front.
    return "".join(
        line for line in done.stdout.splitlines(keepends=True) if not line[:4].isdecimal()
    )
