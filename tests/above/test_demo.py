"""`magnetar demo` holds, and would say so if it did not."""

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.timeout(150)
@pytest.mark.parametrize("workers", [1, 2])
def test_the_demo_holds_although_its_broker_is_killed(workers: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "magnetar", "demo", "--workers", str(workers), "-o", "json"],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("MAGNETAR_")},
        timeout=140,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["ok"]
    assert told["seconds"] < 60
    assert told["kill"]["processes"] == 1 + workers
    expected = {each["check"]: each["expected"] for each in told["checks"]}
    assert expected["worked on by the queue"] == 22_695
    assert expected["hourly means as in the file"] == 1_891
    assert expected["alerts as in the file"] == 1_586
    assert told["folder"] is None
