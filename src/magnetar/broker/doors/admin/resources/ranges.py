"""Bundles of a namespace as things to act on: split, delete, and where topics lie in them.

    PUT     .../{bundle}/split               cut in halves, or where the topics are
    DELETE  .../{bundle}                     its topics with `force`; the range itself stays
    GET     .../{bundle}/topicHashPositions  {"topicHashPositions": {"persistent://...": 1234}}

What is done to all topics of a bundle otherwise (unload, clear) stands in `namespaces`.
"""

from collections.abc import Sequence

from starlette.responses import Response

from magnetar.broker.doors.admin.bundles import Bundles, middle, position
from magnetar.broker.doors.admin.call import Call, answer, done
from magnetar.broker.doors.admin.context import in_parallel
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.resources.namespaces import BUNDLE
from magnetar.broker.doors.admin.routes import Right, Route
from magnetar.broker.doors.admin.shapes import HashPositions
from magnetar.broker.metadata.policies import Policies
from magnetar.broker.port import ListMode
from magnetar.names import TopicName

HALVES = "range_equally_divide"
BY_TOPICS = ("topic_count_equally_divide", "flow_or_qps_equally_divide")
"""Which topics are busy is not known bundle by bundle; the second counts topics, too."""
GIVEN = "specified_positions_divide"
ALGORITHMS = (HALVES, *BY_TOPICS, GIVEN)
LARGEST = ("LARGEST", "HOT")
"""Stand for the bundle with the most topics."""


async def split(call: Call) -> Response:
    """Cut a bundle in two, or at the places in the body. Nothing moves: it is only shown so."""
    algorithm = call.word("splitAlgorithmName") or HALVES
    if algorithm not in ALGORITHMS:
        raise Refusal(412, f"there is no splitAlgorithmName {algorithm[:100]!r}, but {ALGORITHMS}")
    call.flag("unload")
    places: list[int] = call.json(list[int], "splitBoundaries") or []
    context, namespace = call.context, call.namespace
    bundles = await context.bundles(namespace)
    topics = [
        TopicName.parse(name)
        for name in await context.catalog.topics(namespace, ListMode.ALL, system=True)
    ]
    bundle = _named(call.parameters["bundle"], bundles, topics)
    inside = sorted(position(topic) for topic in topics if bundles.of_topic(topic) == bundle)
    if algorithm == GIVEN:
        at: Sequence[int] = places
    elif algorithm in BY_TOPICS and len(inside) > 1:
        # Between the two topics in the middle.
        low, high = inside[len(inside) // 2 - 1], inside[len(inside) // 2]
        at = [low + (high - low) // 2 + 1]
    else:
        at = [middle(bundle)]
    bundles.split(bundle, at)  # refuses what cannot be, before anything is read for a change

    def change(policies: Policies) -> None:
        now = Bundles.of(policies.unknown.get("bundles"))
        policies.unknown = {**policies.unknown, "bundles": now.split(bundle, at).to_json()}

    await context.namespaces.update(namespace, change)
    return done()


def _named(text: str, bundles: Bundles, topics: Sequence[TopicName]) -> str:
    if text not in LARGEST:
        return bundles.check(text)
    counts = dict.fromkeys(bundles.names, 0)
    for topic in topics:
        counts[bundles.of_topic(topic)] += 1
    return max(counts, key=lambda name: counts[name])


async def delete_bundle(call: Call) -> Response:
    """Delete the topics of a bundle, with `force`; without, see that it has none."""
    bundle, topics = await _topics(call)
    if topics and not call.flag("force"):
        raise Refusal(409, f"bundle {bundle} still has {len(topics)} topics")
    await in_parallel([call.context.delete_if_there(topic, force=True) for topic in topics])
    return done()


async def hash_positions(call: Call) -> Response:
    """Return where the topics of a bundle, or those asked for, lie between the borders."""
    bundle, topics = await _topics(call)
    wanted = {word for text in call.words("topics") for word in text.split(",") if word}
    shown = {str(each): position(each) for each in topics if not wanted or str(each) in wanted}
    return answer(HashPositions(str(call.namespace), bundle, shown))


async def _topics(call: Call) -> tuple[str, list[TopicName]]:
    """Return a bundle as we write it, and its topics."""
    bundles = await call.context.bundles(call.namespace)
    bundle = bundles.check(call.parameters["bundle"])
    names = await call.context.catalog.topics(call.namespace, ListMode.ALL, system=True)
    topics = [TopicName.parse(name) for name in names]
    return bundle, [topic for topic in topics if bundles.of_topic(topic) == bundle]


ROUTES = [
    Route(
        "PUT", f"{BUNDLE}/split", split, Right.SUPERUSER,
        body=list[int] | None, query={"unload": bool, "splitAlgorithmName": str},
    ),
    Route("DELETE", BUNDLE, delete_bundle, Right.NAMESPACE, query={"force": bool}),
    Route(
        "GET", f"{BUNDLE}/topicHashPositions", hash_positions, Right.NAMESPACE,
        answer=HashPositions, query={"topics": str},
    ),
]  # fmt: skip
