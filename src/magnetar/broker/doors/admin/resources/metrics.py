"""GET /metrics: Prometheus text under Pulsar's names, from what is counted anyway.

    topics ──▶ Scrape: rows of numbers ─────────┐
    Metrics.render() ──▶ blocks of text ────────┼─▶ families, sorted by name, piece by piece
    the process, the machine ──▶ blocks of text ┘

Series of one topic carry `cluster`, `namespace`, `topic` and, where there is one,
`subscription`. All others also carry `worker`, the number of the process, because several
processes answer as one target; where they are Pulsar's, `http.together` adds them up. Counters
of a topic start at 0 when it is loaded. Nothing is made per message, and nothing before somebody
asks. Which names there are stands in docs/reference/metrics.md.
"""

import asyncio
import resource
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from starlette.responses import Response, StreamingResponse

from magnetar.broker.doors.admin.call import Call
from magnetar.broker.doors.admin.context import Context
from magnetar.broker.doors.admin.http.exposition import (
    CONTENT_TYPE,
    Family,
    labelled,
    labels,
    name_of,
    sample,
)
from magnetar.broker.doors.admin.resources.scrape import Scrape, Written
from magnetar.broker.doors.admin.routes import Right, Route, Text
from magnetar.broker.files import DiskFiles

_MEMORY_STATUS = Path("/proc/self/statm")

BLOCKS_PER_TURN = 5
"""Families of a whole process that are written in one turn of the loop."""


async def _text(context: Context, scrape: Scrape) -> AsyncIterator[str]:
    """Yield all families, sorted by name as merging needs them."""
    about = labels(scrape.process)
    families = list(scrape.written())
    for count, block in enumerate(_blocks(context, scrape), start=1):
        families.append(Written(name_of(block), "", iter([labelled(block, about)])))
        if count % BLOCKS_PER_TURN == 0:
            await asyncio.sleep(0)
    before = ""
    for name, head, pieces in sorted(families, key=lambda family: family.name):
        if name != before:
            yield head
            before = name
        for piece in pieces:
            yield piece
            await asyncio.sleep(0)


def _blocks(context: Context, scrape: Scrape) -> Iterator[str]:
    yield from context.metrics.render()
    yield from process_blocks()
    yield from _of_machine(context)
    yield _topics_count(scrape)
    yield _gauge("pulsar_ml_count", "Topics in memory that are stored.", scrape.stored_topics)
    totals = scrape.totals
    yield _gauge("pulsar_broker_topics_count", "Topics.", len(totals))
    for name, help_text, of in (
        ("subscriptions_count", "Subscriptions.", "pulsar_subscriptions_count"),
        ("producers_count", "Connected producers.", "pulsar_producers_count"),
        ("consumers_count", "Connected consumers.", "pulsar_consumers_count"),
        ("rate_in", "Messages published per second.", "pulsar_rate_in"),
        ("rate_out", "Messages delivered per second.", "pulsar_rate_out"),
        ("throughput_in", "Bytes published per second.", "pulsar_throughput_in"),
        ("throughput_out", "Bytes delivered per second.", "pulsar_throughput_out"),
        ("storage_size", "Bytes stored.", "pulsar_storage_size"),
        ("storage_logical_size", "Bytes stored, without copies.", "pulsar_storage_logical_size"),
        ("storage_write_rate", "Entries stored per second.", "pulsar_storage_write_rate"),
        ("storage_read_rate", "Entries delivered per second.", "pulsar_storage_read_rate"),
        ("msg_backlog", "Messages not acknowledged.", "pulsar_msg_backlog"),
    ):
        yield _gauge(f"pulsar_broker_{name}", help_text, totals.total(of))


def _topics_count(scrape: Scrape) -> str:
    family = Family("pulsar_topics_count", "Topics of a namespace.", "gauge")
    return family.head() + "".join(
        sample(family.name, labels([("namespace", namespace)]), count)
        for namespace, count in scrape.topics_per_namespace
    )


def _of_machine(context: Context) -> Iterator[str]:
    """Yield what Pulsar's load balancer says of a broker and its machine, in percent."""
    host = context.host
    cpu, came, went = host.usage()
    resident, whole = resident_bytes(), host.memory_bytes()
    memory = 100 * resident / whole if resident is not None and whole else None
    for name, help_text, value in (
        ("cpu_usage", "CPU of the machine in use, percent.", cpu),
        ("memory_usage", "Memory of the machine that the broker has, percent.", memory),
        ("directMemory_usage", "0: there is no memory beside that, percent.", 0.0),
        ("bandwidth_in_usage", "Use of the network lines, inbound, percent.", came),
        ("bandwidth_out_usage", "Use of the network lines, outbound, percent.", went),
        ("unload_bundle_total", "0: no load balancer moves bundles away.", 0),
        ("bundles_split_total", "0: no load balancer splits bundles.", 0),
    ):
        if value is not None:
            yield _gauge(f"pulsar_lb_{name}", help_text, value)
    opened = host.open_files()
    if opened is not None:
        yield _gauge("process_open_fds", "Open file descriptors.", opened)


def _block(family: Family, value: float) -> str:
    return f"{family.head()}{family.name} {value!r}\n"


def _gauge(name: str, help_text: str, value: float) -> str:
    return _block(Family(name, help_text, "gauge"), value)


def process_blocks() -> Iterator[str]:
    """Yield what the operating system says about this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds = usage.ru_utime + usage.ru_stime
    yield _block(
        Family("process_cpu_seconds_total", "User and system CPU time, seconds.", "counter"),
        round(seconds, 6),
    )
    yield _gauge(
        "process_max_resident_memory_bytes",
        "Most memory ever resident, bytes.",
        usage.ru_maxrss * 1024,
    )
    resident = resident_bytes()
    if resident is not None:
        yield _gauge("process_resident_memory_bytes", "Memory resident now, bytes.", resident)


def resident_bytes() -> int | None:
    """Return how much memory of this process is resident; None: this system does not tell."""
    try:
        status = DiskFiles().open(_MEMORY_STATUS)
    except OSError:
        return None
    try:
        return int(status.pread(128, 0).split()[1]) * resource.getpagesize()
    finally:
        status.close()


async def metrics(call: Call) -> Response:
    """Return everything this process counts."""
    scrape = Scrape(call.context)
    await scrape.collect()
    return StreamingResponse(_text(call.context, scrape), media_type=CONTENT_TYPE)


ROUTES = [Route("GET", "/metrics", metrics, Right.METRICS, answer=Text)]
