"""Clusters: this one, and others it knows by name, and which of them stand in for each other."""

from urllib.parse import urlsplit

from starlette.responses import Response

from magnetar.broker.doors.admin.call import Call, answer, done
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.routes import ADMIN, Right, Route
from magnetar.broker.metadata.store import ConflictError
from magnetar.broker.metadata.tenants import Cluster
from magnetar.names import check_new

PEERS_MAX = 100
_SCHEMES = {
    "serviceUrl": "http",
    "serviceUrlTls": "https",
    "brokerServiceUrl": "pulsar",
    "brokerServiceUrlTls": "pulsar+ssl",
}

CLUSTERS = f"{ADMIN}/clusters"
CLUSTER = f"{CLUSTERS}/{{cluster}}"


async def list_clusters(call: Call) -> Response:
    """Return the names of all clusters."""
    return answer(await call.context.clusters.list())


async def get_cluster(call: Call) -> Response:
    """Return where a cluster can be reached. For this one, it is where it really is."""
    name = call.parameters["cluster"]
    shown = (await call.context.clusters.get(name)).to_dict()
    if name == call.context.cluster:
        address = call.context.address
        known = {
            "serviceUrl": address.http_url,
            "serviceUrlTls": address.http_url_tls,
            "brokerServiceUrl": address.url,
            "brokerServiceUrlTls": address.url_tls,
        }
        shown = {key: url for key, url in known.items() if url} | shown
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
    """Forget another cluster that no tenant may use and no isolation policy is about."""
    context, name = call.context, call.parameters["cluster"]
    if name == context.cluster:
        raise Refusal(412, f"{name} is this very cluster; it cannot be deleted")
    await context.clusters.get(name)
    for tenant in await context.tenants.list():
        if name in (await context.tenants.get(tenant)).allowed_clusters:
            raise Refusal(412, f"cluster {name} is not empty: tenant {tenant} may use it")
    try:
        await context.placement.forget_cluster(name)
    except ConflictError:
        raise Refusal(412, f"cluster {name} is not empty: it has isolation policies") from None
    await context.clusters.delete(name)
    return done()


def _cluster(call: Call) -> Cluster:
    cluster = call.document(Cluster, "cluster")
    if cluster is None:
        raise Refusal(400, "cluster: the body is missing; it says where the cluster is reached")
    for name, scheme in _SCHEMES.items():
        url = cluster.to_dict().get(name)
        if url and not _is_address(url, scheme):
            raise Refusal(400, f"{name} is {url[:200]!r}, expected {scheme}://host:port")
    return cluster


def _is_address(url: str, scheme: str) -> bool:
    """Return whether clients could dial this. Several hosts may be named, with commas."""
    first, _, _ = url.partition(",")
    try:
        split = urlsplit(first)
    except ValueError:
        return False
    return split.scheme == scheme and bool(split.hostname)


# --- peers ----------------------------------------------------------------------------------


async def get_peers(call: Call) -> Response:
    """Return which clusters could stand in for a cluster."""
    return answer((await call.context.clusters.get(call.parameters["cluster"])).peers or [])


async def set_peers(call: Call) -> Response:
    """Say which clusters could stand in for a cluster."""
    name = call.parameters["cluster"]
    peers: list[str] = list(dict.fromkeys(call.json(list[str], "peers") or []))
    if len(peers) > PEERS_MAX:
        raise Refusal(412, f"{len(peers)} peers, the limit is {PEERS_MAX}")
    known = await call.context.clusters.list()
    for peer in peers:
        if peer == name:
            raise Refusal(412, f"cluster {name} cannot stand in for itself")
        if peer not in known:
            raise Refusal(412, f"peer cluster {peer} does not exist")

    def change(cluster: Cluster) -> None:
        cluster.peers = peers or None

    await call.context.clusters.update(name, change)
    return done()


ROUTES = [
    Route("GET", CLUSTERS, list_clusters, Right.KNOWN, answer=list[str]),
    Route("GET", CLUSTER, get_cluster, Right.SUPERUSER, answer=Cluster),
    Route("PUT", CLUSTER, create_cluster, Right.SUPERUSER, body=Cluster),
    Route("POST", CLUSTER, update_cluster, Right.SUPERUSER, body=Cluster),
    Route("DELETE", CLUSTER, delete_cluster, Right.SUPERUSER),
    Route("GET", f"{CLUSTER}/peers", get_peers, Right.SUPERUSER, answer=list[str]),
    Route("POST", f"{CLUSTER}/peers", set_peers, Right.SUPERUSER, body=list[str] | None),
]
