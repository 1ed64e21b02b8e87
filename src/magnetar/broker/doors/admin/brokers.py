"""The broker itself: who it is, and whether it is well.

To clients all processes of a data folder are one broker: they share the HTTP port.
"""

from starlette.responses import PlainTextResponse, Response

from magnetar.broker.doors.admin.absent import BROKER_WORDS
from magnetar.broker.doors.admin.call import Call, answer
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.routes import ADMIN, Right, Route, not_available


async def list_brokers(call: Call) -> Response:
    """Return the one broker there is, as host and HTTP port."""
    cluster = call.parameters.get("cluster", call.context.cluster)
    if cluster in BROKER_WORDS:
        raise not_available(BROKER_WORDS[cluster])
    if cluster != call.context.cluster:
        raise Refusal(404, f"cluster {cluster!r} is not this one, {call.context.cluster}")
    return answer([call.context.broker_id])


async def leader(call: Call) -> Response:
    """Return the broker that leads: the only one."""
    return answer({"brokerId": call.context.broker_id, "serviceUrl": call.context.address.http_url})


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


ROUTES = [
    Route("GET", f"{ADMIN}/brokers", list_brokers, Right.SUPERUSER),
    Route("GET", f"{ADMIN}/brokers/health", health, Right.OPEN),
    Route("GET", f"{ADMIN}/brokers/ready", ready, Right.OPEN),
    Route("GET", f"{ADMIN}/brokers/version", version, Right.OPEN),
    Route("GET", f"{ADMIN}/brokers/leaderBroker", leader, Right.SUPERUSER),
    Route(
        "GET", f"{ADMIN}/brokers/internal-configuration", internal_configuration, Right.SUPERUSER
    ),
    Route("GET", f"{ADMIN}/brokers/{{cluster}}", list_brokers, Right.SUPERUSER),
]
