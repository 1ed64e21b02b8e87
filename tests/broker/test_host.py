"""How busy the machine is: from the kernel's files, given as text."""

from pathlib import Path

import pytest

from magnetar.broker.clock import ManualClock
from magnetar.broker.files import DiskFiles
from magnetar.broker.host import WINDOW_S_MIN, Host, Usage, cores_allowed, cpu_times

STAT = "cpu  {user} 0 {system} {idle} 50 0 0 0 0 0\ncpu0 1 2 3\n"


class Kernel(DiskFiles):
    """Files of the kernel that a test writes."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def read(self, path: Path) -> bytes:
        if str(path) not in self.texts:
            raise FileNotFoundError(path)
        return self.texts[str(path)].encode()

    def list(self, path: Path) -> list[str]:
        inside = [Path(each).relative_to(path) for each in self.texts if each.startswith(str(path))]
        return sorted({each.parts[0] for each in inside})


def line(kernel: Kernel, name: str, megabits: int, came: int, went: int) -> None:
    folder = f"/sys/class/net/{name}"
    kernel.texts |= {
        f"{folder}/speed": f"{megabits}\n",
        f"{folder}/statistics/rx_bytes": f"{came}\n",
        f"{folder}/statistics/tx_bytes": f"{went}\n",
    }


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_waiting_for_a_disk_is_not_being_busy() -> None:
    used, whole = cpu_times("cpu  100 10 90 700 100 0 0 0 0 0")
    assert used / whole == 0.2


def test_cpu_is_what_was_used_between_two_looks(kernel: Kernel, clock: ManualClock) -> None:
    host = Host(kernel, clock)
    kernel.texts["/proc/stat"] = STAT.format(user=1000, system=1000, idle=5000)
    assert host.usage() == Usage(), "one look tells nothing"
    kernel.texts["/proc/stat"] = STAT.format(user=1020, system=1010, idle=5070)
    assert host.usage() == Usage(), "nor do two that follow each other closely"
    clock.advance(WINDOW_S_MIN)
    assert host.usage().cpu == pytest.approx(30)
    assert host.usage().cpu == pytest.approx(30), "the next look tells the same for a while"


def test_in_a_container_it_is_the_share_of_what_the_container_may_use(
    kernel: Kernel, clock: ManualClock
) -> None:
    assert cores_allowed("150000 100000\n") == 1.5
    with pytest.raises(ValueError, match="max"):
        cores_allowed("max 100000\n")
    host = Host(kernel, clock)
    kernel.texts["/proc/stat"] = STAT.format(user=1000, system=1000, idle=5000)
    kernel.texts["/sys/fs/cgroup/cpu.max"] = "50000 100000\n"
    kernel.texts["/sys/fs/cgroup/cpu.stat"] = "usage_usec 1000000\nuser_usec 1\n"
    host.usage()
    clock.advance(10)
    kernel.texts["/sys/fs/cgroup/cpu.stat"] = "usage_usec 2000000\nuser_usec 1\n"
    assert host.usage().cpu == pytest.approx(20), "1 s of 10 s of half a core"


def test_lines_are_measured_where_their_speed_is_known(kernel: Kernel, clock: ManualClock) -> None:
    host = Host(kernel, clock)
    line(kernel, "eth0", 1000, 0, 0)
    line(kernel, "veth1", -1, 0, 0)
    host.usage()
    clock.advance(10)
    line(kernel, "eth0", 1000, 625_000_000, 125_000_000)
    line(kernel, "veth1", -1, 10**12, 10**12)
    usage = host.usage()
    assert usage.bandwidth_in == pytest.approx(50)
    assert usage.bandwidth_out == pytest.approx(10)
    assert usage.cpu is None


def test_memory_is_that_of_the_container_if_it_has_a_limit(
    kernel: Kernel, clock: ManualClock
) -> None:
    host = Host(kernel, clock)
    assert host.memory_bytes() is None
    kernel.texts["/proc/meminfo"] = "MemTotal:        2048 kB\nMemFree: 1 kB\n"
    kernel.texts["/sys/fs/cgroup/memory.max"] = "max\n"
    assert host.memory_bytes() == 2 * 2**20
    kernel.texts["/sys/fs/cgroup/memory.max"] = "1048576\n"
    assert host.memory_bytes() == 2**20


def test_this_machine_tells_how_many_files_are_open(clock: ManualClock) -> None:
    host = Host(DiskFiles(), clock)
    before = host.open_files()
    if before is None:
        pytest.skip("this system does not tell")
    with Path("/dev/null").open("rb"):
        assert host.open_files() == before + 1
