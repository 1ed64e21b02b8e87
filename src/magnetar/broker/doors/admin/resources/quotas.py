"""Resource quotas: what a bundle is thought to need, kept and shown as Pulsar does.

    /admin/v2/resource-quotas                       what any bundle needs
    /admin/v2/resource-quotas/{t}/{ns}/{bundle}     what one needs; unset, what any does

Pulsar's load balancer starts from these. Here one broker serves all, and nothing acts on them.
"""

import math

import msgspec
from starlette.responses import Response

from magnetar.broker.doors.admin.call import Call, answer, done
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.resources.policies import whole
from magnetar.broker.doors.admin.routes import ADMIN, Right, Route
from magnetar.broker.metadata.placement import DEFAULT_BUNDLE, ResourceQuota

QUOTAS = f"{ADMIN}/resource-quotas"
BUNDLE = f"{QUOTAS}/{{tenant}}/{{namespace}}/{{bundle}}"


async def get_default(call: Call) -> Response:
    """Return what any bundle needs."""
    return answer(whole(await call.context.placement.quota(None, DEFAULT_BUNDLE)))


async def set_default(call: Call) -> Response:
    """Say what any bundle needs."""
    await call.context.placement.set_quota(None, DEFAULT_BUNDLE, _quota(call))
    return done()


async def get_quota(call: Call) -> Response:
    """Return what a bundle needs."""
    bundle = await _bundle(call)
    return answer(whole(await call.context.placement.quota(call.namespace, bundle)))


async def set_quota(call: Call) -> Response:
    """Say what a bundle needs."""
    quota = _quota(call)
    await call.context.placement.set_quota(call.namespace, await _bundle(call), quota)
    return done()


async def remove_quota(call: Call) -> Response:
    """Let a bundle need what any does."""
    await call.context.placement.remove_quota(call.namespace, await _bundle(call))
    return done()


async def _bundle(call: Call) -> str:
    bundles = await call.context.bundles(call.namespace)
    return bundles.check(call.parameters["bundle"])


def _quota(call: Call) -> ResourceQuota:
    quota = call.document(ResourceQuota, "resource quota")
    if quota is None:
        raise Refusal(400, "resource quota: the body is missing")
    for field in msgspec.structs.fields(quota):
        value = getattr(quota, field.name)
        if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
            raise Refusal(412, f"{field.encode_name} is {value}, allowed: 0 or more")
    return quota


ROUTES = [
    Route("GET", QUOTAS, get_default, Right.SUPERUSER, answer=ResourceQuota),
    Route("POST", QUOTAS, set_default, Right.SUPERUSER, body=ResourceQuota),
    Route("GET", BUNDLE, get_quota, Right.SUPERUSER, answer=ResourceQuota),
    Route("POST", BUNDLE, set_quota, Right.SUPERUSER, body=ResourceQuota),
    Route("DELETE", BUNDLE, remove_quota, Right.SUPERUSER),
]
