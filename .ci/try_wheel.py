"""try_wheel.py WHEEL: does what was built work away from the checkout?

    fresh environment ◀── wheel                                    runs compiled kernels
                      ◀── the source distribution beside it, with
                          a C compiler that fails                  runs plain Python, all the same

Each time a broker is started from there, a message is published and received.
"""

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path

PUBLISH = """
import sys, pulsar
client = pulsar.Client(sys.argv[1])
consumer = client.subscribe("wheel-test", "all")
client.create_producer("wheel-test").send(b"published")
print(consumer.receive(timeout_millis=20_000).data().decode())
client.close()
"""
NO_COMPILER = {"CC": "/bin/false", "CXX": "/bin/false"}


def main() -> int:
    """Try both; return the exit code."""
    wheel = Path(sys.argv[1]).resolve()
    (source,) = wheel.parent.glob("magnetar-*.tar.gz")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        venv.create(folder / "venv", with_pip=True)
        install(folder, str(wheel))
        try_broker(folder, "compiled: ")
        install(folder, "--no-deps", "--force-reinstall", str(source), also=NO_COMPILER)
        try_broker(folder, "plain Python: ")
    return 0


def install(folder: Path, *what: str, also: Mapping[str, str] | None = None) -> None:
    pip = [folder / "venv/bin/python", "-m", "pip", "install", "--quiet", "--no-cache-dir", *what]
    subprocess.run(pip, check=True, env=environment() | dict(also or {}), cwd=folder)


def try_broker(folder: Path, kernels: str) -> None:
    """Start a broker that must say what it runs, and publish."""
    data = folder / kernels.partition(":")[0].replace(" ", "-")
    offset = 2_000 + os.getpid() % 1_000
    starting = [folder / "venv/bin/magnetar", "standalone", "--data", data]
    starting += ["--port-offset", str(offset), "--output", "json"]
    broker = subprocess.Popen(
        starting, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment()
    )
    with broker:
        try:
            assert broker.stdout
            banner = json.loads(broker.stdout.readline())
            assert banner["kernels"].startswith(kernels), banner
            publish = [folder / "venv/bin/python", "-c", PUBLISH, banner["url"]]
            told = subprocess.run(
                publish, check=True, cwd=folder, env=environment(), stdout=subprocess.PIPE
            )
            assert b"published" in told.stdout.splitlines(), told
        finally:
            broker.terminate()
    assert broker.returncode == 0, broker.returncode
    print(f"published with {banner['kernels']}")


def environment() -> dict[str, str]:
    """Return ours without what leads back to the checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


if __name__ == "__main__":
    sys.exit(main())
