"""The import contracts hold, and each is broken by the import it is there to forbid."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.tidy.source import ROOT

PLANTS = {
    "Only standalone and the command line may import the broker": (
        "client/planted.py",
        "import magnetar.broker.config",
    ),
    "The load generator takes the codec of the broker, and nothing else": (
        "bench/planted.py",
        "import magnetar.broker.storage",
    ),
    "The house has one staircase": ("client/planted.py", "import magnetar.cli"),
    "The broker's own staircase": ("broker/storage/planted.py", "import magnetar.broker.topics"),
    "The core's own staircase": (
        "broker/topics/cursors/planted.py",
        "import magnetar.broker.topics.topic",
    ),
    "The admin door's own staircase": (
        "broker/doors/admin/http/planted.py",
        "import magnetar.broker.doors.admin.call",
    ),
    "Doors do not know each other": (
        "broker/doors/pulsar/planted.py",
        "import magnetar.broker.doors.admin",
    ),
    "A protocol door talks to the port, never to a log": (
        "broker/doors/pulsar/planted.py",
        "import magnetar.broker.storage",
    ),
    "Codecs and decisions are pure": ("broker/wire/pulsar/planted.py", "import time"),
    "The broker is not its own client": ("broker/storage/planted.py", "import pulsar"),
    "No circles anywhere": (
        "broker/wire/pulsar/planted.py",
        "import magnetar.broker.wire.pulsar.planted_too",
    ),
}
"""Contract -> where to plant what. The circle is closed by `planted_too`."""

LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"

FOLDER_WITHOUT_A_STEP = "The broker's own staircase"


def broken(source: Path) -> set[str]:
    """Return the names of the contracts that the tree below `source` breaks."""
    done = subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache", "--config", str(ROOT / "pyproject.toml")],
        env={**os.environ, "PYTHONPATH": str(source), "COLUMNS": "200"},
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    verdicts = re.findall(r"^(.+) (KEPT|BROKEN)", done.stdout, re.MULTILINE)
    assert len(verdicts) == len(contracts()), done.stdout + done.stderr
    return {name.strip() for name, verdict in verdicts if verdict == "BROKEN"}


def contracts() -> list[str]:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [contract["name"] for contract in config["tool"]["importlinter"]["contracts"]]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shutil.copytree(
        ROOT / "src" / "magnetar",
        tmp_path / "magnetar",
        ignore=shutil.ignore_patterns("__pycache__", "demo_data"),
    )
    return tmp_path


def test_every_contract_has_its_plant() -> None:
    assert set(contracts()) == set(PLANTS)


def test_the_tree_as_it_is_keeps_all_contracts(tree: Path) -> None:
    assert broken(tree) == set()


@pytest.mark.parametrize("contract", PLANTS)
def test_a_contract_is_broken_by_what_it_forbids(tree: Path, contract: str) -> None:
    place, statement = PLANTS[contract]
    planted = tree / "magnetar" / place
    planted.write_text(f'"""Planted."""\n{statement}\n')
    planted.with_name("planted_too.py").write_text(
        f"import magnetar.{place.removesuffix('.py').replace('/', '.')}\n"
    )
    assert contract in broken(tree)


def test_a_new_folder_must_find_its_step(tree: Path) -> None:
    folder = tree / "magnetar" / "broker" / "shed"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""Planted."""\n')
    assert FOLDER_WITHOUT_A_STEP in broken(tree)
