"""A broker that is written to, copied, killed and gone: the copy has what was acknowledged.

flood ───┬──────────────┬──────▶        doctor runs beside the broker, before and after
│ backup begins│ backup ends
└ acknowledged until here: all of it must be in the copy
"""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.child import MIB, Child, eventually, running
from tests.conformance.histories import lost, out_of_order, phantoms
from tests.conformance.test_process import loaded, stored

logger = logging.getLogger(__name__)

pytestmark = pytest.mark.timeout(240)

SETTINGS = {
    "write_cache_bytes_max": 8 * MIB,
    "journal_file_bytes": 4 * MIB,
    "ledger_bytes_max": MIB,
}
"""So that entry logs are written, journals recycled and ledgers closed while the copy is made."""


def magnetar(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command."""
    command = [sys.executable, "-m", "magnetar", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def doctor(folder: Path) -> dict[str, Any]:
    """Verify a folder; return what was found."""
    ran = magnetar("doctor", folder, "--output", "json")
    found: dict[str, Any] = json.loads(ran.stdout)
    assert found["sound"] == (ran.returncode == 0), ran.stderr
    return found


def test_a_copy_made_under_load_has_everything_acknowledged_before(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    copy = tmp_path / "copy"
    restored = tmp_path_factory.mktemp("elsewhere")  # a short path: sockets are in it
    with running(Child(tmp_path, SETTINGS)) as broker, loaded(broker) as flood:
        eventually(lambda: any((broker.data / "entries").glob("*.log")), 60)
        before = flood.acknowledged
        made = magnetar("backup", broker.data, copy)
        assert made.returncode == 0, made.stderr
        meanwhile = flood.acknowledged - before
        beside = magnetar("doctor", broker.data)
        broker.kill()
        sent = flood.end() + 50
    logger.warning("%d acknowledged before the backup, %d meanwhile", before, meanwhile)
    logger.warning("doctor beside the broker: %s", beside.stdout.splitlines()[-1:])
    assert meanwhile, "nothing was written meanwhile, so nothing was tested"
    assert doctor(copy)["sound"]
    ran = magnetar("restore", copy, restored / "data")
    assert ran.returncode == 0, ran.stderr
    shutil.rmtree(copy)  # what was restored stands on its own
    with running(Child(restored, SETTINGS)) as broker:
        found = stored(broker.port, before)
        assert not lost(range(before), found)
        assert not phantoms(sent, found)
        assert not out_of_order(found)
        assert broker.stop() == 0
    assert doctor(restored / "data")["sound"]


def test_doctor_sees_one_flipped_bit(tmp_path: Path) -> None:
    """The negative control of every `sound` above."""
    with running(Child(tmp_path, SETTINGS)) as broker, loaded(broker) as flood:
        eventually(lambda: flood.acknowledged > 2_000, 60)
        assert broker.stop() == 0
        flood.end()
    assert doctor(broker.data)["sound"]
    log = max((broker.data / "entries").glob("*.log"), key=lambda path: path.stat().st_size)
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 4
    log.write_bytes(data)
    assert not doctor(broker.data)["sound"]
