"""Tenants, clusters and the broker itself, as clients and people see them."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from magnetar.broker.doors.admin.app import AdminApp
from magnetar.broker.doors.admin.context import Context
from magnetar.broker.metadata.namespaces import Namespaces
from magnetar.broker.metadata.store import Store
from magnetar.broker.metadata.tenants import Tenant, Tenants
from magnetar.names import NamespaceName

A = "/admin/v2"
CAFE = quote("café")


@pytest.fixture
def app(store: Store, new_context: Callable[..., Context]) -> AdminApp:
    return AdminApp(new_context(store))


async def test_a_tenant_is_created_shown_changed_and_deleted(ask: Any, app: AdminApp) -> None:
    wanted = {"adminRoles": ["ops"], "allowedClusters": ["standalone"], "fromTheFuture": [1]}
    assert (await ask(app, "PUT", f"{A}/tenants/acme", wanted)).status == 204
    assert (await ask(app, "GET", f"{A}/tenants")).json == ["acme", "public", "pulsar"]
    assert (await ask(app, "GET", f"{A}/tenants/acme")).json == wanted
    changed = {"adminRoles": [], "allowedClusters": ["standalone"]}
    assert (await ask(app, "POST", f"{A}/tenants/acme", changed)).status == 204
    assert (await ask(app, "GET", f"{A}/tenants/acme")).json == changed
    assert (await ask(app, "DELETE", f"{A}/tenants/acme")).status == 204
    assert (await ask(app, "GET", f"{A}/tenants/acme")).status == 404


async def test_a_tenant_without_a_body_may_use_this_cluster(ask: Any, app: AdminApp) -> None:
    assert (await ask(app, "PUT", f"{A}/tenants/acme")).status == 204
    assert (await ask(app, "GET", f"{A}/tenants/acme")).json["allowedClusters"] == ["standalone"]


async def test_a_tenant_that_exists_cannot_be_created(ask: Any, app: AdminApp) -> None:
    answer = await ask(app, "PUT", f"{A}/tenants/public")
    assert (answer.status, answer.reason) == (409, "tenant public already exists")


@pytest.mark.parametrize(
    ("method", "status"), [("GET", 404), ("POST", 404), ("DELETE", 404), ("PATCH", 405)]
)
async def test_a_tenant_that_is_missing_is_said_to_be(
    ask: Any, app: AdminApp, method: str, status: int
) -> None:
    assert (await ask(app, method, f"{A}/tenants/nobody")).status == status


async def test_a_tenant_with_namespaces_is_deleted_only_by_force(
    ask: Any, store: Store, new_context: Callable[..., Context]
) -> None:
    class NoTopics:
        async def topics(self, namespace: object, mode: object) -> list[str]:
            return []

    app = AdminApp(new_context(store, NoTopics()))
    await ask(app, "PUT", f"{A}/tenants/acme")
    await ask(app, "PUT", f"{A}/namespaces/acme/one")
    assert (await ask(app, "DELETE", f"{A}/tenants/acme")).status == 409
    assert (await ask(app, "DELETE", f"{A}/tenants/acme?force=true")).status == 204
    assert (await ask(app, "GET", f"{A}/namespaces/acme")).status == 404


@pytest.mark.parametrize("name", ["a%2Fb", "a%00b", "a%20b", "%E2%80%AE", "a" * 2000, "%C3%A9%21"])
async def test_a_name_that_no_tenant_can_have_is_refused(
    ask: Any, app: AdminApp, name: str
) -> None:
    for method in ("GET", "PUT", "DELETE"):
        assert (await ask(app, method, f"{A}/tenants/{name}")).status == 412


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"null", 204),
        (b"\xff", 400),
        (b"{" * 100_000, 400),
        (b'{"adminRoles": "ops"}', 400),
        ({"allowedClusters": ["mars"]}, 412),
        ({"allowedClusters": []}, 412),
    ],
)
async def test_a_body_that_is_no_tenant_is_refused(
    ask: Any, app: AdminApp, body: object, status: int
) -> None:
    answer = await ask(app, "PUT", f"{A}/tenants/acme", body)
    assert answer.status == status
    assert status == 204 or answer.reason


async def test_clusters_are_shown_with_their_addresses(ask: Any, app: AdminApp) -> None:
    assert (await ask(app, "GET", f"{A}/clusters")).json == ["standalone"]
    shown = (await ask(app, "GET", f"{A}/clusters/standalone")).json
    assert shown["brokerServiceUrl"] == "pulsar://localhost:6650"
    assert shown["serviceUrl"] == "http://localhost:8080"


async def test_other_clusters_can_be_made_known_and_forgotten(ask: Any, app: AdminApp) -> None:
    other = {"serviceUrl": "http://west:8080"}
    assert (await ask(app, "PUT", f"{A}/clusters/west", other)).status == 204
    assert (await ask(app, "PUT", f"{A}/clusters/west", other)).status == 409
    assert (await ask(app, "GET", f"{A}/clusters/west")).json == other
    changed = {"serviceUrl": "http://west:80"}
    assert (await ask(app, "POST", f"{A}/clusters/west", changed)).status == 204
    assert (await ask(app, "GET", f"{A}/clusters/west")).json == changed
    assert (await ask(app, "DELETE", f"{A}/clusters/west")).status == 204
    assert (await ask(app, "GET", f"{A}/clusters/west")).status == 404


@pytest.mark.parametrize(
    ("where", "good"),
    [
        ({"serviceUrl": "http://west:8080,west2:8080"}, True),
        ({"brokerServiceUrlTls": "pulsar+ssl://west:6651"}, True),
        ({"serviceUrl": "", "brokerServiceUrl": ""}, True),
        ({"serviceUrl": "ftp://west"}, False),
        ({"serviceUrl": "west:8080"}, False),
        ({"serviceUrlTls": "http://west:8080"}, False),
        ({"brokerServiceUrl": "pulsar+ssl://west:6651"}, False),
        ({"brokerServiceUrl": "pulsar://"}, False),
        ({"serviceUrl": "http://[west"}, False),
    ],
)
async def test_a_cluster_is_where_its_addresses_can_be_dialled(
    ask: Any, app: AdminApp, where: dict[str, str], good: bool
) -> None:
    answer = await ask(app, "PUT", f"{A}/clusters/west", where)
    assert answer.status == (204 if good else 400)
    assert good or next(iter(where)) in answer.reason


@pytest.mark.parametrize(("method", "name"), [("PUT", "west"), ("POST", "standalone")])
async def test_a_cluster_without_a_body_is_refused(
    ask: Any, app: AdminApp, method: str, name: str
) -> None:
    before = (await ask(app, "GET", f"{A}/clusters/{name}")).body
    answer = await ask(app, method, f"{A}/clusters/{name}")
    assert (answer.status, answer.reason.split(";")[0]) == (400, "cluster: the body is missing")
    assert (await ask(app, "GET", f"{A}/clusters/{name}")).body == before
    assert (await ask(app, "GET", f"{A}/clusters")).json == ["standalone"]


@pytest.mark.parametrize("path", ["clusters", "tenants", "namespaces/public"])
async def test_nothing_new_is_named_with_letters_that_pulsar_refuses(
    ask: Any, app: AdminApp, path: str
) -> None:
    body = {"allowedClusters": ["standalone"]} if path == "tenants" else {}
    answer = await ask(app, "PUT", f"{A}/{path}/{CAFE}", body)
    assert (answer.status, "'café': allowed are the letters a-z" in answer.reason) == (412, True)
    assert (await ask(app, "PUT", f"{A}/{path}/caf-e.1:x=_", body)).status == 204


async def test_what_was_named_so_before_can_be_used_and_removed(
    ask: Any, app: AdminApp, store: Store
) -> None:
    await Tenants(store).create("café", Tenant(allowed_clusters=["standalone"]))
    await Namespaces(store).create(NamespaceName("café", "bücher"))
    assert (await ask(app, "GET", f"{A}/tenants/{CAFE}")).status == 200
    assert (await ask(app, "GET", f"{A}/namespaces/{CAFE}")).json == ["café/bücher"]
    assert (await ask(app, "DELETE", f"{A}/namespaces/{CAFE}/b%C3%BCcher")).status == 204
    assert (await ask(app, "DELETE", f"{A}/tenants/{CAFE}")).status == 204


@pytest.mark.parametrize("what", ["namespaces/pulsar/system", "tenants/pulsar"])
async def test_what_the_broker_itself_needs_is_not_deleted(
    ask: Any, app: AdminApp, what: str
) -> None:
    for query in ("", "?force=true"):
        refused = await ask(app, "DELETE", f"{A}/{what}{query}")
        assert (refused.status, "the broker's own" in refused.reason) == (412, True)
    assert (await ask(app, "GET", f"{A}/namespaces/pulsar/system")).status == 200
    assert (await ask(app, "DELETE", f"{A}/namespaces/public/functions")).status == 204


async def test_this_cluster_cannot_be_deleted(ask: Any, app: AdminApp) -> None:
    assert (await ask(app, "DELETE", f"{A}/clusters/standalone")).status == 412


async def test_all_processes_are_one_broker(ask: Any, app: AdminApp) -> None:
    assert (await ask(app, "GET", f"{A}/brokers")).json == ["localhost:8080"]
    assert (await ask(app, "GET", f"{A}/brokers/standalone")).json == ["localhost:8080"]
    assert (await ask(app, "GET", f"{A}/brokers/elsewhere")).status == 404
    leader = (await ask(app, "GET", f"{A}/brokers/leaderBroker")).json
    assert leader == {"brokerId": "localhost:8080", "serviceUrl": "http://localhost:8080"}
    assert (await ask(app, "GET", f"{A}/brokers/version")).body == b"0.0.1"
    internal = (await ask(app, "GET", f"{A}/brokers/internal-configuration")).json
    assert internal["metadataStoreUrl"] == "sqlite:/data/metadata.sqlite"


async def test_health_is_ok_or_says_why_not(
    ask: Any, store: Store, new_context: Callable[..., Context]
) -> None:
    complaints = [""]
    app = AdminApp(new_context(store, complaint=lambda: complaints[0]))
    assert (await ask(app, "GET", f"{A}/brokers/health?topicVersion=V2")).body == b"ok"
    complaints[0] = "the disk is full"
    answer = await ask(app, "GET", f"{A}/brokers/health")
    assert (answer.status, answer.reason) == (503, "the disk is full")


async def test_a_bug_is_logged_and_does_not_tell_its_insides(
    ask: Any, store: Store, new_context: Callable[..., Context], caplog: pytest.LogCaptureFixture
) -> None:
    def complaint() -> str:
        raise ZeroDivisionError("secret detail")

    app = AdminApp(new_context(store, complaint=complaint))
    answer = await ask(app, "GET", f"{A}/brokers/health")
    assert answer.status == 500
    assert "secret detail" not in answer.reason
    assert "secret detail" in caplog.text


async def test_what_there_is_not_is_said_so(ask: Any, app: AdminApp) -> None:
    for path in ("/", "/admin", f"{A}/nothing", f"{A}/tenants/a/b/c", "/admin/v3/nothing"):
        answer = await ask(app, "GET", path)
        assert answer.status == 404
        assert answer.reason.startswith("there is no ")


async def test_a_field_that_is_null_is_as_if_it_were_not_there(ask: Any, app: AdminApp) -> None:
    body = {"adminRoles": None, "allowedClusters": ["standalone"]}
    assert (await ask(app, "PUT", "/admin/v2/tenants/nulls", body)).status == 204
    assert (await ask(app, "GET", "/admin/v2/tenants/nulls")).json["adminRoles"] == []
