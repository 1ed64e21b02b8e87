"""The table of routes: which call is answered by which function, and who may make it.

    GET /admin/v2/{domain}/{tenant}/{namespace}/{topic}/stats
        ├─ persistent ──────▶ one tree of path segments, built once:
        └─ non-persistent ──▶ both twins come from the same line, so they cannot differ

Paths are matched undecoded, segment by segment, and decoded afterwards: `a%2Fb` is one
segment, and a `%2F` in a topic's name never moves the borders between segments. A literal
segment wins over a parameter. Matching takes one dictionary look-up per segment.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

from magnetar.broker.access.commands import lookup_demand
from magnetar.broker.access.rights import (
    Demand,
    Resource,
    Right,
    SubscriptionOf,
    SubscriptionsOf,
    TenantName,
)
from magnetar.broker.doors.admin.absent import missing_feature, not_enabled
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.names import Domain, InvalidNameError, NamespaceName, TopicName, check_tenant

__all__ = ["ADMIN", "Match", "Right", "Route", "Routes", "demand_of"]

SEGMENTS_MAX = 24
"""More segments than any route has are refused before they are decoded."""

ADMIN = "/admin/v2"


HandlerT = TypeVar("HandlerT", bound=Callable[..., Awaitable[object]])


class Route(NamedTuple, Generic[HandlerT]):
    """One line of the table."""

    method: str
    template: str
    """Segments; `{name}` is a parameter. `{domain}` stands for both kinds of topics."""
    handler: HandlerT
    right: Right
    body: Any = None
    """What its JSON body must be, as a type that msgspec knows; None: it takes none."""
    answer: Any = None
    """What it answers, likewise, or `Text` or `bytes`. `None`, alone or as one of several: 204."""
    query: Mapping[str, type] = {}
    """What it understands in the query, and whether that is a `bool`, an `int` or a `str`."""
    does: str = ""
    """In a sentence, where the handler's docstring does not say it."""

    @property
    def summary(self) -> str:
        """What it does, in a sentence."""
        return self.does or (self.handler.__doc__ or "").partition("\n")[0]


class Text(str):
    """An answer that is plain text."""

    __slots__ = ()


class Match(NamedTuple, Generic[HandlerT]):
    """What a path led to."""

    handler: HandlerT
    right: Right
    parameters: dict[str, str]


class _Leaf(NamedTuple, Generic[HandlerT]):
    """A route where it ends: the names of its parameters, and the twin it is."""

    route: Route[HandlerT]
    names: tuple[str, ...]
    constants: dict[str, str]


class _Node(Generic[HandlerT]):
    """One segment of the tree."""

    __slots__ = ("children", "methods", "parameter")

    def __init__(self) -> None:
        self.children: dict[str, _Node[HandlerT]] = {}
        self.parameter: _Node[HandlerT] | None = None
        self.methods: dict[str, _Leaf[HandlerT]] = {}


class Routes(Generic[HandlerT]):
    """All routes of one app, as a tree."""

    def __init__(self, table: Iterable[Route[HandlerT]]) -> None:
        self._root: _Node[HandlerT] = _Node()
        for route in table:
            if "{domain}" in route.template:
                for domain in Domain:
                    template = route.template.replace("{domain}", domain.value)
                    self._add(route, template, {"domain": domain.value})
            else:
                self._add(route, route.template, {})

    def _add(self, route: Route[HandlerT], template: str, constants: dict[str, str]) -> None:
        node = self._root
        names: list[str] = []
        for segment in template.strip("/").split("/"):
            if segment.startswith("{"):
                names.append(segment[1:-1])
                if node.parameter is None:
                    node.parameter = _Node()
                node = node.parameter
            else:
                node = node.children.setdefault(segment, _Node())
        if route.method in node.methods:
            raise ValueError(f"two routes for {route.method} {template}")
        node.methods[route.method] = _Leaf(route, tuple(names), constants)

    def find(self, method: str, raw_path: str) -> Match[HandlerT]:
        """Return what answers a call.

        Raises:
            Refusal: 404, 405 with the methods there are, 501 for what only Pulsar has, or 400
                for a path that is not UTF-8.
        """
        segments = split_path(raw_path)
        node, values = self._walk(self._root, segments, 0, method)
        found = node.methods.get(method) if node is not None else None
        if found is None:
            refusal = not_enabled(segments)
            if refusal is not None:
                raise refusal
            feature = missing_feature(segments)
            if feature is not None:
                raise not_available(feature)
        if node is None:
            raise Refusal(
                404,
                f"there is no {raw_path[:200]}; paths start with {ADMIN}/, /lookup/v2/ or /ws/v2/,"
                f" and {ADMIN}/openapi.json lists them",
            )
        if found is None and _is_no_bundle(segments, values):
            raise Refusal(404, f"a namespace has no policy, and no call, named {segments[5][:100]}")
        if found is None:
            allowed = ", ".join(sorted(node.methods))
            raise Refusal(405, f"{method} is not possible here, only {allowed}", allow=allowed)
        values = [decode_segment(each) for each in values]
        parameters = {**found.constants, **dict(zip(found.names, values, strict=True))}
        return Match(found.route.handler, found.route.right, parameters)

    def _walk(
        self, node: _Node[HandlerT], segments: list[str], index: int, method: str
    ) -> tuple[_Node[HandlerT] | None, list[str]]:
        """Follow segments to a node that has the method, literals first.

        If none has it, the first one that has another is returned.
        """
        if index == len(segments):
            return (node, []) if node.methods else (None, [])
        second: tuple[_Node[HandlerT] | None, list[str]] = None, []
        child = node.children.get(segments[index])
        if child is not None:
            found, values = self._walk(child, segments, index + 1, method)
            if found is not None:
                second = found, values
                if method in found.methods:
                    return second
        if node.parameter is not None and segments[index]:
            found, values = self._walk(node.parameter, segments, index + 1, method)
            if found is not None and (second[0] is None or method in found.methods):
                return found, [segments[index], *values]
        return second


def _is_no_bundle(segments: list[str], values: list[str]) -> bool:
    """Whether a path has a word where only a bundle of a namespace may stand, and it is none."""
    match segments, values:
        case ["admin", "v2", "namespaces", _, _, word], [_, _, _]:
            return not word.lower().startswith("0x")
        case _:
            return False


def demand_of(match: Match[HandlerT]) -> Demand:
    """Return what a call demands, by the parameters of its path.

    Raises:
        InvalidNameError: one of them is no name.
    """
    resource = _resource(match.right, match.parameters)
    if match.right is Right.LOOKUP and isinstance(resource, TopicName):
        return lookup_demand(resource)
    return Demand(match.right, resource)


def _resource(right: Right, parameters: Mapping[str, str]) -> Resource:
    """Return what a right is about: the narrowest thing that the path names and rights know."""
    if "tenant" not in parameters:
        return None
    tenant = TenantName(check_tenant(parameters["tenant"]))
    if "namespace" not in parameters or right is Right.TENANT:
        return tenant
    namespace = NamespaceName.parse(f"{tenant.tenant}/{parameters['namespace']}")
    if "topic" not in parameters:
        named = parameters.get("subscription")
        return namespace if named is None else SubscriptionsOf(namespace, named)
    domain = parameters.get("domain", Domain.PERSISTENT.value)
    topic = TopicName.parse(f"{domain}://{namespace}/{parameters['topic']}")
    if "subscription" not in parameters:
        return topic
    return SubscriptionOf(topic, parameters["subscription"])


def not_available(feature: str) -> Refusal:
    """Return the answer for what only Pulsar has."""
    return Refusal(501, f"not available in this version: {feature}")


def split_path(raw_path: str) -> list[str]:
    """Return the segments of an undecoded path; one slash at the end means nothing.

    Raises:
        Refusal: there are more than any route has.
    """
    segments = raw_path.removeprefix("/").removesuffix("/").split("/", SEGMENTS_MAX)
    if len(segments) > SEGMENTS_MAX:
        raise Refusal(404, f"a path of more than {SEGMENTS_MAX} segments leads nowhere")
    return segments


def decode_segment(segment: str) -> str:
    """Undo the %-escapes of one segment.

    Raises:
        Refusal: the bytes are not UTF-8.
    """
    try:
        return unquote_to_bytes(segment).decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal(400, f"the path segment {segment[:200]!r} is not UTF-8") from None


def topic_of(method: str, raw_path: str) -> TopicName | None:
    """Return the topic that a call is about, which says whose call it is; None: no single one.

    Only the broker process that owns a topic knows it. A name that is none is left to
    whoever answers the call.
    """
    segments = split_path(raw_path)
    if segments[:2] != ["admin", "v2"] or len(segments) < 6:
        return None
    if segments[2] not in {domain.value for domain in Domain}:
        return None
    if len(segments) == 6 and segments[5] == "partitioned" and method in {"GET", "HEAD"}:
        return None  # the list of the namespace's partitioned topics, or else a topic's name
    domain, tenant, namespace, topic = segments[2:6]
    try:
        return TopicName.parse(
            f"{domain}://" + "/".join(decode_segment(each) for each in (tenant, namespace, topic))
        )
    except (InvalidNameError, Refusal):
        return None
