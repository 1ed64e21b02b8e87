"""Clusters: this one, and others it knows by name."""

from starlette.responses import Response

from magnetar.broker.doors.admin.call import Call, answer, done
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.routes import ADMIN, Right, Route
from magnetar.broker.metadata.tenants import Cluster
from magnetar.names import check_new


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
    name = check_new("cluster", call.parameters["cluster"])
    await call.context.clusters.create(name, _cluster(call))
    return done()


async def update_cluster(call: Call) -> Response:
    """Change where a cluster can be reached."""
    await call.context.clusters.replace(call.parameters["cluster"], _cluster(call))
    return done()


async def delete_cluster(call: Call) -> Response:
    """Forget another cluster."""
    name = call.parameters["cluster"]
    if name == call.context.cluster:
        raise Refusal(412, f"{name} is this very cluster; it cannot be deleted")
    await call.context.clusters.delete(name)
    return done()


def _cluster(call: Call) -> Cluster:
    cluster = call.document(Cluster, "cluster")
    if cluster is None:
        raise Refusal(400, "cluster: the body is missing; it says where the cluster is reached")
    return cluster


ROUTES = [
    Route("GET", f"{ADMIN}/clusters", list_clusters, Right.OPEN),
    Route("GET", f"{ADMIN}/clusters/{{cluster}}", get_cluster, Right.SUPERUSER),
    Route("PUT", f"{ADMIN}/clusters/{{cluster}}", create_cluster, Right.SUPERUSER),
    Route("POST", f"{ADMIN}/clusters/{{cluster}}", update_cluster, Right.SUPERUSER),
    Route("DELETE", f"{ADMIN}/clusters/{{cluster}}", delete_cluster, Right.SUPERUSER),
]
