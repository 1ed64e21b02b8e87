"""What a generator is asked for, and what makes no sense."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from magnetar.bench.load import Load, LoadError, Where
from magnetar.client.credentials import Credentials

WHERE = Where(url="pulsar://localhost:6650")


def load(**changed: Any) -> Load:
    told: dict[str, Any] = {"mode": "publish", "where": WHERE, "prefix": "persistent://p/d/b"}
    return Load(**told | changed)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"size_bytes": 1 << 20, "batch": 6}, "one entry of 6,291,456"),
        ({"mode": "consume", "messages": 99, "batch": 10, "topics": 10}, "do not fill one entry"),
        ({"acknowledge": "cumulative"}, "cannot be acknowledged cumulatively"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    changed: dict[str, Any], reason: str
) -> None:
    load().check()
    with pytest.raises(LoadError, match=reason):
        load(**changed).check()


def test_a_window_is_bounded_in_entries_and_in_bytes_and_holds_at_least_one() -> None:
    assert load(size_bytes=100).window == 4_000
    assert load(size_bytes=100, batch=1_000).window == 41
    assert load(size_bytes=5_000_000).window == 1


def test_it_reaches_the_generator_as_it_was_with_the_credentials() -> None:
    credentials = Credentials(token="secret", trust=Path("ca.pem"))
    asked = load(where=Where.of("pulsar+ssl://x:6651", credentials), topics=3)
    came = msgspec.json.decode(msgspec.json.encode(asked), type=Load)
    assert came == asked
    assert came.where.credentials() == credentials
    assert came.topic(2) == "persistent://p/d/b-2"
