"""Servers with the Pulsar protocol: Magnetar, the limit server, pulsar-lite, Apache Pulsar."""

import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks.peers.jars import cache, class_path
from benchmarks.peers.server import AbsentError, Server, installed, new_port
from magnetar.broker.compiled import PURE

KERNEL = "magnetar.broker.wire.pulsar._walker"
PULSAR_VERSION = "4.0.0"
LIMIT_SOURCE = Path(__file__).parents[1] / "limit" / "limit.c"


class Magnetar(Server):
    """This project, with its compiled kernels, in one process."""

    name = "Magnetar"
    acknowledged_means = "synced to disk"
    kernels = True

    def command(self, folder: Path) -> Sequence[str]:
        if self.kernels and find_spec(KERNEL) is None:
            raise AbsentError("its compiled kernels are not built; `make kernels`")
        return [
            *(sys.executable, "-m", "magnetar", "standalone", "--data", str(folder / "data")),
            *("--port-offset", str(self.port - 6650), "--workers", "1"),
        ]


class MagnetarPlain(Magnetar):
    """The same in plain Python: where no wheel fits and there is no C compiler."""

    name = "Magnetar, plain Python"
    kernels = False

    def environment(self, folder: Path) -> dict[str, str]:  # noqa: ARG002 - needs none
        return {PURE: "1"}


class Limit(Server):
    """The limit server: the same bytes written and synced, in C, and nothing else."""

    name = "limit server in C"
    acknowledged_means = "synced to disk"
    able = frozenset({"publish", "latency", "batch-publish", "topics"})

    def command(self, folder: Path) -> Sequence[str]:
        compiler = installed("cc", "install a C compiler")
        cache().mkdir(parents=True, exist_ok=True)
        program = cache() / "limit"
        subprocess.run(
            [compiler, "-O2", "-o", str(program), str(LIMIT_SOURCE), "-lpthread"], check=True
        )
        return [str(program), str(self.port), str(folder)]


class PulsarLite(Server):
    """An embedded broker with the Pulsar protocol, from PyPI."""

    name = "pulsar-lite"
    acknowledged_means = "in the operating system's cache; never synced"

    def command(self, folder: Path) -> Sequence[str]:
        spec = find_spec("pulsar_lite")
        if spec is None or spec.origin is None:
            raise AbsentError("pip install pulsar-lite")
        binary = Path(spec.origin).parent / "bin" / "pulsar-lite"
        address = f"127.0.0.1:{self.port}"
        return [
            *(str(binary), "--addr", address, "--db-path", str(folder / "db")),
            *("--log-level", "error"),
        ]


PULSAR_CONF = """
clusterName=standalone
brokerServicePort={port}
webServicePort={web}
bindAddress=127.0.0.1
advertisedAddress=127.0.0.1
allowLoopback=true
managedLedgerDefaultEnsembleSize=1
managedLedgerDefaultWriteQuorum=1
managedLedgerDefaultAckQuorum=1
managedLedgerMaxEntriesPerLedger=500000
brokerDeleteInactiveTopicsEnabled=false
functionsWorkerEnabled=false
exposeTopicLevelMetricsInPrometheus=false
loadBalancerEnabled=false
defaultNumberOfNamespaceBundles=4
journalSyncData=true
journalWriteData=true
journalMaxGroupWaitMSec=1
dbStorage_writeCacheMaxSizeMb=128
dbStorage_readAheadCacheMaxSizeMb=64
diskUsageThreshold=0.99
diskUsageWarnThreshold=0.98
diskUsageLwmThreshold=0.97
"""
"""What `standalone.conf` says where it differs from the code, caches of Magnetar's sizes, and the
journal synced, which is also BookKeeper's default."""
JAVA_OPENS = (
    *("--add-opens", "java.base/jdk.internal.loader=ALL-UNNAMED"),
    *("--add-opens", "java.base/java.net=ALL-UNNAMED"),
    *("--add-opens", "java.base/java.nio=ALL-UNNAMED"),
    *("--add-opens", "java.base/java.lang=ALL-UNNAMED"),
    *("--add-opens", "java.base/java.util=ALL-UNNAMED"),
    *("--add-opens", "java.base/jdk.internal.misc=ALL-UNNAMED"),
    *("--add-opens", "java.management/sun.management=ALL-UNNAMED"),
    *("--add-opens", "jdk.management/com.sun.management.internal=ALL-UNNAMED"),
    *("--add-opens", "java.base/jdk.internal.platform=ALL-UNNAMED"),
)
LOG4J = """<?xml version="1.0"?>
<Configuration status="WARN"><Appenders><Console name="c"/></Appenders>
<Loggers><Root level="WARN"><AppenderRef ref="c"/></Root></Loggers></Configuration>
"""


class ApachePulsar(Server):
    """Apache Pulsar standalone with the heap of its start script, its journal synced."""

    name = "Apache Pulsar standalone, journal synced"
    acknowledged_means = "synced to disk (one bookie)"
    memory = ("-Xms2g", "-Xmx2g", "-XX:MaxDirectMemorySize=4g")
    warms = True

    def __init__(self) -> None:
        super().__init__()
        self._web = new_port()

    def command(self, folder: Path) -> Sequence[str]:
        path = class_path("org.apache.pulsar", "pulsar-broker", PULSAR_VERSION)
        told = folder / "standalone.conf"
        told.write_text(PULSAR_CONF.format(port=self.port, web=self._web))
        (folder / "log4j2.xml").write_text(LOG4J)
        return [
            *("java", "-cp", path, *self.memory, "-XX:+UseZGC", *JAVA_OPENS),
            "-Dio.netty.tryReflectionSetAccessible=true",
            "-Dio.netty.recycler.maxCapacityPerThread=4096",
            f"-Dlog4j.configurationFile={folder / 'log4j2.xml'}",
            *("org.apache.pulsar.PulsarStandaloneStarter", "--config", str(told)),
            *("--no-functions-worker", "--no-stream-storage", "--bookkeeper-port", str(new_port())),
            *("--metadata-dir", str(folder / "metadata")),
            *("--bookkeeper-dir", str(folder / "bookkeeper")),
        ]

    def ready(self) -> bool:
        try:
            url = f"http://127.0.0.1:{self._web}/admin/v2/brokers/health"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
