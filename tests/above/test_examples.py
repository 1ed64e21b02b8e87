"""The programs in examples/ do what they say."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
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
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        env={**os.environ, "MAGNETAR_URL": addresses.url},
        timeout=25,
        check=False,
    )
    # The official client logs to standard output, with a time in front.
    printed = "".join(
        line for line in done.stdout.splitlines(keepends=True) if not line[:4].isdecimal()
    )
    assert done.returncode == 0, done.stderr
    assert printed.startswith(PRINTED[name])
