"""What supervisor and worker say to each other arrives whole, or not at all."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from magnetar.broker.channel import Channel, Conversation, RefusedError


async def test_a_channel_carries_messages_both_ways_and_reports_the_end() -> None:
    left, right = socket.socketpair()
    ours, theirs = await asyncio.gather(Channel.over(left), Channel.over(right))
    ours.send({"start": {"worker": 0}})
    theirs.send({"ready": True})
    assert await theirs.receive() == {"start": {"worker": 0}}
    assert await ours.receive() == {"ready": True}
    await theirs.close()
    assert await ours.receive() is None
    ours.send({"stop": True})  # nobody listens: no error
    await ours.close()


async def test_half_a_line_is_no_message() -> None:
    left, right = socket.socketpair()
    ours = await Channel.over(left)
    right.send(b'{"ready"')
    right.close()
    assert await ours.receive() is None
    await ours.close()


# --- questions and answers ---------------------------------------------------------------


async def answer(question: Mapping[str, Any]) -> Mapping[str, Any]:
    match question["do"]:
        case "double":
            return {"is": 2 * question["of"]}
        case "wait":
            await asyncio.sleep(30)
            return {}
        case "refuse":
            raise RefusedError("not today", "busy")
        case other:
            raise KeyError(other)


def nothing(news: Mapping[str, Any]) -> None: ...


@asynccontextmanager
async def talking(
    news: Callable[[Mapping[str, Any]], None] = nothing,
) -> AsyncIterator[tuple[Conversation, Channel]]:
    """Who asks, and the channel of whoever answers."""
    left, right = socket.socketpair()
    ours, theirs = await asyncio.gather(Channel.over(left), Channel.over(right))
    asks, answers = Conversation(ours, answer, nothing), Conversation(theirs, answer, news)
    listening = [asyncio.create_task(each.listen()) for each in (asks, answers)]
    yield asks, theirs
    await asyncio.gather(ours.close(), theirs.close())
    await asyncio.gather(*listening, return_exceptions=True)


async def test_questions_that_overlap_get_the_answers_that_belong_to_them() -> None:
    async with talking() as (asks, _):
        slow = asyncio.ensure_future(asks.ask({"do": "wait"}, 30))
        both = [asks.ask({"do": "double", "of": number}, 5) for number in range(20)]
        assert [each["is"] for each in await asyncio.gather(*both)] == [*range(0, 40, 2)]
        assert not slow.done()
        slow.cancel()


async def test_a_refusal_comes_back_with_its_reason_and_a_bug_with_its_name() -> None:
    async with talking() as (asks, _):
        with pytest.raises(RefusedError, match="not today") as refused:
            await asks.ask({"do": "refuse"}, 5)
        assert refused.value.kind == "busy"
        with pytest.raises(RefusedError, match="KeyError"):
            await asks.ask({"do": "unheard of"}, 5)


async def test_whoever_asks_does_not_wait_for_a_process_that_is_gone_or_silent() -> None:
    async with talking() as (asks, theirs):
        with pytest.raises(RefusedError, match="within"):
            await asks.ask({"do": "wait"}, 0.01)
        waiting = asyncio.ensure_future(asks.ask({"do": "wait"}, 30))
        await asyncio.sleep(0)
        await theirs.close()
        with pytest.raises(RefusedError, match="gone"):
            await waiting
        with pytest.raises(RefusedError, match="gone"):
            await asks.ask({"do": "double", "of": 1}, 30)


async def test_news_are_not_answered() -> None:
    heard: list[Mapping[str, Any]] = []
    async with talking(heard.append) as (asks, _):
        asks.tell({"version": 7})
        await asks.ask({"do": "double", "of": 1}, 5)
    assert heard == [{"version": 7}]
