"""What calls change, as the audit topic tells it: who, from where, before and after.

    POST .../permissions/anna ──▶ namespace as it was ──▶ handler ──▶ as it is ──▶ Audit.changed

What an administrator does is noted where it comes in; what processes ask of each other for it
is not, or it would be noted once for each. A call that is refused changes nothing: one that may
not be made is noted as denied, and others are the caller's own mistakes.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import Response

from magnetar.broker.access.audit import Audit
from magnetar.broker.access.rights import Right
from magnetar.broker.doors.admin.call import Call
from magnetar.broker.doors.admin.http.siblings import CALLER_HEADER
from magnetar.broker.port import PortError
from magnetar.names import InvalidNameError

ASKED_MAX = 100
"""Of permissions on many topics, how many are noted."""

_ADMINISTRATION = frozenset({Right.NAMESPACE, Right.TENANT, Right.SUPERUSER, Right.CONSUME_ALL})


def is_change(call: Call, method: str, right: Right) -> bool:
    """Return whether a call is an administrator's, or of such reach, and changes something."""
    if method == "GET" or CALLER_HEADER in call.request.headers:
        return False
    whole_namespace = "subscription" in call.parameters and "topic" not in call.parameters
    return right in _ADMINISTRATION or whole_namespace or _names_topics_in_its_body(call)


def _names_topics_in_its_body(call: Call) -> bool:
    return call.path.rstrip("/").endswith("PermissionsOnTopics")


async def noted(
    audit: Audit, call: Call, method: str, handler: Callable[[Call], Awaitable[Response]]
) -> Response:
    """Answer a call, and note what it changed."""
    before = await _facts(call)
    response = await handler(call)
    if response.status_code < 400:
        what = f"{method} {call.target}"
        after = await _facts(call)
        if _names_topics_in_its_body(call):
            after = {"asked": call.json(list[Any], "permissions")[:ASKED_MAX]}
        audit.changed(call.caller, what, response.status_code, before, after)
    return response


async def _facts(call: Call) -> dict[str, Any] | None:
    """Return what is known about what a call is about; None: nothing, or nothing yet."""
    context, named = call.context, call.parameters
    try:
        if "topic" in named and "permissions" not in call.path:
            return (await context.partitions.policies.get(call.topic)).to_dict()
        if "namespace" in named:
            return (await context.namespaces.get(call.namespace)).to_dict()
        if "tenant" in named:
            return (await context.tenants.get(call.tenant)).to_dict()
    except (PortError, InvalidNameError, KeyError):
        return None
    return None
