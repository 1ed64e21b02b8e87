"""Tenants: list, show, create, change, delete."""

from starlette.responses import Response

from magnetar.broker.doors.admin.call import Call, answer, done
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.routes import ADMIN, Right, Route
from magnetar.broker.doors.admin.shapes import TenantShown
from magnetar.broker.metadata.facts import AlreadyExistsError
from magnetar.broker.metadata.first_start import furnish_tenant
from magnetar.broker.metadata.tenants import Tenant
from magnetar.names import SYSTEM_NAMESPACE, check_new


async def list_tenants(call: Call) -> Response:
    """Return the names of all tenants."""
    return answer(await call.context.tenants.list())


async def get_tenant(call: Call) -> Response:
    """Return who may administer a tenant, and on which clusters."""
    tenant = await call.context.tenants.get(call.tenant)
    shown = {"adminRoles": tenant.admin_roles, "allowedClusters": tenant.allowed_clusters}
    return answer(tenant.to_dict() | shown)


async def create_tenant(call: Call) -> Response:
    """Add a tenant; without a body, one that may use this cluster."""
    name = check_new("tenant", call.tenant)
    context, tenant = call.context, await _tenant(call)
    try:
        await context.tenants.create(name, tenant)
    except AlreadyExistsError:
        if context.access is None:
            raise
        if not await furnish_tenant(context.tenants, name, tenant, context.cluster):
            raise
    return done()


async def update_tenant(call: Call) -> Response:
    """Replace what is known of a tenant."""
    await call.context.tenants.replace(call.tenant, await _tenant(call))
    return done()


async def delete_tenant(call: Call) -> Response:
    """Remove a tenant; with `force`, its namespaces and their topics too."""
    context, tenant = call.context, call.tenant
    await context.tenants.get(tenant)
    if tenant == SYSTEM_NAMESPACE.tenant:
        raise Refusal(412, f"tenant {tenant} is the broker's own: {SYSTEM_NAMESPACE} is in it")
    if call.flag("force"):
        for namespace in await context.namespaces.list(tenant):
            await context.delete_namespace(namespace)
    await context.tenants.delete(tenant)
    return done()


async def _tenant(call: Call) -> Tenant:
    tenant = call.document(Tenant, "tenant")
    here = call.context.cluster
    if tenant is None:
        return Tenant(allowed_clusters=[here])
    known = await call.context.clusters.list()
    for cluster in tenant.allowed_clusters:
        if cluster not in known:
            raise Refusal(412, f"cluster {cluster!r} does not exist; there are {', '.join(known)}")
    if not tenant.allowed_clusters:
        raise Refusal(412, f"allowedClusters is empty; this cluster is {here!r}")
    return tenant


TENANTS = f"{ADMIN}/tenants"
TENANT = f"{TENANTS}/{{tenant}}"

ROUTES = [
    Route("GET", TENANTS, list_tenants, Right.SUPERUSER, answer=list[str]),
    Route("GET", TENANT, get_tenant, Right.TENANT, answer=TenantShown),
    Route("PUT", TENANT, create_tenant, Right.SUPERUSER, body=Tenant | None),
    Route("POST", TENANT, update_tenant, Right.SUPERUSER, body=Tenant | None),
    Route("DELETE", TENANT, delete_tenant, Right.SUPERUSER, query={"force": bool}),
]
