"""The processes that serve: which there are, how many there should be, and who has which topic.

    GET   brokers/processes            [{"number": 0, "pid": 4711, "shares": 512, ...}, ...]
    POST  brokers/processes/{count}    as many from now on; answers when topics have moved

Not in Pulsar's API, whose brokers are machines. Moving topics by hand is: `unload` of a namespace,
or of a bundle of it, takes `destinationBroker`, a number from this list or an address. What moves
a single topic stands in `topics`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from starlette.responses import Response

from magnetar.broker.assignment import Change
from magnetar.broker.channel import BUSY, OUT_OF_BOUNDS, RefusedError
from magnetar.broker.doors.admin.call import Call, answer
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.routes import ADMIN, Right, Route
from magnetar.broker.doors.admin.shapes import ProcessShown
from magnetar.broker.topics.handover import HandOverError
from magnetar.names import TopicName

_STATUS = {OUT_OF_BOUNDS: 412, BUSY: 409}

PROCESSES = f"{ADMIN}/brokers/processes"


async def list_processes(call: Call) -> Response:
    """Return all processes, by number."""
    return answer((await _ask(call, {"do": "processes"}))["processes"])


async def scale(call: Call) -> Response:
    """Change how many there are; return all of them, once topics have moved."""
    return answer(await scale_to(call, call.number("count")))


async def scale_to(call: Call, count: int) -> Any:
    """Change how many there are; return all of them, once topics have moved.

    Raises:
        Refusal: 412, so many cannot be; 409, another change is under way; 503, it failed.
    """
    return (await _ask(call, {"do": "scale", "count": count}))["processes"]


async def _ask(call: Call, question: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return await call.context.ask_supervisor(question)
    except RefusedError as error:
        raise Refusal(_STATUS.get(error.kind, 503), str(error)) from None


def destination(call: Call) -> int | None:
    """Return the process that topics are to go to; None: the call does not say.

    Raises:
        Refusal: 412, there is none of that number or address.
    """
    word = call.word("destinationBroker")
    return process_called(call, word) if word else None


def process_called(call: Call, word: str) -> int:
    """Return the number of a process.

    Raises:
        Refusal: 412, there is none of that number or address.
    """
    worker = call.context.ownership.worker_called(word)
    if worker is None:
        raise Refusal(
            412, f"there is no broker process {word[:200]!r}; GET brokers/processes lists them"
        )
    return worker


async def send(call: Call, topics: Iterable[TopicName], worker: int) -> None:
    """Hand those of these topics that this process has to another one.

    Raises:
        Refusal: 503, not all of them could be given away.
    """
    moves = call.context.moves
    if moves is None:
        raise Refusal(412, "there is one broker process only")
    try:
        await moves.give(Change(pins={str(topic): worker for topic in topics}))
    except HandOverError as error:
        raise Refusal(503, str(error)) from None


ROUTES = [
    Route("GET", PROCESSES, list_processes, Right.SUPERUSER, answer=list[ProcessShown]),
    Route("POST", f"{PROCESSES}/{{count}}", scale, Right.SUPERUSER, answer=list[ProcessShown]),
]
