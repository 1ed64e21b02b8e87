"""Failure domains of a cluster, and which brokers are for which namespaces.

    .../clusters/{c}/failureDomains/{d}                      {"brokers": ["host:8080"]}
    .../clusters/{c}/namespaceIsolationPolicies/{p}          {"namespaces": [...], "primary": ...}
    .../clusters/{c}/namespaceIsolationPolicies/brokers      what that means for each broker

Kept and shown as Pulsar does. One broker serves every namespace, whatever they say.
"""

import re

from starlette.responses import Response

from magnetar.broker.doors.admin.call import Call, answer, done
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.resources.clusters import CLUSTER
from magnetar.broker.doors.admin.routes import Right, Route
from magnetar.broker.doors.admin.shapes import IsolationOfBroker
from magnetar.broker.metadata.placement import FailureDomain, Isolation
from magnetar.names import check_new

DOMAINS_MAX = 1_000
"""Failure domains, or isolation policies, of one cluster."""
LIST_MAX = 1_000
"""Names and patterns in one of them."""

DOMAINS = f"{CLUSTER}/failureDomains"
DOMAIN = f"{DOMAINS}/{{failureDomain}}"
ISOLATIONS = f"{CLUSTER}/namespaceIsolationPolicies"
ISOLATION = f"{ISOLATIONS}/{{policy}}"


async def _cluster(call: Call, status: int = 404) -> str:
    """Return the name of a cluster that there is."""
    name = call.parameters["cluster"]
    if name not in await call.context.clusters.list():
        raise Refusal(status, f"cluster {name} does not exist")
    return name


# --- failure domains ------------------------------------------------------------------------


async def list_domains(call: Call) -> Response:
    """Return the failure domains of a cluster."""
    domains = await call.context.placement.domains(await _cluster(call))
    return answer({name: domain.to_dict() for name, domain in domains.items()})


async def get_domain(call: Call) -> Response:
    """Return one failure domain."""
    name = call.parameters["failureDomain"]
    domains = await call.context.placement.domains(await _cluster(call))
    if name not in domains:
        raise Refusal(404, f"failure domain {name!r} does not exist")
    return answer(domains[name].to_dict())


async def set_domain(call: Call) -> Response:
    """Make a failure domain, or change it; a broker is in one at most."""
    cluster = await _cluster(call, 412)
    name = check_new("failure domain", call.parameters["failureDomain"])
    domain = call.document(FailureDomain, "failure domain")
    if domain is None:
        raise Refusal(400, "failure domain: the body is missing; it says which brokers are in it")
    if len(domain.brokers) > LIST_MAX:
        raise Refusal(412, f"{len(domain.brokers)} brokers, the limit is {LIST_MAX}")
    others = await call.context.placement.domains(cluster)
    for other, its in others.items():
        both = sorted({*its.brokers} & {*domain.brokers})
        if other != name and both:
            raise Refusal(409, f"broker {both[0]} is in the failure domain {other} already")
    _demand_room(others, name)
    await call.context.placement.set_domain(cluster, name, domain)
    return done()


async def remove_domain(call: Call) -> Response:
    """Forget a failure domain."""
    name = call.parameters["failureDomain"]
    if not await call.context.placement.remove_domain(await _cluster(call, 412), name):
        raise Refusal(404, f"failure domain {name!r} does not exist")
    return done()


# --- isolation ------------------------------------------------------------------------------


async def list_isolations(call: Call) -> Response:
    """Return the isolation policies of a cluster."""
    isolations = await call.context.placement.isolations(await _cluster(call))
    return answer({name: each.to_dict() for name, each in isolations.items()})


async def get_isolation(call: Call) -> Response:
    """Return one isolation policy."""
    cluster, name = await _cluster(call), call.parameters["policy"]
    isolations = await call.context.placement.isolations(cluster)
    if name not in isolations:
        raise Refusal(404, f"isolation policy {name!r} of {cluster} does not exist")
    return answer(isolations[name].to_dict())


async def set_isolation(call: Call) -> Response:
    """Make an isolation policy, or change it."""
    cluster = await _cluster(call)
    name = check_new("isolation policy", call.parameters["policy"])
    isolation = call.document(Isolation, "isolation policy")
    if isolation is None or not isolation.namespaces or not isolation.primary:
        raise Refusal(400, "isolation policy: expected namespaces and primary brokers")
    for pattern in (*isolation.namespaces, *isolation.primary, *isolation.secondary):
        _check_pattern(pattern)
    _demand_room(await call.context.placement.isolations(cluster), name)
    await call.context.placement.set_isolation(cluster, name, isolation)
    return done()


async def remove_isolation(call: Call) -> Response:
    """Forget an isolation policy."""
    cluster, name = await _cluster(call), call.parameters["policy"]
    if not await call.context.placement.remove_isolation(cluster, name):
        raise Refusal(404, f"isolation policy {name!r} of {cluster} does not exist")
    return done()


async def brokers_of_isolation(call: Call) -> Response:
    """Return for each broker which isolation policies it falls under."""
    await _cluster(call)
    return answer(await _falling_under(call, call.context.broker_id))


async def broker_of_isolation(call: Call) -> Response:
    """Return which isolation policy one broker falls under."""
    await _cluster(call)
    broker = call.parameters["broker"]
    if broker != call.context.broker_id:
        raise Refusal(404, f"broker {broker!r} is not there; there is {call.context.broker_id}")
    found = await _falling_under(call, broker)
    return answer(found[0] if found else IsolationOfBroker(broker, "", False, []))


async def _falling_under(call: Call, broker: str) -> list[IsolationOfBroker]:
    host = broker.rpartition(":")[0]
    isolations = await call.context.placement.isolations(call.parameters["cluster"])
    return [
        IsolationOfBroker(broker, name, primary, isolation.namespaces)
        for name, isolation in isolations.items()
        for primary in (_meant(isolation.primary, host),)
        if primary or _meant(isolation.secondary, host)
    ]


def _meant(patterns: list[str], host: str) -> bool:
    """Return whether a host is named. Only names are compared: a pattern could take for ever."""
    return any(pattern in {host, ".*"} for pattern in patterns)


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise Refusal(400, f"{pattern[:100]!r} is no regular expression: {error}") from None


def _demand_room(there: dict[str, FailureDomain] | dict[str, Isolation], name: str) -> None:
    if name not in there and len(there) >= DOMAINS_MAX:
        raise Refusal(412, f"there are {DOMAINS_MAX} already, which is the limit")


ROUTES = [
    Route("GET", DOMAINS, list_domains, Right.SUPERUSER, answer=dict[str, FailureDomain]),
    Route("GET", DOMAIN, get_domain, Right.SUPERUSER, answer=FailureDomain),
    Route("POST", DOMAIN, set_domain, Right.SUPERUSER, body=FailureDomain),
    Route("DELETE", DOMAIN, remove_domain, Right.SUPERUSER),
    Route("GET", ISOLATIONS, list_isolations, Right.SUPERUSER, answer=dict[str, Isolation]),
    Route("GET", ISOLATION, get_isolation, Right.SUPERUSER, answer=Isolation),
    Route("POST", ISOLATION, set_isolation, Right.SUPERUSER, body=Isolation),
    Route("DELETE", ISOLATION, remove_isolation, Right.SUPERUSER),
    Route(
        "GET", f"{ISOLATIONS}/brokers", brokers_of_isolation, Right.SUPERUSER,
        answer=list[IsolationOfBroker],
    ),
    Route(
        "GET", f"{ISOLATIONS}/brokers/{{broker}}", broker_of_isolation, Right.SUPERUSER,
        answer=IsolationOfBroker,
    ),
]  # fmt: skip
