"""Names parse, print and refuse as Pulsar's do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.names import (
    NAME_LENGTH_MAX,
    Domain,
    InvalidNameError,
    NamespaceName,
    TopicName,
    check_new,
    check_subscription,
    check_tenant,
)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("orders", "persistent://public/default/orders"),
        ("acme/shop/orders", "persistent://acme/shop/orders"),
        ("persistent://acme/shop/orders", "persistent://acme/shop/orders"),
        ("non-persistent://acme/shop/orders", "non-persistent://acme/shop/orders"),
        ("persistent://acme/shop/späße & more", "persistent://acme/shop/späße & more"),
    ],
)
def test_short_forms_mean_the_full_name(text: str, canonical: str) -> None:
    assert str(TopicName.parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "system"),
    [
        ("public/default/__change_events", True),
        ("public/default/__change_events-partition-3", True),
        ("a/b/__transaction_buffer_snapshot", True),
        ("a/b/orders-billing__transaction_pending_ack", True),
        ("pulsar/system/transaction_coordinator_assign-partition-1", True),
        ("pulsar/system/__transaction_log_7", True),
        ("a/b/transaction_coordinator_assign", False),
        ("a/b/__transaction_log_7", False),
        ("a/b/__mine", False),
        ("pulsar/system/mine", False),
    ],
)
def test_the_topics_that_pulsar_keeps_for_itself_are_known_by_name(
    text: str, *, system: bool
) -> None:
    assert TopicName.parse(text).system is system


@pytest.mark.parametrize(
    "text",
    [
        "",
        "acme/orders",
        "kafka://acme/shop/orders",
        "persistent://acme/orders",
        "persistent://acme/cluster/shop/orders",
        "persistent:///shop/orders",
        "persistent://ac me/shop/orders",
        "persistent://acme/shop/",
        "persistent://acme/shop/tab\there",
        "persistent://acme/shop/nul\0here",
        "persistent://acme/shop/" + "x" * (NAME_LENGTH_MAX + 1),
        "persistent://../shop/or/ders",
    ],
)
def test_what_is_no_topic_name_is_refused_with_the_name_in_the_message(text: str) -> None:
    with pytest.raises(InvalidNameError, match=r"topic|tenant|namespace"):
        TopicName.parse(text)


def test_a_partition_knows_its_number_and_its_topic() -> None:
    topic = TopicName.parse("orders")
    partition = topic.partition_name(12)
    assert (partition.partition, partition.base) == (12, topic)
    assert (topic.partition, topic.base) == (-1, topic)


@pytest.mark.parametrize(
    "local", ["x-partition-", "x-partition-01", "x-partition-a", "-partition-1x"]
)
def test_a_name_that_only_looks_like_a_partition_is_none(local: str) -> None:
    assert TopicName.parse(local).partition == -1


@given(st.from_regex(r"[-=:.\w]{1,20}", fullmatch=True), st.sampled_from(Domain))
def test_printing_and_parsing_are_inverse(part: str, domain: Domain) -> None:
    topic = TopicName(domain, part, part, part)
    assert TopicName.parse(str(topic)) == topic


def test_a_namespace_has_two_parts() -> None:
    assert str(NamespaceName.parse("acme/shop")) == "acme/shop"
    for text in ("acme", "acme/shop/orders", "acme/", "/shop", "a c/shop"):
        with pytest.raises(InvalidNameError):
            NamespaceName.parse(text)


def test_subscriptions_may_hold_anything_but_control_characters() -> None:
    assert check_subscription("my sub/with ümlaut") == "my sub/with ümlaut"
    for name in ("", "a\nb", "x" * (NAME_LENGTH_MAX + 1)):
        with pytest.raises(InvalidNameError):
            check_subscription(name)


def test_tenants_follow_the_narrow_grammar() -> None:
    assert check_tenant("acme-1") == "acme-1"
    with pytest.raises(InvalidNameError):
        check_tenant("ac/me")


@pytest.mark.parametrize("name", ["café", "Москва", "a٣", "a b", "a/b", "", "x" * 1025])
def test_a_new_name_has_only_the_letters_that_pulsar_takes(name: str) -> None:
    assert check_new("tenant", "Acme-1=a:b.c_d") == "Acme-1=a:b.c_d"
    with pytest.raises(InvalidNameError, match="tenant"):
        check_new("tenant", name)


def test_a_name_with_other_letters_that_is_stored_already_can_be_read() -> None:
    name = "persistent://café/bücher/späße"
    assert str(TopicName.parse(name)) == name
    assert check_tenant("café") == "café"
