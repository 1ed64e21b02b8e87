"""The broker itself: who it is, and whether it is well.

To clients all processes of a data folder are one broker: they share the HTTP port.
"""

from starlette.responses import PlainTextResponse, Response

from magnetar.broker.doors.admin.absent import BROKER_WORDS
from magnetar.broker.doors.admin.call import Call, answer, done
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.owners import pass_on
from magnetar.broker.doors.admin.resources.broker_stats import bundles_in_use
from magnetar.broker.doors.admin.routes import ADMIN, Right, Route, Text, not_available
from magnetar.broker.doors.admin.shapes import BrokerInfo, Owned, StoreShown


async def list_brokers(call: Call) -> Response:
    """Return the one broker there is, as host and HTTP port."""
    cluster = call.parameters.get("cluster", call.context.cluster)
    if cluster in BROKER_WORDS:
        raise not_available(BROKER_WORDS[cluster])
    _demand_here(call, cluster)
    return answer([call.context.broker_id])


def _demand_here(call: Call, cluster: str) -> None:
    if cluster != call.context.cluster:
        raise Refusal(404, f"cluster {cluster[:200]!r} is not this one, {call.context.cluster}")


async def owned_namespaces(call: Call) -> Response:
    """Return the bundles in use: this broker owns all of them."""
    context, cluster, broker = call.context, call.parameters["cluster"], call.parameters["broker"]
    _demand_here(call, cluster)
    if broker != context.broker_id:
        raise Refusal(404, f"broker {broker[:200]!r} is not there; there is {context.broker_id}")
    status = Owned("shared", is_controlled=False, is_active=True)
    return answer(dict.fromkeys(await bundles_in_use(call), status))


async def check_quotas(call: Call) -> Response:
    """Apply time to live, retention and quotas now; they are applied every few seconds anyway."""
    await call.context.catalog.keep_up()
    await pass_on(call)
    return done()


async def leader(call: Call) -> Response:
    """Return the broker that leads: the only one."""
    address = call.context.address
    url = address.http_url or address.http_url_tls
    return answer({"brokerId": call.context.broker_id, "serviceUrl": url})


async def health(call: Call) -> Response:
    """Return `ok` if this process can do its work; 503 says why it cannot."""
    complaint = call.context.complaint()
    if complaint:
        raise Refusal(503, complaint)
    return PlainTextResponse("ok")


async def ready(call: Call) -> Response:  # noqa: ARG001 - a handler
    """Return `ok`: this process serves. One that can store nothing still serves consumers."""
    return PlainTextResponse("ok")


async def version(call: Call) -> Response:
    """Return the version of the program."""
    return PlainTextResponse(call.context.version)


async def internal_configuration(call: Call) -> Response:
    """Return where the metadata is; Pulsar's keys, so that its tools can show it."""
    store = f"sqlite:{call.context.config.data / 'metadata.sqlite'}"
    return answer(
        {
            "metadataStoreUrl": store,
            "configurationMetadataStoreUrl": store,
            "ledgersRootPath": str(call.context.config.data / "entries"),
            "bookkeeperMetadataServiceUri": None,
            "stateStorageServiceUrl": None,
        }
    )


BROKERS = f"{ADMIN}/brokers"

ROUTES = [
    Route("GET", BROKERS, list_brokers, Right.SUPERUSER, answer=list[str]),
    Route("GET", f"{BROKERS}/health", health, Right.OPEN, answer=Text, query={"topicVersion": str}),
    Route("GET", f"{BROKERS}/ready", ready, Right.OPEN, answer=Text),
    Route("GET", f"{BROKERS}/version", version, Right.KNOWN, answer=Text),
    Route("GET", f"{BROKERS}/leaderBroker", leader, Right.SUPERUSER, answer=BrokerInfo),
    Route(
        "GET", f"{BROKERS}/internal-configuration", internal_configuration, Right.SUPERUSER,
        answer=StoreShown,
    ),
    Route("GET", f"{BROKERS}/backlog-quota-check", check_quotas, Right.SUPERUSER),
    Route("GET", f"{BROKERS}/{{cluster}}", list_brokers, Right.SUPERUSER, answer=list[str]),
    Route(
        "GET", f"{BROKERS}/{{cluster}}/{{broker}}/ownedNamespaces", owned_namespaces,
        Right.SUPERUSER, answer=dict[str, Owned],
    ),
]  # fmt: skip
