"""WebSockets with log-in: every role on every address, tokens both ways, and rights that end."""

import asyncio
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from magnetar.broker.doors.admin.login import identification
from magnetar.broker.doors.websocket.login import address_of, with_token
from magnetar.broker.metadata.policies import Policies
from tests.access.conftest import HERE, Guard, token
from tests.doors.websocket.conftest import Rig, Serve

HOME = "persistent/here/ns"
ADDRESSES = {
    "producer": f"v2/producer/{HOME}/t",
    "consumer": f"v2/consumer/{HOME}/t/s",
    "reader": f"v2/reader/{HOME}/t",
    "several": "v3/consumer/s?topics=persistent://here/ns/t,persistent://here/ns/u",
    "burier": f"v2/consumer/{HOME}/t/s?subscriptionType=Shared&maxRedeliverCount=1",
    "keeper": f"v2/consumer/{HOME}/t/kept",
    "all": "v3/consumer/s?topicsPattern=persistent://here/ns/t.*",
    "all-kept": "v3/consumer/kept?topicsPattern=persistent://here/ns/t.*",
}
ALLOWED = {
    "root": set(ADDRESSES),
    "admin": set(ADDRESSES),
    "producer": {"producer"},
    "consumer": {"consumer", "reader", "several", "all"},
    "on-topic": {"producer", "consumer", "reader"},
    "keeper": set(),  # one of those whom a subscription names, but nobody let it consume
    "stranger": set(),
    "worker": set(),
    "nobody": set(),
}


@pytest.fixture
async def rig(serve: Serve, guard: Guard) -> Rig:
    access = guard.access
    rig: Rig = await serve(access=access, identify=identification(access), credential_check_s=1.0)
    rig.port.namespaces.add("here/ns")
    return rig


def bearer(role: str, **claims: Any) -> dict[str, Any]:
    return {"additional_headers": {"authorization": f"Bearer {token(role, **claims)}"}}


async def status_of(rig: Rig, target: str, **options: Any) -> int:
    try:
        client = await rig.connect(target, **options)
    except InvalidStatus as refused:
        return refused.response.status_code
    await client.socket.close()
    await rig.until(lambda: not rig.door._connections)
    return 101


@pytest.mark.parametrize("role", list(ALLOWED))
async def test_every_role_opens_what_it_was_granted_and_nothing_else(rig: Rig, role: str) -> None:
    may = {
        name
        for name, target in ADDRESSES.items()
        if await status_of(rig, target, **bearer(role)) == 101
    }
    assert may == ALLOWED[role]


async def test_a_missing_check_would_be_found(
    rig: Rig, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: a door that forgets to ask lets in who was granted nothing."""

    async def forgets(*_: Any) -> None:
        return

    monkeypatch.setattr(guard.access, "authorize", forgets)
    assert await status_of(rig, ADDRESSES["consumer"], **bearer("producer")) == 101


async def test_a_demand_that_is_missing_would_be_found(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another: an address that demands less than it opens."""
    monkeypatch.setattr("magnetar.broker.doors.websocket.login.demands_of", lambda _: ())
    assert await status_of(rig, ADDRESSES["burier"], **bearer("nobody")) == 101


@pytest.mark.parametrize("target", list(ADDRESSES.values()))
async def test_nobody_gets_in_without_a_credential_or_with_a_forged_one(
    rig: Rig, target: str
) -> None:
    assert await status_of(rig, target) == 401
    forged = {"additional_headers": {"authorization": f"Bearer {token('root', bytes(32))}"}}
    assert await status_of(rig, target, **forged) == 401
    none = token("root", None, algorithm="none")  # type: ignore[arg-type]
    assert await status_of(rig, f"{target.split('?', maxsplit=1)[0]}?token={none}") == 401
    assert not rig.port.opened
    assert not rig.port.subscribed


async def test_a_namespace_that_is_not_there_looks_like_one_that_is_forbidden(rig: Rig) -> None:
    absent = await rig.refused("v2/producer/persistent/no/where/t", **bearer("producer"))
    forbidden = await rig.refused("v2/producer/persistent/there/ns/t", **bearer("producer"))
    assert absent == forbidden
    assert absent[0] == 403


async def test_a_token_is_taken_from_the_address_too(rig: Rig) -> None:
    target = ADDRESSES["producer"]
    assert await status_of(rig, f"{target}?token={token('producer')}") == 101
    assert await status_of(rig, f"{target}?token=Bearer%20{token('producer')}") == 101
    assert await status_of(rig, f"{target}?token={token('nobody')}") == 403
    assert await status_of(rig, f"{target}?token={'x' * 20_000}") == 401


async def test_a_header_counts_before_the_address(rig: Rig) -> None:
    target = f"{ADDRESSES['producer']}?token={token('root')}"
    assert await status_of(rig, target, **bearer("nobody")) == 403


async def test_the_port_is_told_in_whose_name_it_is_asked(rig: Rig) -> None:
    await rig.connect(ADDRESSES["producer"], **bearer("producer"))
    await rig.connect(ADDRESSES["consumer"], **bearer("consumer"))
    assert "producer" in rig.port.opened[0].request.caller
    assert "consumer" in rig.port.subscribed[0].request.caller
    assert rig.port.opened[0].request.owner == "producer"


async def test_a_connection_ends_when_its_permission_does(rig: Rig, guard: Guard) -> None:
    gone = await rig.connect(ADDRESSES["producer"], **bearer("producer"))
    stays = await rig.connect(ADDRESSES["consumer"], **bearer("consumer"))

    def revoke(policies: Policies) -> None:
        assert policies.grants is not None
        del policies.grants.namespace["producer"]

    await guard.namespaces.update(HERE, revoke)
    assert (await gone.end()) == (1008, "what this connection needs is not permitted any more")
    await stays.tell(type="ping")
    assert await stays.hear() == {"result": "ok"}
    await rig.until(lambda: rig.port.opened[0].closed)


async def test_a_connection_ends_when_its_token_does(rig: Rig, guard: Guard) -> None:
    expires = guard.clock.wall_ms() // 1000 + 60
    client = await rig.connect(ADDRESSES["producer"], **bearer("producer", exp=expires))
    assert (await client.publish())["result"] == "ok"
    guard.clock.advance(61)
    assert (await client.end()) == (1008, "the credential is not good any more")
    await asyncio.sleep(0)


def test_where_a_client_is_comes_from_the_public_port_alone() -> None:
    assert address_of([]) == "?"
    assert address_of([(b"x-magnetar-peer", b'{"address":"1.2.3.4:5","common_name":null}')]) == (
        "1.2.3.4:5"
    )


def test_a_query_without_token_changes_no_header() -> None:
    headers = [(b"host", b"x")]
    assert with_token(headers, "a=b&%ff=%ff") == headers
