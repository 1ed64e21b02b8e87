"""Clusters: this one, and others it knows by name."""

from starlette.responses import Response

from magnetar.broker.doors.admin.call import Call, answer, done
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.routes import ADMIN, Right, Route
from magnetar.broker.metadata.tenants import Cluster


async def list_clusters(call: Call) -> Response:
    """Return the names of all clusters."""
    return answer(await call.context.clusters.list())


async def get_cluster(call: Call) -> Response:
    """Return where a cluster can be reached. For this one, it is where it really is."""
    name = call.parameters["cluster"]
    shown = (await call.context.clusters.get(name)).to_dict()
    if name == call.context.cluster:
        address = call.context.address
        shown = {"serviceUrl": address.http_url, "brokerServiceUrl": address.url} | shown
    return answer(shown)


async def create_cluster(call: Call) -> Response:
    """Make another cluster known."""
    cluster = call.document(Cluster, "cluster") or Cluster()
    await call.context.clusters.create(call.parameters["cluster"], cluster)
    return done()


async def update_cluster(call: Call) -> Response:
    """Change where a cluster can be reached."""
    cluster = call.document(Cluster, "cluster") or Cluster()
    await call.context.clusters.replace(call.parameters["cluster"], cluster)
    return done()


async def delete_cluster(call: Call) -> Response:
    """Forget another cluster."""
    name = call.parameters["cluster"]
    if name == call.context.cluster:
        raise Refusal(412, f"{name} is this very cluster; it cannot be deleted")
    await call.context.clusters.delete(name)
    return done()


ROUTES = [
    Route("GET", f"{ADMIN}/clusters", list_clusters, Right.OPEN),
    Route("GET", f"{ADMIN}/clusters/{{cluster}}", get_cluster, Right.SUPERUSER),
    Route("PUT", f"{ADMIN}/clusters/{{cluster}}", create_cluster, Right.SUPERUSER),
    Route("POST", f"{ADMIN}/clusters/{{cluster}}", update_cluster, Right.SUPERUSER),
    Route("DELETE", f"{ADMIN}/clusters/{{cluster}}", delete_cluster, Right.SUPERUSER),
]
