"""What a role may do by what is granted to it: each line of the module's table, and its limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.access.permissions import (
    NOTHING_GRANTED,
    Known,
    NamespaceGrants,
    fits,
    meets,
)
from magnetar.broker.access.rights import (
    Demand,
    Resource,
    Right,
    SubscriptionOf,
    TenantName,
)
from magnetar.names import NamespaceName, TopicName

NAMESPACE = NamespaceName("t", "n")
TOPIC = TopicName.parse("persistent://t/n/a")
PARTITION = TopicName.parse("persistent://t/n/a-partition-3")
TWIN = TopicName.parse("non-persistent://t/n/a")
OTHER = TopicName.parse("persistent://t/n/b")
FOREIGN = TopicName.parse("persistent://x/n/a")
SUBSCRIPTION = SubscriptionOf(TOPIC, "s")
ADMIN_RIGHTS = (Right.NAMESPACE, Right.TENANT)
GRANTABLE = [Right.PRODUCE, Right.CONSUME, Right.FUNCTIONS, Right.SOURCES, Right.SINKS,
             Right.PACKAGES]  # fmt: skip


def known(grants: NamespaceGrants = NOTHING_GRANTED, **options: object) -> Known:
    return Known(
        superusers=frozenset({"root"}),
        watchers=frozenset({"monitor"}),
        admins={"t": frozenset({"admin"}), "x": frozenset({"neighbour"})},
        namespaces={NAMESPACE: grants, NamespaceName("x", "n"): NamespaceGrants()},
        **options,  # type: ignore[arg-type]
    )


def may(role: str, right: Right, resource: Resource, among: Known) -> bool:
    return meets(role, Demand(right, resource), among)


@pytest.mark.parametrize("right", Right)
@pytest.mark.parametrize("resource", [None, TenantName("t"), NAMESPACE, TOPIC, SUBSCRIPTION])
def test_a_superuser_may_do_everything(right: Right, resource: Resource) -> None:
    assert may("root", right, resource, known())


@pytest.mark.parametrize(
    "right", [each for each in Right if each not in {Right.OPEN, Right.KNOWN, Right.HELD}]
)
@pytest.mark.parametrize("resource", [None, TenantName("t"), NAMESPACE, TOPIC, SUBSCRIPTION])
def test_a_role_that_nobody_mentions_may_do_nothing(right: Right, resource: Resource) -> None:
    assert not may("anybody", right, resource, known())


@pytest.mark.parametrize("right", [*GRANTABLE, *ADMIN_RIGHTS, Right.LOOKUP, Right.READ])
def test_an_administrator_may_do_everything_in_the_tenant_and_nothing_beyond(right: Right) -> None:
    assert may("admin", right, SUBSCRIPTION, known())
    assert may("admin", right, NAMESPACE, known())
    assert not may("admin", right, FOREIGN, known())
    assert not may("admin", Right.SUPERUSER, NAMESPACE, known())
    assert not may("admin", Right.METRICS, None, known())


@pytest.mark.parametrize("granted", GRANTABLE)
def test_a_grant_is_for_what_it_says_and_for_no_policy(granted: Right) -> None:
    among = known(NamespaceGrants(namespace={"r": frozenset({granted.value})}))
    for right in GRANTABLE:
        assert may("r", right, TOPIC, among) == (right is granted)
    for right in ADMIN_RIGHTS:
        assert not may("r", right, NAMESPACE, among)
        assert not may("r", right, TOPIC, among)


@pytest.mark.parametrize("granted", ["produce", "consume"])
def test_who_may_produce_or_consume_may_look_topics_up(granted: str) -> None:
    among = known(NamespaceGrants(namespace={"r": frozenset({granted})}))
    for resource in (TOPIC, TWIN, PARTITION, NAMESPACE):
        assert may("r", Right.LOOKUP, resource, among)
        assert may("r", Right.READ, resource, among)


def test_a_grant_on_a_topic_covers_its_partitions_and_neither_its_twin_nor_its_namespace() -> None:
    among = known(NamespaceGrants(topics={str(TOPIC): {"r": frozenset({"produce"})}}))
    assert may("r", Right.PRODUCE, TOPIC, among)
    assert may("r", Right.PRODUCE, PARTITION, among)
    for resource in (TWIN, OTHER, NAMESPACE, FOREIGN):
        assert not may("r", Right.PRODUCE, resource, among)
        assert not may("r", Right.LOOKUP, resource, among)


def test_a_grant_on_a_partition_is_for_that_partition_alone() -> None:
    among = known(NamespaceGrants(topics={str(PARTITION): {"r": frozenset({"produce"})}}))
    assert may("r", Right.PRODUCE, PARTITION, among)
    assert not may("r", Right.PRODUCE, TOPIC, among)


def test_a_subscription_that_is_kept_for_some_is_for_nobody_else() -> None:
    consume = frozenset({"consume"})
    grants = NamespaceGrants(
        namespace={"r": consume, "keeper": consume},
        subscriptions={"s": frozenset({"keeper", "nobody"})},
    )
    assert may("keeper", Right.CONSUME, SUBSCRIPTION, known(grants))
    assert not may("r", Right.CONSUME, SUBSCRIPTION, known(grants))
    assert may("r", Right.CONSUME, SubscriptionOf(TOPIC, "another"), known(grants))
    # To be named there is not to be allowed to consume.
    assert not may("nobody", Right.CONSUME, SUBSCRIPTION, known(grants))


def test_in_prefix_mode_a_subscription_begins_with_the_role() -> None:
    grants = NamespaceGrants(namespace={"r": frozenset({"consume"})}, prefix=True)
    assert may("r", Right.CONSUME, SubscriptionOf(TOPIC, "r-one"), known(grants))
    assert not may("r", Right.CONSUME, SubscriptionOf(TOPIC, "one"), known(grants))
    assert may("admin", Right.CONSUME, SubscriptionOf(TOPIC, "one"), known(grants))


def test_the_figures_of_the_broker_are_for_those_who_are_named_for_that() -> None:
    assert may("monitor", Right.METRICS, None, known())
    assert not may("monitor", Right.READ, TOPIC, known())


def test_wildcards_mean_nothing_unless_they_are_switched_on() -> None:
    grants = NamespaceGrants(
        namespace={"team-*": frozenset({"produce"})},
        topics={str(TOPIC): {"*": frozenset({"sinks"})}},
    )
    assert not may("team-a", Right.PRODUCE, OTHER, known(grants))
    assert may("team-*", Right.PRODUCE, OTHER, known(grants))
    on = known(grants, wildcards=True)
    assert may("team-a", Right.PRODUCE, OTHER, on)
    assert may("anybody", Right.SINKS, TOPIC, on)
    assert not may("a-team", Right.PRODUCE, OTHER, on)


@given(st.text("ab", max_size=4), st.text("ab*", max_size=4))
def test_a_wildcard_stands_for_any_text_at_one_end(role: str, pattern: str) -> None:
    expected = pattern in {role, "*"}
    if not expected and pattern.startswith("*"):
        expected = role.endswith(pattern[1:])
    elif not expected and pattern.endswith("*"):
        expected = role.startswith(pattern[:-1])
    assert fits(pattern, role) == expected
