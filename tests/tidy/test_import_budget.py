"""What may be imported by whom: start-up time and memory are decided here."""

import subprocess
import sys

import pytest

from tests.tidy.source import modules

VERSION = "from magnetar.cli.main import main; main(['--version'])"
"""`magnetar --version`, in the same interpreter."""

NOT_FOR_VERSION = {
    "starlette",
    "uvicorn",
    "cryptography",
    "numpy",
    "obstore",
    "rich",
    "pulsar",
    "_pulsar",
    "msgspec",
    "uvloop",
    "google",
}

NOT_FOR_A_BROKER = {
    "numpy",
    "duckdb",
    "pyarrow",
    "scipy",
    "river",
    "jax",
    "pulsar",
    "_pulsar",
    "rich",
    "pytest",
}


NOT_BEFORE_IT_IS_USED = {
    "avro",
    "bcrypt",
    "cryptography",
    "fastavro",
    "jwt",
    "lz4",
    "zstandard",
}
"""What a broker process loads for schemas, log-in and the like, where there is any."""

MODULES_OF_OURS_MAX = 290
"""Of a broker process before it serves anybody. More is a reason to load something later."""


def imported(program: str) -> set[str]:
    """Return the top-level names of everything that is loaded after a program has run."""
    code = (
        "import sys\n"
        f"try:\n    exec({program!r}, {{}})\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "print('\\n'.join({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return set(done.stdout.splitlines())


def test_asking_for_the_version_loads_neither_server_nor_client() -> None:
    assert imported(VERSION) & NOT_FOR_VERSION == set()


def test_importing_the_package_loads_nothing_of_it() -> None:
    loaded = imported("import magnetar; print(magnetar.__version__)")
    assert loaded & (NOT_FOR_VERSION | {"click", "asyncio"}) == set()


def test_a_broker_process_loads_no_number_crunching_and_not_its_own_client() -> None:
    broker = [module.name for module in modules() if module.name.startswith("magnetar.broker")]
    assert imported("import " + ", ".join(broker)) & NOT_FOR_A_BROKER == set()


def test_a_broker_process_that_serves_nobody_yet_loads_only_what_it_needs() -> None:
    assert imported("import magnetar.broker.node") & NOT_BEFORE_IT_IS_USED == set()
    counted = (
        "import sys, magnetar.broker.node as _; print(sum('magnetar' in m for m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", counted], capture_output=True, text=True, check=True
    )
    assert 200 < int(done.stdout) < MODULES_OF_OURS_MAX


def test_a_broker_process_looks_for_garbage_again_once_it_has_loaded() -> None:
    started = (
        "import gc, runpy, sys; sys.argv[1:] = ['-1']\n"
        "try:\n    runpy.run_module('magnetar.broker.node', run_name='__main__')\n"
        "except (OSError, ValueError):\n    pass  # there is no channel at -1\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 10_000, gc.get_stats()[2]['collections'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", started], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "True", "0"]


def test_a_broker_process_loads_what_judges_schemas_only_when_there_is_one() -> None:
    assert "avro" not in imported("import magnetar.broker.node, magnetar.broker.supervisor")
    assert "avro" in imported("import magnetar.broker.schema.avro")


def test_a_broker_process_loads_what_serves_websockets_only_when_one_is_opened() -> None:
    assert "websockets" not in imported("import magnetar.broker.node, magnetar.broker.supervisor")
    assert "websockets" in imported("import magnetar.broker.doors.websocket.sessions")


@pytest.mark.parametrize("planted", ["rich", "starlette"])
def test_a_planted_import_is_noticed(planted: str) -> None:
    assert planted in imported(f"import {planted}; {VERSION}")
