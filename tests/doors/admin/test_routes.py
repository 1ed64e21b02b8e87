"""The table of routes: literals before parameters, twins, and paths from hostile peers."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.doors.admin.app import TABLE
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.routes import (
    Match,
    Right,
    Route,
    Routes,
    demand_of,
    topic_of,
)
from magnetar.names import COORDINATORS_TOPIC, TopicName
from tests.doors.admin.expected_rights import expected


async def _stats() -> None: ...
async def _partitioned() -> None: ...
async def _delete() -> None: ...
async def _list() -> None: ...


T = "/admin/v2/{domain}/{tenant}/{namespace}/{topic}"

ROUTES = Routes(
    [
        Route("GET", T + "/stats", _stats, Right.READ),
        Route("DELETE", T, _delete, Right.NAMESPACE),
        Route(
            "GET", "/admin/v2/{domain}/{tenant}/{namespace}/partitioned", _partitioned, Right.READ
        ),
        Route("GET", "/admin/v2/{domain}/{tenant}/{namespace}", _list, Right.READ),
    ]
)


def find(method: str, path: str) -> Match[Callable[[], Coroutine[Any, Any, None]]]:
    return ROUTES.find(method, path)


@pytest.mark.parametrize("domain", ["persistent", "non-persistent"])
def test_both_kinds_of_topics_come_from_one_line(domain: str) -> None:
    match = find("GET", f"/admin/v2/{domain}/public/default/orders/stats")
    assert match.handler is _stats
    assert match.parameters == {
        "domain": domain,
        "tenant": "public",
        "namespace": "default",
        "topic": "orders",
    }


def test_a_third_kind_of_topic_does_not_exist() -> None:
    with pytest.raises(Refusal, match="there is no") as refusal:
        find("GET", "/admin/v2/eternal/public/default/orders/stats")
    assert refusal.value.status == 404


def test_a_literal_wins_over_a_parameter() -> None:
    assert find("GET", "/admin/v2/persistent/a/b/partitioned").handler is _partitioned
    assert find("GET", "/admin/v2/persistent/a/b/partitioned/stats").handler is _stats


def test_a_parameter_is_tried_where_the_literal_has_another_method() -> None:
    match = find("DELETE", "/admin/v2/persistent/a/b/partitioned")
    assert (match.handler, match.parameters["topic"]) == (_delete, "partitioned")
    with pytest.raises(Refusal) as refusal:
        find("PATCH", "/admin/v2/persistent/a/b/partitioned")
    assert (refusal.value.status, refusal.value.allow) == (405, "GET")


def test_looking_for_coordinators_demands_no_more_than_to_be_known() -> None:
    values = {"domain": "persistent", "tenant": "pulsar", "namespace": "system"}
    name = COORDINATORS_TOPIC.local
    for topic, right in (
        (name, Right.KNOWN),
        (f"{name}-partition-1", Right.KNOWN),
        ("t", Right.LOOKUP),
    ):
        match = Match(_stats, Right.LOOKUP, {**values, "topic": topic})
        assert demand_of(match).right is right
        read = Match(_stats, Right.READ, {**values, "topic": topic})
        assert demand_of(read).right is Right.READ


def test_a_method_that_a_path_does_not_have_is_told_which_ones_there_are() -> None:
    with pytest.raises(Refusal) as refusal:
        find("PATCH", "/admin/v2/persistent/a/b/c/stats")
    assert (refusal.value.status, refusal.value.allow) == (405, "GET")


def test_an_escaped_slash_stays_within_its_segment() -> None:
    match = find("GET", "/admin/v2/persistent/a/b/c%2Fstats/stats")
    assert match.parameters["topic"] == "c/stats"


def test_a_slash_at_the_end_means_nothing() -> None:
    assert find("GET", "/admin/v2/persistent/a/b/").handler is _list


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/admin/v2/persistent/a/b/%ff%fe/stats", 400),
        ("/admin/v2/persistent/a//c/stats", 404),
        ("/" + "a/" * 5000, 404),
        ("/admin/v2/persistent/a/b/../stats/x", 404),
        ("", 404),
        ("/", 404),
        ("*", 404),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(path: str, status: int) -> None:
    with pytest.raises(Refusal) as refusal:
        find("GET", path)
    assert refusal.value.status == status


def test_a_segment_of_dots_is_a_name_like_any_other() -> None:
    assert find("GET", "/admin/v2/persistent/a/b/%2e%2e/stats").parameters["topic"] == ".."


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_any_text_survives_being_escaped(text: str) -> None:
    escaped = "".join(f"%{byte:02X}" for byte in text.encode())
    match = find("GET", f"/admin/v2/persistent/a/b/{escaped}/stats")
    assert match.parameters["topic"] == text


@given(st.text(alphabet="/%.20aFadmin_v2persistent", max_size=60))
def test_no_path_does_worse_than_a_refusal(path: str) -> None:
    statuses = {400, 404, 405}
    try:
        find("GET", path)
        topic_of("GET", path)
    except Refusal as refusal:
        statuses.remove(refusal.status)


def test_two_routes_for_one_call_are_a_mistake() -> None:
    twice = [Route("GET", T, _stats, Right.READ), Route("GET", T, _list, Right.READ)]
    with pytest.raises(ValueError, match="two routes"):
        Routes(twice)


@pytest.mark.parametrize(
    ("path", "topic"),
    [
        ("/admin/v2/persistent/a/b/c", "persistent://a/b/c"),
        ("/admin/v2/persistent/a/b/c/", "persistent://a/b/c"),
        ("/admin/v2/non-persistent/a/b/c/stats", "non-persistent://a/b/c"),
        (
            "/admin/v2/persistent/a/b/%C3%BC-partition-3/subscription/s/skip/1",
            "persistent://a/b/ü-partition-3",
        ),
        ("/admin/v2/persistent/a/b/partitioned/stats", "persistent://a/b/partitioned"),
        ("/admin/v2/persistent/a/b/partitioned", None),
        ("/admin/v2/persistent/a/b", None),
        ("/admin/v2/persistent/a/b/c%2Fd/stats", None),
        ("/admin/v2/namespaces/a/b/topics", None),
        ("/lookup/v2/topic/persistent/a/b/c", None),
        ("/metrics", None),
        ("/admin/v2/persistent/a/b/%ff", None),
    ],
)
def test_a_path_says_which_topic_it_is_about(path: str, topic: str | None) -> None:
    for method in ("GET", "HEAD"):
        assert topic_of(method, path) == (TopicName.parse(topic) if topic else None)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_topic_may_have_the_name_of_the_list_of_topics(method: str) -> None:
    path = "/admin/v2/persistent/a/b/partitioned"
    assert topic_of(method, path) == TopicName.parse("persistent://a/b/partitioned")


def test_somebody_has_said_who_may_make_each_call() -> None:
    """A new route is written down in `expected_rights` too, from what Pulsar asks for there."""
    missing = [(each.method, each.template) for each in TABLE]
    assert [each for each in missing if expected(*each) is None] == []
