"""Servers from Maven Central: their jars, fetched once, with Maven and a Java 17 runtime.

Nothing is unpacked or built: the class path is the folder that Maven copies an artifact and what it
needs into. It lies in the user's cache, so that the next run finds it.
"""

import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.peers.server import AbsentError

FETCH_TIMEOUT_S = 900
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion>
<groupId>benchmarks</groupId><artifactId>{artifact}</artifactId><version>1</version>
<dependencies><dependency>
<groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>
</dependency>{more}</dependencies></project>
"""
CENTRAL_ONLY = """<settings><mirrors><mirror>
<id>nowhere</id><mirrorOf>*,!central</mirrorOf><url>file:///nowhere</url>
</mirror></mirrors></settings>
"""
"""Some of these artifacts name further repositories. What is needed is in the central one."""
LOGGING = """<dependency>
<groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>1.7.36</version>
</dependency>"""
"""Kafka's jars bring no logger; without one it complains in every class."""


def cache() -> Path:
    """Return the folder that holds fetched servers."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "magnetar-bench"


def class_path(group: str, artifact: str, version: str, more: str = "") -> str:
    """Return the class path of an artifact; fetched if it is not there yet.

    Raises:
        AbsentError: there is no Java or no Maven, or Maven cannot fetch it.
    """
    if shutil.which("java") is None:
        raise AbsentError(
            "there is no java; install a Java 17 runtime, such as openjdk-17-jre-headless"
        )
    folder = cache() / f"{artifact}-{version}"
    if not (folder / "done").exists():
        if shutil.which("mvn") is None:
            raise AbsentError(f"{group}:{artifact}:{version} is fetched with mvn; install maven")
        folder.mkdir(parents=True, exist_ok=True)
        told = POM.format(group=group, artifact=artifact, version=version, more=more)
        (folder / "pom.xml").write_text(told)
        (folder / "settings.xml").write_text(CENTRAL_ONLY)
        command = [
            *("mvn", "-q", "-B", "-s", "settings.xml", "dependency:copy-dependencies"),
            *("-DincludeScope=runtime", "-DoutputDirectory=lib"),
        ]
        try:
            subprocess.run(
                command, cwd=folder, check=True, capture_output=True, timeout=FETCH_TIMEOUT_S
            )
        except (subprocess.SubprocessError, OSError) as error:
            said = getattr(error, "stdout", b"") or b""
            reason = said.decode(errors="replace").strip()[:300] or str(error)
            raise AbsentError(
                f"{group}:{artifact}:{version} could not be fetched: {reason}"
            ) from error
        (folder / "done").touch()
    return str(folder / "lib" / "*")
