"""The number of processes changes under load: nothing acknowledged is lost, order is kept.

TESTS_SCALINGS=30 pytest tests/conformance/test_scaling.py
"""

import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from magnetar.client.rest import AdminError
from tests.conformance.child import Child, eventually, running
from tests.conformance.histories import lost, out_of_order, stored_twice
from tests.conformance.scaling import Stream, flowing, stored

logger = logging.getLogger(__name__)

SCALINGS = int(os.environ.get("TESTS_SCALINGS", "3"))

pytestmark = pytest.mark.timeout(120 + 20 * SCALINGS)

ROOM = 4
ONCE = "public/once"
TOPICS = [f"persistent://public/default/plain-{number}" for number in range(4)]
DEDUPLICATED = [f"persistent://{ONCE}/once-{number}" for number in range(4)]


def prepare(broker: Child) -> None:
    with broker.admin() as admin:
        admin.create_namespace(ONCE)
        admin.set_policy(ONCE, "deduplication", value=True)


def scaled(broker: Child, count: int) -> list[int]:
    """Change the number of processes; return how many shares each has."""
    with broker.admin() as admin:
        return [each["shares"] for each in admin.scale(count)]


def check_stored(broker: Child) -> None:
    """See that what a producer sent twice is stored once where that is promised, and in order."""
    for topic in DEDUPLICATED:
        found = stored(broker.ports.url, topic)
        assert not stored_twice(found), topic
        assert not out_of_order(found), topic


def test_processes_come_and_go_under_load_and_nothing_is_lost(tmp_path: Path) -> None:
    with running(Child(tmp_path, room=ROOM)) as broker:
        prepare(broker)
        with flowing(broker.ports.url, [*TOPICS, *DEDUPLICATED]) as streams:
            time.sleep(0.5)
            for _ in range(max(SCALINGS // 3, 1)):
                for count in (3, 2, 1):
                    shares = scaled(broker, count)
                    assert len(shares) == count
                    assert sum(shares) == 1024
                    assert max(shares) - min(shares) <= 1
                    assert len(broker.workers()) == count
                    assert_all_go_on(streams)
        check_stored(broker)
        assert broker.stop() == 0, broker.log_end()
        # The folder is one that any other number of processes can serve, too.
        broker.start()
        for topic in DEDUPLICATED:
            assert not lost(
                streams[4 + DEDUPLICATED.index(topic)].acknowledged, stored(broker.ports.url, topic)
            )


def assert_all_go_on(streams: Sequence[Stream]) -> None:
    before = [len(each.acknowledged) for each in streams]

    def grown() -> bool:
        both = zip(streams, before, strict=True)
        return all(len(each.acknowledged) > count for each, count in both)

    eventually(grown, 60)


def test_a_number_that_cannot_be_and_a_second_change_at_once_are_refused_with_the_reason(
    tmp_path: Path,
) -> None:
    with running(Child(tmp_path, room=ROOM)) as broker, broker.admin() as admin:
        for wrong in (0, 65, 2**40):
            with pytest.raises(AdminError, match="allowed: 1 to 64") as refused:
                admin.scale(wrong)
            assert refused.value.status == 412
        told: list[str] = []

        def change(count: int) -> None:
            with broker.admin() as other:
                try:
                    other.scale(count)
                except AdminError as error:
                    told.append(f"{error.status} {error}")

        # Several times: on a busy machine one may be over before the next one comes.
        for count in (3, 2, 3, 2, 3):
            others = [threading.Thread(target=change, args=(count,)) for _ in range(3)]
            for each in others:
                each.start()
            for each in others:
                each.join()
            assert len(told) < len(others), "one of them is done"
            assert all(each.startswith("409") and "under way" in each for each in told)
            assert len(admin.processes()) == count
            if told:
                break
        assert told
        assert admin.health() == "ok"


def test_a_topic_is_moved_by_hand_and_stays_where_it_was_moved_to(tmp_path: Path) -> None:
    with running(Child(tmp_path, workers=2)) as broker:
        topic = TOPICS[0]
        path = topic.replace("://", "/")
        with flowing(broker.ports.url, [topic]), broker.admin() as admin:
            for _ in range(2):
                for process in ("0", "1"):
                    admin.json("PUT", f"/admin/v2/{path}/process/{process}")
                    time.sleep(0.2)
            with pytest.raises(AdminError, match="no broker process"):
                admin.json("PUT", f"/admin/v2/{path}/process/7")
            url = admin.processes()[1]["serviceUrl"]
            assert admin.json("GET", f"/lookup/v2/topic/{path}")["brokerUrl"] == url
            bundle = "/admin/v2/namespaces/public/default/unload?destinationBroker=0"
            admin.json("PUT", bundle)
            url = admin.processes()[0]["serviceUrl"]
            assert admin.json("GET", f"/lookup/v2/topic/{path}")["brokerUrl"] == url


def test_processes_that_were_there_before_a_restart_may_come_back(tmp_path: Path) -> None:
    """Their journals are read once, by the first, which is done with them before they return."""
    with running(Child(tmp_path, workers=3)) as broker:
        prepare(broker)
        with flowing(broker.ports.url, [*TOPICS, *DEDUPLICATED]) as streams:
            time.sleep(0.5)
            broker.kill()
            broker.serve_by(1)
            broker.start()
            assert_all_go_on(streams)
            assert len(scaled(broker, 3)) == 3
            assert_all_go_on(streams)
            broker.kill()
            broker.serve_by(2)
            broker.start()
            assert_all_go_on(streams)
        check_stored(broker)


def test_while_a_process_is_replaced_the_topics_of_the_others_go_on(tmp_path: Path) -> None:
    with running(Child(tmp_path, workers=2)) as broker, broker.admin() as admin:
        for number, topic in enumerate(TOPICS[:2]):
            admin.create_topic(topic)
            admin.json("PUT", f"/admin/v2/{topic.replace('://', '/')}/process/{number}")
        with flowing(broker.ports.url, TOPICS[:2]) as (stays, comes_back):
            time.sleep(0.5)
            victim = admin.processes()[1]["pid"]
            os.kill(victim, signal.SIGKILL)
            began, before = time.perf_counter(), len(stays.acknowledged)
            eventually(lambda: len(stays.acknowledged) > before + 10, 10)
            waited_s = time.perf_counter() - began
            eventually(lambda: admin.processes()[1]["pid"] not in {0, victim}, 20)
            assert_all_go_on([stays, comes_back])
            logger.warning("the others went on after %.2f s", waited_s)


@pytest.mark.parametrize("victim", ["first", "last"])
def test_a_process_that_is_killed_while_topics_move_takes_nothing_with_it(
    tmp_path: Path, victim: str
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    logger.warning("seed %d", seed)
    moments = random.Random(seed)
    with running(Child(tmp_path, workers=1, room=ROOM)) as broker:
        prepare(broker)
        with flowing(broker.ports.url, [*TOPICS, *DEDUPLICATED]):
            time.sleep(0.5)
            for count in (3, 1) * max(SCALINGS // 3, 1):
                changing = threading.Thread(target=patiently, args=(broker, count))
                changing.start()
                time.sleep(moments.uniform(0.0, 0.6 if count == 3 else 0.1))
                kill(broker, victim)
                changing.join()
                eventually(lambda: settled(broker, count), 60)  # noqa: B023 - it is over then
        check_stored(broker)


def kill(broker: Child, victim: str) -> None:
    pids = broker.workers()
    if pids:
        with suppress(ProcessLookupError):
            os.kill(pids[0 if victim == "first" else -1], signal.SIGKILL)


def patiently(broker: Child, count: int) -> None:
    """Change the number of processes, again if that was cut short."""

    def done() -> bool:
        try:
            return len(scaled(broker, count)) == count
        except AdminError as error:
            logger.warning("%d processes: %s", count, error)
            return False

    eventually(done, 120)


def settled(broker: Child, count: int) -> bool:
    with broker.admin() as admin:
        try:
            found = admin.processes()
        except AdminError:
            return False
    return len(found) == count and all(each["serving"] for each in found)


def test_a_supervisor_that_is_killed_while_topics_move_leaves_a_folder_to_go_on_with(
    tmp_path: Path,
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    logger.warning("seed %d", seed)
    moments = random.Random(seed)
    with running(Child(tmp_path, room=ROOM)) as broker:
        prepare(broker)
        with flowing(broker.ports.url, [*TOPICS, *DEDUPLICATED]):
            time.sleep(0.5)
            for _ in range(max(SCALINGS // 3, 1)):
                changing = threading.Thread(target=quietly, args=(lambda: scaled(broker, 3),))
                changing.start()
                time.sleep(moments.uniform(0.2, 1.0))
                broker.kill_supervisor()
                changing.join()
                broker.start()
        check_stored(broker)
        assert broker.stop() == 0, broker.log_end()


def quietly(work: Callable[[], object]) -> None:
    with suppress(AdminError):
        work()
