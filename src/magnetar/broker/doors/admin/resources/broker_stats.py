"""What this broker carries, as Pulsar's load balancer and its monitors ask for it.

    broker-stats/topics       {"acme/shop": {"0x.._0x..": {"persistent": {topic: figures}}}}
    broker-stats/load-report  rates and counts of everything together
    broker-stats/metrics      [{"metrics": {...}, "dimensions": {...}}]

Each process knows the topics it has loaded. `topics` may be larger than anybody would hold:

    groups of all processes ──▶ for each group { own figures, then those of each sibling, spliced }

A sibling sends the figures of one group as one flat object, whose braces are cut off on the way.
"""

import resource
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.responses import Response, StreamingResponse

from magnetar.broker.doors.admin.bundles import Bundles
from magnetar.broker.doors.admin.call import Call, answer
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.http.siblings import Exchange, SiblingDownError, in_the_name_of
from magnetar.broker.doors.admin.owners import from_all
from magnetar.broker.doors.admin.routes import ADMIN, Right, Route
from magnetar.broker.doors.admin.shapes import Allocator, Json, LoadReport, Sample, Usage
from magnetar.broker.doors.admin.slices import Breather
from magnetar.broker.latency import QUANTILES, merged, packed, quantile, unpacked
from magnetar.broker.port import NamespaceNotFoundError
from magnetar.broker.topics.topic import Topic
from magnetar.names import NamespaceName

STATS = f"{ADMIN}/broker-stats"
TOPICS = f"{STATS}/topics"

TOPICS_PER_TURN = 10
"""Topics whose figures are made in one turn of the event loop: half a millisecond."""

Group = tuple[str, str, str]
"""Namespace, bundle, domain."""

_RATES = ("msgRateIn", "msgRateOut", "msgThroughputIn", "msgThroughputOut")
_ALLOCATORS = ("default", "ml-cache")


# --- topics ---------------------------------------------------------------------------------


async def topics(call: Call) -> Response:
    """Return the figures of every topic that is in use, by namespace, bundle and domain."""
    if call.here and call.word("namespace"):
        group = call.word("namespace"), call.word("bundle"), call.word("domain")
        return StreamingResponse(_flat(call, group), media_type="application/json")

    async def here() -> list[Group]:
        return await _groups(call)

    parts = await from_all(call, here, TOPICS)
    if call.here:
        return answer(parts[0])
    groups = sorted({(ns, bundle, domain) for part in parts for ns, bundle, domain in part})
    return StreamingResponse(_all(call, groups), media_type="application/json")


async def bundles_in_use(call: Call) -> list[str]:
    """Return the bundles that have topics in use, in any process, with their namespaces."""

    async def here() -> list[Group]:
        return await _groups(call)

    parts = await from_all(call, here, TOPICS)
    return sorted({f"{namespace}/{bundle}" for part in parts for namespace, bundle, _ in part})


async def _groups(call: Call) -> list[Group]:
    return sorted({group for group, _ in await _grouped(call)})


async def _grouped(call: Call) -> list[tuple[Group, Topic]]:
    """Return the topics that this process has loaded, and where each belongs."""
    context, bundles = call.context, dict[NamespaceName, Bundles]()
    found: list[tuple[Group, Topic]] = []
    breather = Breather(200)
    for topic in context.catalog.loaded():
        name, namespace = topic.name, topic.name.namespace_name
        if namespace not in bundles:
            try:
                bundles[namespace] = await context.bundles(namespace)
            except NamespaceNotFoundError:
                continue  # it is being deleted
        group = str(namespace), bundles[namespace].of_topic(name), name.domain.value
        found.append((group, topic))
        await breather.step()
    return found


async def _all(call: Call, groups: list[Group]) -> AsyncIterator[bytes]:
    """Yield the whole answer. `groups` are sorted, so that each name is opened once."""
    before: Group = ("", "", "")
    for group in groups:
        yield _between(before, group) + _encoded(group[2]) + b":{"
        before = group
        async for piece in _members(call, group):
            yield piece
        yield b"}"
    yield b"}}}" if groups else b"{}"


def _between(before: Group, group: Group) -> bytes:
    """Close what ended with the last group, and open what begins with this one."""
    namespace, bundle, _ = group
    if before[0] != namespace:
        opening = b"{" if not before[0] else b"}},"
        return opening + _encoded(namespace) + b":{" + _encoded(bundle) + b":{"
    return b"}," + _encoded(bundle) + b":{" if before[1] != bundle else b","


async def _members(call: Call, group: Group) -> AsyncIterator[bytes]:
    """Yield the members of one group's object, with the commas between them, in pieces."""
    comma = b""
    async for pair in _pairs(call, group):
        yield comma + pair
        comma = b","
    namespace, bundle, domain = (quote(each, safe="") for each in group)
    target = f"{TOPICS}?namespace={namespace}&bundle={bundle}&domain={domain}"
    siblings = call.context.siblings
    for worker in siblings.others:
        started = False
        headers = in_the_name_of(call.caller)
        async with siblings.exchange(worker, "GET", target, headers) as exchange:
            if exchange.status != 200:
                raise SiblingDownError(worker, f"it answered {exchange.status}", untouched=True)
            async for piece in _inside(exchange):
                yield piece if started else comma + piece
                started = True
        comma = b"," if started else comma


async def _inside(exchange: Exchange) -> AsyncIterator[bytes]:
    """Yield an object without its braces."""
    opened, held = False, b""
    async for piece in exchange.body():
        if not opened:
            piece, opened = piece[1:], True  # noqa: PLW2901 - the brace is cut off
        piece = held + piece  # noqa: PLW2901 - the last byte waits: it may be the closing brace
        held = piece[-1:]
        if piece[:-1]:
            yield piece[:-1]


async def _flat(call: Call, group: Group) -> AsyncIterator[bytes]:
    """Yield the figures of one group's topics in this process as one object."""
    opening = b"{"
    async for pair in _pairs(call, group):
        yield opening + pair
        opening = b","
    yield b"{}" if opening == b"{" else b"}"


async def _pairs(call: Call, wanted: Group) -> AsyncIterator[bytes]:
    breather = Breather(TOPICS_PER_TURN)
    for group, topic in await _grouped(call):
        if group == wanted and not topic.closed:
            yield _encoded(str(topic.name)) + b":" + msgspec.json.encode(_figures(topic))
            await breather.step()


def _figures(topic: Topic) -> Json:
    """Return what Pulsar shows of a topic here: the statistics, and some under older names."""
    stats = topic.stats()
    return stats | {
        "producerCount": len(stats["publishers"]),
        "msgInCount": stats["msgInCounter"],
        "bytesInCount": stats["bytesInCounter"],
        "msgOutCount": stats["msgOutCounter"],
        "bytesOutCount": stats["bytesOutCounter"],
        "pendingAddEntriesCount": 0,
    }


def _encoded(text: str) -> bytes:
    return msgspec.json.encode(text)


# --- everything together --------------------------------------------------------------------


async def load_report(call: Call) -> Response:
    """Return what this broker carries, and what it needs for that."""

    async def here() -> dict[str, float]:
        return await _load(call)

    parts = await from_all(call, here)
    if call.here:
        return answer(parts[0])
    total = {key: sum(part[key] for part in parts) for key in parts[0]}
    address = call.context.address
    bundles = await bundles_in_use(call)
    return answer(
        LoadReport(
            web_service_url=address.http_url,
            pulsar_service_url=address.url,
            persistent_topics_enabled=True,
            non_persistent_topics_enabled=True,
            cpu=Usage(total["cpuSeconds"], 0.0),
            memory=Usage(total["memory"], 0.0),
            direct_memory=Usage(0.0, 0.0),
            bandwidth_in=Usage(total["msgThroughputIn"] / 1024, 0.0),
            bandwidth_out=Usage(total["msgThroughputOut"] / 1024, 0.0),
            msg_throughput_in=total["msgThroughputIn"],
            msg_throughput_out=total["msgThroughputOut"],
            msg_rate_in=total["msgRateIn"],
            msg_rate_out=total["msgRateOut"],
            num_topics=int(total["topics"]),
            num_bundles=len(bundles),
            num_consumers=int(total["consumers"]),
            num_producers=int(total["producers"]),
            bundles=bundles,
            broker_version_string=call.context.version,
            load_report_type="LocalBrokerData",
        )
    )


async def _load(call: Call) -> dict[str, float]:
    """Return the sums over the topics of this process."""
    total = dict.fromkeys((*_RATES, "topics", "producers", "consumers"), 0.0)
    breather = Breather(TOPICS_PER_TURN)
    for topic in call.context.catalog.loaded():
        stats = topic.stats()
        for key in _RATES:
            total[key] += stats[key]
        total["topics"] += 1
        total["producers"] += len(topic.producers)
        total["consumers"] += topic.consumer_count
        await breather.step()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return total | {"cpuSeconds": used.ru_utime + used.ru_stime, "memory": _resident_mib()}


def _resident_mib() -> float:
    """Return the most memory this process ever had, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


async def metrics(call: Call) -> Response:
    """Return the counters and gauges of every process, as JSON. `/metrics` has all of them."""

    async def here() -> list[Sample]:
        return [_sample(call, dict(_samples(call)), metric="broker")]

    return await _samples_of_all(call, here)


async def mbeans(call: Call) -> Response:
    """Return what each process needs: there is no JVM whose beans could be shown."""

    async def here() -> list[Sample]:
        load = await _load(call)
        figures = {"cpu_seconds_total": load["cpuSeconds"], "resident_mib_max": load["memory"]}
        return [_sample(call, figures, MBean="magnetar:type=Process")]

    return await _samples_of_all(call, here)


async def _samples_of_all(call: Call, here: Any) -> Response:
    parts = await from_all(call, here)
    return answer(parts[0] if call.here else [sample for part in parts for sample in part])


def _sample(call: Call, figures: Mapping[str, float], **about: str) -> Sample:
    context = call.context
    worker = str(context.config.worker)
    dimensions = {"cluster": context.cluster, "broker": context.broker_id, "worker": worker}
    return Sample(dict(figures), dimensions | about)


def _samples(call: Call) -> Iterator[tuple[str, float]]:
    """Yield name and value of every series without labels."""
    for text in call.context.metrics.render():
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            if not line.startswith("#") and "{" not in name:
                yield name, float(value)


async def latencies(call: Call) -> Response:
    """Return how long things took in the last whole minute, in seconds, of all processes together.

    What processes tell each other are counts by slot, which add up; quantiles would not.
    """

    async def here() -> dict[str, dict[str, int]]:
        return {each.name: packed(each.recent) for each in call.context.metrics.all_latencies}

    parts = await from_all(call, here)
    if call.here:
        return answer(parts[0])
    shown: dict[str, dict[str, float | None]] = {}
    for name in sorted({name for part in parts for name in part}):
        counts = merged(unpacked(part.get(name, {}).items()) for part in parts)
        figures = {f"p{100 * each:g}": quantile(counts, each) for each in QUANTILES}
        shown[name] = {"count": sum(counts), **figures, "max": quantile(counts, 1)}
    return answer(shown)


# --- what only Netty and BookKeeper have ------------------------------------------------------


async def allocator(call: Call) -> Response:
    """Return what the allocator of that name holds: nothing, there is no Netty here."""
    name = call.parameters["allocator"]
    if name not in _ALLOCATORS:
        raise Refusal(406, f"there is no allocator {name[:100]!r}, but {', '.join(_ALLOCATORS)}")
    return answer(Allocator(0, 0, 0, 0, 0, [], [], 0, 0))


async def bookie_operations(call: Call) -> Response:  # noqa: ARG001 - a handler
    """Return what waits for bookies, by namespace: nothing, there are none."""
    return answer({})


async def availability(call: Call) -> Response:
    """Refuse: one broker serves all, and no bundle looks for another."""
    await call.context.namespaces.get(call.namespace)
    raise Refusal(409, "the load manager does not support this operation: there is one broker")


_TOPICS = dict[str, dict[str, dict[str, dict[str, Json]]]]

ROUTES = [
    Route("GET", TOPICS, topics, Right.SUPERUSER, answer=_TOPICS),
    Route("GET", f"{STATS}/destinations", topics, Right.SUPERUSER, answer=_TOPICS),
    Route("GET", f"{STATS}/load-report", load_report, Right.SUPERUSER, answer=LoadReport),
    Route("GET", f"{STATS}/metrics", metrics, Right.SUPERUSER, answer=list[Sample]),
    Route(
        "GET", f"{STATS}/latencies", latencies, Right.SUPERUSER,
        answer=dict[str, dict[str, float | None]],
    ),
    Route("GET", f"{STATS}/mbeans", mbeans, Right.SUPERUSER, answer=list[Sample]),
    Route(
        "GET", f"{STATS}/allocator-stats/{{allocator}}", allocator, Right.SUPERUSER,
        answer=Allocator,
    ),
    Route("GET", f"{STATS}/bookieops", bookie_operations, Right.SUPERUSER, answer=Json),
    Route(
        "GET", f"{STATS}/broker-resource-availability/{{tenant}}/{{namespace}}", availability,
        Right.SUPERUSER, answer=Json,
    ),
]  # fmt: skip
