"""The same kills as in `test_kill_loop`, while somebody turns every knob there is, at random.

    TESTS_KILLS=60 pytest tests/conformance/test_kill_loop_with_knobs.py

And what else may be done to knobs of a broker under load: a thousand changes in a second, and
all of them at their bounds over a restart.
"""

import logging
import math
import os
import random
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pulsar
import pytest

from magnetar.broker.config import LIVE, MIB
from magnetar.broker.knobs import KNOBS, Knob
from magnetar.cli.demo.broker import BrokerProcess, free_ports, group_members, wait_until
from magnetar.client.admin import Admin
from magnetar.client.rest import AdminError
from tests.conformance.talk import RECEIVE_MS
from tests.conformance.test_kill_loop import campaign, quiet_client

logger = logging.getLogger(__name__)

KILLS = int(os.environ.get("TESTS_KILLS", "3"))
TURN_EVERY_S = 0.02
CACHE_BYTES_MAX = 128 * MIB
"""However much memory the machine has."""
CHANGES = 1_000
CALLERS = 4
TAKE_OVER_S = 30.0
GROWTH_BYTES_MAX = 16 * MIB


def anywhere(knob: Knob, chance: random.Random) -> str:
    """Return a value within a knob's bounds: small ones are as likely as large ones."""
    high = min(knob.high, CACHE_BYTES_MAX) if knob.share else knob.high
    if chance.random() < 0.2:
        value = chance.choice((knob.low, high))
    else:
        low = knob.low or high / 1000
        value = math.exp(chance.uniform(math.log(low), math.log(high)))
    whole = isinstance(LIVE[knob.name]["low"], int) and knob.unit not in {"s", "ms"}
    return str(round(value)) if whole else f"{value:.3f}"


class Turner:
    """Turns knobs, one after the other, for as long as it is open."""

    def __init__(self, admin_url: str, seed: int) -> None:
        self._url = admin_url
        self._chance = random.Random(seed)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._turn, daemon=True)
        self.turned = 0
        self.refused: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _turn(self) -> None:
        knobs = list(KNOBS.values())
        with Admin(self._url, timeout_s=5) as admin:
            while not self._ended.wait(TURN_EVERY_S):
                knob = self._chance.choice(knobs)
                try:
                    admin.set_setting(knob.name, anywhere(knob, self._chance))
                    self.turned += 1
                except AdminError as error:
                    if error.status == 412:  # anything else: the broker was just killed
                        self.refused.append(str(error))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker of two processes."""
    own = BrokerProcess(tmp_path, free_ports(2), 2)
    own.start()
    yield own
    own.discard()


@pytest.mark.timeout(60 + 10 * KILLS)
def test_nothing_acknowledged_is_lost_while_knobs_are_turned_and_the_broker_is_killed(
    broker: BrokerProcess,
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    logger.warning("seed %d, %d kills", seed, KILLS)
    with Turner(broker.ports.admin_url, seed) as turner:
        campaign(broker, KILLS, random.Random(seed))
    logger.warning("turned %d times, refused %d", turner.turned, len(turner.refused))
    assert turner.turned > 10 * KILLS
    # Bounds are kept to; what is refused contradicts what another knob is at.
    assert all("journal_window_bytes" in each for each in turner.refused), turner.refused[:3]


def in_each_process(admin: Admin, name: str) -> list[Any]:
    return [each["value"] for each in admin.knob(name)["processes"]]


def test_a_knob_turned_a_thousand_times_at_once_under_load_ends_at_the_last_value(
    broker: BrokerProcess,
) -> None:
    client = quiet_client(broker.ports.url)
    producer = client.create_producer(
        "under-load", max_pending_messages=500, block_if_queue_full=True
    )
    acknowledged: list[Any] = []
    ended = threading.Event()

    def load() -> None:
        while not ended.is_set():
            producer.send_async(b"x" * 100, lambda result, _: acknowledged.append(result))

    def turn(first: int) -> None:
        with Admin(broker.ports.admin_url) as admin:
            for number in range(first, CHANGES, CALLERS):
                admin.set_setting("dispatch_entries_max", str(1 + number))

    loading = threading.Thread(target=load, daemon=True)
    loading.start()
    grown = []
    for _ in range(2):
        turning = [threading.Thread(target=turn, args=(each,)) for each in range(CALLERS)]
        for thread in turning:
            thread.start()
        for thread in turning:
            thread.join()
        grown.append(sum(map(resident, group_members(broker.pid))))
    with Admin(broker.ports.admin_url) as admin:
        admin.set_setting("dispatch_entries_max", "777")
        wait_until(
            lambda: in_each_process(admin, "dispatch_entries_max") == [777, 777],
            "every process to take over the last value",
            TAKE_OVER_S,
        )
        assert admin.knob("dispatch_entries_max")["hand"]["value"] == 777
    ended.set()
    loading.join()
    producer.flush()
    client.close()
    assert grown[1] - grown[0] < GROWTH_BYTES_MAX
    assert acknowledged
    assert set(acknowledged) == {pulsar.Result.Ok}
    assert broker.stop() == 0, broker.log_end()


def resident(pid: int) -> int:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def test_every_knob_is_in_use_in_every_process_and_after_a_restart(broker: BrokerProcess) -> None:
    wanted: Mapping[str, Any] = {
        name: (LIVE[name]["low"] if not knob.share else 32 * MIB) for name, knob in KNOBS.items()
    }

    def in_use(admin: Admin) -> bool:
        shown = {each["name"]: each for each in admin.knobs()}
        return all(
            [each["value"] for each in shown[name]["processes"]]
            == [value // 2 if shown[name]["divided"] else value] * 2
            for name, value in wanted.items()
        )

    with Admin(broker.ports.admin_url) as admin:
        for name, value in wanted.items():
            admin.set_setting(name, str(value))
        wait_until(lambda: in_use(admin), "every process to take over all values", TAKE_OVER_S)
    broker.kill()
    broker.start()
    with Admin(broker.ports.admin_url) as admin:
        assert in_use(admin)
        client = quiet_client(broker.ports.url)
        consumer = client.subscribe("at-the-bounds", "s", pulsar.ConsumerType.Shared)
        producer = client.create_producer("at-the-bounds")
        for number in range(20):
            producer.send(b"%d" % number)
        received = []
        for _ in range(20):
            message = consumer.receive(RECEIVE_MS)
            received.append(int(message.data()))
            consumer.acknowledge(message)  # at its bound, one unacknowledged message is all
        assert received == list(range(20))
        client.close()
        for name in wanted:
            admin.unset_setting(name)
        assert not [each for each in admin.knobs() if each["hand"]]
