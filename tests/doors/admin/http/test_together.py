"""What processes say about the whole broker: added up, and counters never fall."""

from collections.abc import AsyncIterator

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from magnetar.broker.doors.admin.http.exposition import Family, labels, merged, sample
from magnetar.broker.doors.admin.http.together import Totals

CLUSTER = ("cluster", "c")


def block(name: str, kind: str, worker: int, value: float, *more: tuple[str, str]) -> str:
    about = labels([CLUSTER, ("worker", str(worker)), *more])
    return Family(name, "Help.", kind).head() + sample(name, about, value)


async def merge(totals: Totals | None, *texts: str) -> list[str]:
    async def pieces(text: str) -> AsyncIterator[bytes]:
        for at in range(0, len(text), 7):
            yield text[at : at + 7].encode()

    whole = b"".join([piece async for piece in merged([pieces(each) for each in texts], totals)])
    return [line for line in whole.decode().splitlines() if not line.startswith("#")]


async def test_gauges_are_added_up_and_look_like_those_of_one_broker() -> None:
    texts = [block("pulsar_broker_rate_in", "gauge", worker, 1.25) for worker in range(3)]
    assert await merge(Totals(), *texts) == ['pulsar_broker_rate_in{cluster="c"} 3.75']
    assert len(await merge(None, *texts)) == 3


async def test_samples_with_other_labels_stay_apart() -> None:
    texts = [
        block("pulsar_topics_count", "gauge", worker, 2, ("namespace", namespace))
        for worker, namespace in enumerate(["a/b", "a/b", "a/c"])
    ]
    assert sorted(await merge(Totals(), *texts)) == [
        'pulsar_topics_count{cluster="c",namespace="a/b"} 4',
        'pulsar_topics_count{cluster="c",namespace="a/c"} 2',
    ]


async def test_a_counter_never_falls_when_a_process_is_restarted_or_gone() -> None:
    totals = Totals()

    async def total(*values: float) -> str:
        texts = [block("pulsar_x_total", "counter", w, v) for w, v in enumerate(values)]
        [line] = await merge(totals, *texts)
        return line.rsplit(" ", 1)[1]

    assert await total(10, 5) == "15"
    assert await total(11, 2) == "18", "process 1 was restarted: its 5 stay"
    assert await total(12) == "19", "process 1 is down: its 7 stay"
    assert await total(12, 3) == "20"


async def test_what_only_grows_without_saying_so_in_its_name_is_a_gauge_as_in_pulsar() -> None:
    totals, name = Totals(), "pulsar_connection_created_total_count"

    async def read(value: float) -> list[tuple[str, str, float]]:
        async def pieces() -> AsyncIterator[bytes]:
            yield block(name, "counter", 0, value).encode()

        text = b"".join([piece async for piece in merged([pieces()], totals)]).decode()
        return [(each.type, s.name, s.value) for each in parse(text) for s in each.samples]

    assert await read(5) == [("gauge", name, 5)]
    assert await read(2) == [("gauge", name, 7)], "it does not fall for that"


async def test_a_gauge_of_a_process_that_is_gone_goes_with_it() -> None:
    totals = Totals()
    texts = [block("pulsar_x", "gauge", worker, 4) for worker in range(2)]
    assert await merge(totals, *texts) == ['pulsar_x{cluster="c"} 8']
    assert await merge(totals, texts[0]) == ['pulsar_x{cluster="c"} 4']


async def test_a_share_of_the_machine_is_not_added_up() -> None:
    texts = [block("pulsar_lb_cpu_usage", "gauge", worker, 30 + worker) for worker in range(2)]
    assert await merge(Totals(), *texts) == ['pulsar_lb_cpu_usage{cluster="c"} 31']


async def test_of_a_summary_counts_are_added_and_quantiles_are_not() -> None:
    def text(worker: int, median: float) -> str:
        about = [CLUSTER, ("worker", str(worker))]
        return (
            Family("pulsar_x", "Help.", "summary").head()
            + sample("pulsar_x", labels([*about, ("quantile", "0.5")]), median)
            + sample("pulsar_x_count", labels(about), 3)
        )

    assert await merge(Totals(), text(0, 1.5), text(1, float("nan"))) == [
        'pulsar_x{cluster="c",quantile="0.5"} 1.5',
        'pulsar_x_count{cluster="c"} 6',
    ]


@pytest.mark.parametrize("name", ["process_cpu_seconds_total", "magnetar_x_total"])
async def test_what_is_not_pulsars_says_which_process_it_is_of(name: str) -> None:
    texts = [block(name, "counter", worker, 1) for worker in range(2)]
    assert len(await merge(Totals(), *texts)) == 2


async def test_a_topic_named_like_the_label_passes_as_it_is() -> None:
    about = labels([CLUSTER, ("topic", 'x",worker="0'), ("namespace", "a/b")])
    text = Family("pulsar_rate_in", "Help.", "gauge").head() + sample("pulsar_rate_in", about, 1)
    assert await merge(Totals(), text) == [text.splitlines()[-1]]
