"""Look-ups over HTTP, for clients that were given an `http://` service URL."""

from starlette.responses import Response

from magnetar.broker.doors.admin.bundles import bundle_of
from magnetar.broker.doors.admin.call import Call, answer
from magnetar.broker.doors.admin.routes import Right, Route

LOOKUP = "/lookup/v2/topic/{domain}/{tenant}/{namespace}/{topic}"


async def lookup(call: Call) -> Response:
    """Return who serves a topic, as the client's listener names it.

    All four URLs are always there: the C++ client takes an absent one for a broken answer.
    """
    listener = call.word("listenerName") or call.request.headers.get("x-pulsar-listenername")
    location = await call.context.catalog.locate(call.topic, listener or None)
    return answer(
        {
            "brokerUrl": location.url,
            "brokerUrlTls": "",
            "httpUrl": location.http_url,
            "httpUrlTls": "",
            "nativeUrl": location.url,
            "brokerUrlSsl": "",
        }
    )


async def bundle(call: Call) -> Response:
    """Return the bundle a topic lies in."""
    topic = call.topic
    return answer(bundle_of(topic, await call.context.bundles(topic.namespace_name)))


ROUTES = [
    Route("GET", LOOKUP, lookup, Right.LOOKUP),
    Route("GET", f"{LOOKUP}/bundle", bundle, Right.LOOKUP),
]
