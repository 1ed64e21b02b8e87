"""What processes use, and which one listens."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from magnetar.bench.accounting import (
    cpu_s,
    folder_written_to,
    is_local,
    proportional_set_bytes,
    root_of_port,
    tree,
)


def test_a_port_leads_to_the_process_that_listens_and_a_free_one_to_nobody() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        assert root_of_port(port) is None
        sock.listen()
        assert root_of_port(port) == os.getpid()


def test_processes_that_listen_together_are_known_by_their_parent() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        sock.set_inheritable(True)
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], pass_fds=[sock.fileno()], stdin=subprocess.PIPE
        )
        try:
            assert root_of_port(sock.getsockname()[1]) == os.getpid()
            assert child.pid in tree(os.getpid())
        finally:
            child.communicate(b"\n")


def test_work_counts_also_when_the_child_that_did_it_has_ended() -> None:
    before = cpu_s(os.getpid())
    work = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", work], check=True)
    assert cpu_s(os.getpid()) - before >= 0.25


def test_memory_is_counted_and_one_that_has_ended_has_none() -> None:
    assert proportional_set_bytes(os.getpid()) > 1 << 20
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    time.sleep(0)
    assert proportional_set_bytes(ended.pid) == 0


def test_the_folder_on_a_disk_is_found_by_an_open_file(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("wb"):
        found = folder_written_to(os.getpid())
    assert found is None or found.is_dir()  # None: this file system is on no disk


def test_only_loopback_is_this_machine() -> None:
    assert is_local("127.0.0.1")
    assert is_local("::1")
    assert not is_local("192.0.2.1")
