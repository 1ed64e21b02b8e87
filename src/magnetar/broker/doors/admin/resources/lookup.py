"""Look-ups over HTTP, for clients that were given an `http://` service URL."""

from starlette.responses import PlainTextResponse, Response

from magnetar.broker.doors.admin.call import Call, answer
from magnetar.broker.doors.admin.routes import Right, Route, Text
from magnetar.broker.doors.admin.shapes import Located

LOOKUP = "/lookup/v2/topic/{domain}/{tenant}/{namespace}/{topic}"


async def lookup(call: Call) -> Response:
    """Return who serves a topic, as the client's listener names it.

    All four URLs are always there: the C++ client takes an absent one for a broken answer.
    """
    listener = call.word("listenerName") or call.request.headers.get("x-pulsar-listenername")
    location = await call.context.catalog.locate(call.topic, listener or None)
    return answer(
        Located(
            broker_url=location.url,
            broker_url_tls=location.url_tls,
            http_url=location.http_url,
            http_url_tls=location.http_url_tls,
            native_url=location.url,
            broker_url_ssl=location.url_tls,
        )
    )


async def bundle(call: Call) -> Response:
    """Return the bundle a topic lies in: as Pulsar does, a text without quotes."""
    topic = call.topic
    bundles = await call.context.bundles(topic.namespace_name)
    return PlainTextResponse(bundles.of_topic(topic))


ROUTES = [
    Route(
        "GET", LOOKUP, lookup, Right.LOOKUP, answer=Located,
        query={"listenerName": str, "authoritative": bool},
    ),
    Route("GET", f"{LOOKUP}/bundle", bundle, Right.LOOKUP, answer=Text),
]  # fmt: skip
