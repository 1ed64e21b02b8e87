"""Resource groups, and which namespace belongs to which.

    GET                resourcegroups
    GET, PUT, DELETE   resourcegroups/{group}            {"publishRateInMsgs": 1000, ...}
    GET, DELETE        namespaces/{tenant}/{namespace}/resourcegroup
    POST               namespaces/{tenant}/{namespace}/resourcegroup/{group}

The rates hold for all topics of all namespaces of a group together; each broker process takes
an equal part of them.
"""

from starlette.responses import Response

from magnetar.broker.doors.admin.call import Call, answer, done
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.resources.policies import NAMESPACE
from magnetar.broker.doors.admin.routes import ADMIN, Right, Route
from magnetar.broker.metadata.facts import NotEmptyError, NotFoundError
from magnetar.broker.metadata.policies import Policies
from magnetar.broker.metadata.resource_groups import ResourceGroup
from magnetar.names import check_new

RATE_MAX = 2**53
"""What a number in JSON is exact up to."""


async def list_groups(call: Call) -> Response:
    """Return the names of all resource groups."""
    return answer(await call.context.catalog.resource_groups.list())


async def get_group(call: Call) -> Response:
    """Return the rates of a resource group."""
    group = await call.context.catalog.resource_groups.get(call.parameters["group"])
    return answer(group.to_dict())


async def put_group(call: Call) -> Response:
    """Make a resource group, or change its rates."""
    name = check_new("resource group", call.parameters["group"])
    group = call.document(ResourceGroup, "resource group") or ResourceGroup()
    for key, rate in group.to_dict().items():
        if isinstance(rate, int) and not -1 <= rate <= RATE_MAX:
            raise Refusal(412, f"{key} is {rate}, allowed: -1 (no limit) to {RATE_MAX}")
    await call.context.catalog.resource_groups.put(name, group)
    return done()


async def delete_group(call: Call) -> Response:
    """Remove a resource group that no namespace belongs to."""
    try:
        await call.context.catalog.resource_groups.delete(call.parameters["group"])
    except NotEmptyError as error:
        raise Refusal(412, f"{error}; take it out first") from None
    return done()


async def group_of(call: Call) -> Response:
    """Return the resource group of a namespace; 204: it belongs to none."""
    name = (await call.context.namespaces.get(call.namespace)).resource_group
    return done() if name is None else answer(name)


async def join_group(call: Call) -> Response:
    """Let a namespace belong to a resource group."""
    name = call.parameters["group"]
    try:
        await call.context.catalog.resource_groups.get(name)
    except NotFoundError as error:
        raise Refusal(412, str(error)) from None
    await _belong(call, name)
    return done()


async def leave_group(call: Call) -> Response:
    """Let a namespace belong to no resource group."""
    await _belong(call, None)
    return done()


async def _belong(call: Call, name: str | None) -> None:
    def change(policies: Policies) -> None:
        policies.resource_group = name

    await call.context.namespaces.update(call.namespace, change)


GROUPS = f"{ADMIN}/resourcegroups"
GROUP = f"{GROUPS}/{{group}}"

ROUTES = [
    Route("GET", GROUPS, list_groups, Right.SUPERUSER, answer=list[str]),
    Route("GET", GROUP, get_group, Right.SUPERUSER, answer=ResourceGroup),
    Route("PUT", GROUP, put_group, Right.SUPERUSER, body=ResourceGroup),
    Route("DELETE", GROUP, delete_group, Right.SUPERUSER),
    Route("GET", f"{NAMESPACE}/resourcegroup", group_of, Right.NAMESPACE, answer=str | None),
    Route("DELETE", f"{NAMESPACE}/resourcegroup", leave_group, Right.SUPERUSER),
    Route("POST", f"{NAMESPACE}/resourcegroup/{{group}}", join_group, Right.SUPERUSER),
]
