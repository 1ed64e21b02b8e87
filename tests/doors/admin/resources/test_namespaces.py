"""Namespaces: Pulsar's shapes, and refusals that say what is allowed."""

from collections.abc import Callable
from typing import Any

import pytest

from magnetar.broker.doors.admin.app import AdminApp
from magnetar.broker.doors.admin.bundles import Bundles
from magnetar.broker.doors.admin.context import Context
from magnetar.broker.doors.admin.slices import SLICE
from magnetar.broker.metadata.namespaces import Namespaces
from magnetar.broker.metadata.store import Store
from magnetar.broker.port import ListMode
from magnetar.names import NamespaceName, TopicName

NS = "/admin/v2/namespaces/public/default"


class Names:
    """A catalog that only knows names."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    async def topics(
        self, namespace: NamespaceName, mode: ListMode, *, system: bool = False
    ) -> list[str]:
        prefixes = {
            ListMode.PERSISTENT: ("persistent:",),
            ListMode.NON_PERSISTENT: ("non-persistent:",),
            ListMode.ALL: ("persistent:", "non-persistent:"),
        }
        return [name for name in self.names if name.startswith(prefixes[mode])]


@pytest.fixture
def names() -> Names:
    return Names(["persistent://public/default/b", "non-persistent://public/default/a"])


@pytest.fixture
def app(store: Store, names: Names, new_context: Callable[..., Context]) -> AdminApp:
    return AdminApp(new_context(store, names))


async def test_namespaces_are_listed_by_tenant(ask: Any, app: AdminApp) -> None:
    answer = await ask(app, "GET", "/admin/v2/namespaces/public")
    assert answer.json == ["public/default", "public/functions"]
    assert (await ask(app, "GET", "/admin/v2/namespaces/nobody")).status == 404


async def test_a_namespace_that_exists_is_a_conflict(ask: Any, app: AdminApp) -> None:
    for body in (b"", {"bundles": {"numBundles": 4}}):
        answer = await ask(app, "PUT", NS, body)
        assert (answer.status, answer.reason) == (409, "namespace public/default already exists")


async def test_a_namespace_of_no_tenant_is_refused(ask: Any, app: AdminApp) -> None:
    answer = await ask(app, "PUT", "/admin/v2/namespaces/nobody/one")
    assert (answer.status, answer.reason) == (404, "Tenant does not exist")


async def test_policies_given_at_creation_hold_and_unknown_ones_are_kept(
    ask: Any, app: AdminApp
) -> None:
    body = {
        "message_ttl_in_seconds": 60,
        "retention_policies": {"retentionTimeInMinutes": 5, "retentionSizeInMB": -1},
        "bundles": {"numBundles": 2},
        "offload_threshold": 7,
    }
    path = "/admin/v2/namespaces/public/one"
    assert (await ask(app, "PUT", path, body)).status == 204
    shown = (await ask(app, "GET", path)).json
    assert shown["message_ttl_in_seconds"] == 60
    assert shown["offload_threshold"] == 7
    assert shown["bundles"] == {
        "boundaries": ["0x00000000", "0x80000000", "0xffffffff"],
        "numBundles": 2,
    }
    assert shown["replication_clusters"] == ["standalone"]
    assert shown["deleted"] is False
    assert (await ask(app, "GET", f"{path}/messageTTL")).json == 60


@pytest.mark.parametrize("count", [0, -1, 129, "4", 1.5, None])
async def test_a_number_of_bundles_that_cannot_be_is_refused(
    ask: Any, app: AdminApp, count: object
) -> None:
    body = {"bundles": {"numBundles": count}}
    assert (await ask(app, "PUT", "/admin/v2/namespaces/public/one", body)).status == 412


async def test_a_namespace_with_topics_is_not_deleted(
    ask: Any, app: AdminApp, store: Store, new_context: Callable[..., Context]
) -> None:
    topic = TopicName.parse("persistent://public/default/b")
    await new_context(store).partitions.create_partitioned(topic, 1, 0)
    answer = await ask(app, "DELETE", NS)
    assert (answer.status, answer.reason) == (409, "namespace public/default still has topics")
    assert (await ask(app, "DELETE", "/admin/v2/namespaces/public/functions")).status == 204


@pytest.mark.parametrize(
    ("query", "count"),
    [("", 1), ("?mode=ALL", 2), ("?mode=PERSISTENT", 1), ("?mode=non_persistent", 1)],
)
async def test_topics_are_listed_by_mode(ask: Any, app: AdminApp, query: str, count: int) -> None:
    assert len((await ask(app, "GET", f"{NS}/topics{query}")).json) == count


async def test_a_mode_there_is_not_is_refused(ask: Any, app: AdminApp) -> None:
    assert (await ask(app, "GET", f"{NS}/topics?mode=SOME")).status == 412


async def test_a_long_list_comes_in_slices_and_whole(ask: Any, app: AdminApp, names: Names) -> None:
    names.names = sorted(f'persistent://public/default/t-{i}"\u00fc' for i in range(3 * SLICE + 1))
    answer = await ask(app, "GET", f"{NS}/topics")
    assert answer.json == names.names
    assert answer.pieces >= 4


async def test_properties_are_added_shown_and_removed(ask: Any, app: AdminApp) -> None:
    assert (await ask(app, "PUT", f"{NS}/property/a%2Fb/c%20d")).status == 204
    assert (await ask(app, "PUT", f"{NS}/properties", {"x": "y"})).status == 204
    assert (await ask(app, "GET", f"{NS}/properties")).json == {"a/b": "c d", "x": "y"}
    assert (await ask(app, "GET", f"{NS}/property/a%2Fb")).json == "c d"
    assert (await ask(app, "DELETE", f"{NS}/property/a%2Fb")).json == "c d"
    assert (await ask(app, "DELETE", f"{NS}/properties")).status == 204
    assert (await ask(app, "GET", f"{NS}/properties")).json == {}


async def test_properties_are_bounded(ask: Any, app: AdminApp) -> None:
    assert (await ask(app, "PUT", f"{NS}/properties", {"x": "y" * 1025})).status == 412
    many = {str(i): "" for i in range(65)}
    assert (await ask(app, "PUT", f"{NS}/properties", many)).status == 412
    assert (await ask(app, "PUT", f"{NS}/properties", {"x": 1})).status == 400


async def test_a_change_that_comes_in_between_is_not_lost(
    ask: Any, app: AdminApp, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes change two policies of one namespace at the same moment."""
    commit, raced = store.commit, False

    async def racing(changes: Any) -> Any:
        nonlocal raced
        if not raced:
            raced = True
            await Namespaces(store).update(
                NamespaceName("public", "default"),
                lambda policies: setattr(policies, "deduplication", True),
            )
        return await commit(changes)

    monkeypatch.setattr(store, "commit", racing)
    assert (await ask(app, "POST", f"{NS}/messageTTL", 5)).status == 204
    assert (await ask(app, "GET", f"{NS}/messageTTL")).json == 5
    assert (await ask(app, "GET", f"{NS}/deduplication")).json is True


async def test_bundles_are_shown_and_a_topic_has_one(ask: Any, app: AdminApp) -> None:
    assert (await ask(app, "GET", f"{NS}/bundles")).json["numBundles"] == 4
    path = "/lookup/v2/topic/persistent/public/default/orders/bundle"
    shown = (await ask(app, "GET", path)).body.decode()
    assert shown == Bundles.equal(4).of_topic(TopicName.parse("orders"))
