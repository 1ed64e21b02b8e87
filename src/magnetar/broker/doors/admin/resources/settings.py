"""Settings of the running broker: which there are, what they are, and how to change them.

    GET                brokers/configuration              the names, ours and Pulsar's
    GET                brokers/configuration/values       what is set     {"name": "text"}
    GET                brokers/configuration/runtime      what holds      {"name": "text"}
    POST, PUT, DELETE  brokers/configuration/{name}[/{value}]

A change is durable, and holds in every process within a second. Bounds are those of `config`.
"""

from starlette.responses import Response

from magnetar.broker.config import LIVE, ConfigError
from magnetar.broker.doors.admin.call import Call, answer, done
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.routes import ADMIN, Right, Route
from magnetar.broker.metadata.live_settings import shown

CONFIGURATION = f"{ADMIN}/brokers/configuration"


async def list_settings(call: Call) -> Response:  # noqa: ARG001 - a handler
    """Return the names of the settings that can be changed."""
    aliases = [metadata["pulsar"] for metadata in LIVE.values() if metadata["pulsar"]]
    return answer([*LIVE, *aliases])


async def get_values(call: Call) -> Response:
    """Return the settings that were changed."""
    return answer(shown(await call.context.settings.stored()))


async def get_runtime(call: Call) -> Response:
    """Return all settings that can be changed, as they are."""
    return answer(shown(call.context.settings.in_force()))


async def set_setting(call: Call) -> Response:
    """Change a setting."""
    try:
        await call.context.settings.set(call.parameters["name"], call.parameters["value"])
    except ConfigError as error:
        raise Refusal(412, str(error)) from None
    return done()


async def unset_setting(call: Call) -> Response:
    """Let what the broker was started with hold again."""
    try:
        await call.context.settings.unset(call.parameters["name"])
    except ConfigError as error:
        raise Refusal(412, str(error)) from None
    return done()


_Shown = dict[str, str]

ROUTES = [
    Route("GET", CONFIGURATION, list_settings, Right.SUPERUSER, answer=list[str]),
    Route("GET", f"{CONFIGURATION}/values", get_values, Right.SUPERUSER, answer=_Shown),
    Route("GET", f"{CONFIGURATION}/runtime", get_runtime, Right.SUPERUSER, answer=_Shown),
    Route("POST", f"{CONFIGURATION}/{{name}}/{{value}}", set_setting, Right.SUPERUSER),
    Route("PUT", f"{CONFIGURATION}/{{name}}/{{value}}", set_setting, Right.SUPERUSER),
    Route("DELETE", f"{CONFIGURATION}/{{name}}", unset_setting, Right.SUPERUSER),
]
