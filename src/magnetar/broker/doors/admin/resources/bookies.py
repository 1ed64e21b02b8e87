"""Bookies: Pulsar stores entries on other machines, this broker does so itself.

A tool that asks is told that there are none. Which ones a namespace prefers is kept and shown, as
its quorums are, so that scripts that prepare namespaces run.
"""

from starlette.responses import Response

from magnetar.broker.doors.admin.call import Call, answer, done
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.resources.policies import NAMESPACE
from magnetar.broker.doors.admin.routes import ADMIN, Right, Route
from magnetar.broker.doors.admin.shapes import Bookies, Json
from magnetar.broker.metadata.policies import BookieAffinity, Policies

BOOKIES = f"{ADMIN}/bookies"
AFFINITY = f"{NAMESPACE}/persistence/bookieAffinity"
RACK = f"{BOOKIES}/racks-info/{{bookie}}"


async def list_bookies(call: Call) -> Response:  # noqa: ARG001 - a handler
    """Return an empty list: the broker stores entries itself."""
    return answer(Bookies([]))


async def list_racks(call: Call) -> Response:  # noqa: ARG001 - a handler
    """Return in which rack each bookie stands: there are none."""
    return answer({})


async def rack(call: Call) -> Response:
    """Refuse: no bookie stands in a rack."""
    bookie = call.parameters["bookie"]
    raise Refusal(404, f"there is no bookie {bookie[:200]!r}: this broker stores entries itself")


async def affinity(call: Call) -> Response:
    """Return which bookies are preferred, by what somebody has set."""
    group = (await call.context.namespaces.get(call.namespace)).bookie_affinity
    return done() if group is None else answer(group.to_dict())


async def set_affinity(call: Call) -> Response:
    """Prefer bookies: kept and shown. There are none, the broker stores entries itself."""
    group = call.document(BookieAffinity, "bookieAffinity")
    if group is None or not group.primary:
        raise Refusal(412, "bookieAffinity: bookkeeperAffinityGroupPrimary is missing")
    return await _changed(call, group)


async def remove_affinity(call: Call) -> Response:
    """Prefer no bookies any more."""
    return await _changed(call, None)


async def _changed(call: Call, group: BookieAffinity | None) -> Response:
    def change(policies: Policies) -> None:
        policies.bookie_affinity = group

    await call.context.namespaces.update(call.namespace, change)
    return done()


ROUTES = [
    Route("GET", AFFINITY, affinity, Right.SUPERUSER, answer=BookieAffinity | None),
    Route("POST", AFFINITY, set_affinity, Right.SUPERUSER, body=BookieAffinity),
    Route("DELETE", AFFINITY, remove_affinity, Right.SUPERUSER),
    Route("GET", f"{BOOKIES}/all", list_bookies, Right.SUPERUSER, answer=Bookies),
    Route("GET", f"{BOOKIES}/racks-info", list_racks, Right.SUPERUSER, answer=Json),
    Route("GET", RACK, rack, Right.SUPERUSER, answer=Json),
    Route("POST", RACK, rack, Right.SUPERUSER, body=Json, query={"group": str}),
    Route("DELETE", RACK, rack, Right.SUPERUSER),
]
