"""Log-in and rights on the wire, by raw frames: official clients ask before they do, and hide gaps.

The matrix is made from the table of commands: every command that is served, every kind of role, a
tenant of one's own and a foreign one, topics that are stored and topics that are not.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from magnetar.broker.access.commands import COMMAND_RIGHTS
from magnetar.broker.access.keys import Key
from magnetar.broker.access.revocations import Revocations
from magnetar.broker.access.rights import Demand, Right
from magnetar.broker.access.tokens import Tokens
from magnetar.broker.clock import SystemClock
from magnetar.broker.doors.pulsar.login import REFRESH
from magnetar.broker.metadata.grants import Grants
from magnetar.broker.metadata.memory import MemoryStore
from magnetar.broker.metadata.policies import Policies
from magnetar.broker.wire.pulsar.connection import LEGAL, NOT_SUPPORTED, State
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.names import TopicName
from tests.access.conftest import HERE, SECRET, Guard, furnish, new_guard, token
from tests.doors.pulsar.conftest import MakeRig, Rig
from tests.doors.raw_client import RawClient, command, send

NO_REQUEST = 2**64 - 1
# A fresh credential is not asked for what it may do, but whether it is good: see below.
SERVED = sorted(LEGAL[State.OPEN] - NOT_SUPPORTED.keys() - {api.BaseCommand.AUTH_RESPONSE})
REQUEST = 77

ROLES = ("root", "admin", "stranger", "producer", "consumer", "on-topic", "worker", "nobody")
EVERYBODY = set(ROLES)
NEEDS = {
    Right.LOOKUP: {"root", "admin", "producer", "consumer", "on-topic"},
    Right.PRODUCE: {"root", "admin", "producer", "on-topic"},
    Right.CONSUME: {"root", "admin", "consumer", "on-topic"},
    Right.SUPERUSER: {"root"},
    Right.OPEN: EVERYBODY,
}
"""Who has a right in the tenant `here`."""

EXPECTED = {
    # what was opened on the connection, and what says nothing about anybody's data
    **dict.fromkeys(
        (
            "PING", "PONG", "SEND", "ACK", "FLOW", "CLOSE_PRODUCER", "CLOSE_CONSUMER",
            "UNSUBSCRIBE", "SEEK", "REDELIVER_UNACKNOWLEDGED_MESSAGES", "GET_LAST_MESSAGE_ID",
            "CONSUMER_STATS", "WATCH_TOPIC_LIST_CLOSE", "TC_CLIENT_CONNECT_REQUEST", "NEW_TXN",
            "END_TXN",
        ),
        Right.OPEN,
    ),
    **dict.fromkeys(
        (
            "LOOKUP", "PARTITIONED_METADATA", "GET_SCHEMA", "GET_TOPICS_OF_NAMESPACE",
            "WATCH_TOPIC_LIST",
        ),
        Right.LOOKUP,
    ),
    **dict.fromkeys(
        ("PRODUCER", "GET_OR_CREATE_SCHEMA", "ADD_PARTITION_TO_TXN"), Right.PRODUCE
    ),
    **dict.fromkeys(("SUBSCRIBE", "ADD_SUBSCRIPTION_TO_TXN"), Right.CONSUME),
    **dict.fromkeys(("END_TXN_ON_PARTITION", "END_TXN_ON_SUBSCRIPTION"), Right.SUPERUSER),
}  # fmt: skip
"""Declared by hand, from Pulsar's ServerCnx and authorization provider, so that the matrix does
not ask the code what the code should do."""
STRANGER_THERE = {"root", "stranger"}


def may(role: str, kind: int, tenant: str, domain: str) -> bool:
    """The oracle."""
    right = EXPECTED[name(kind)]
    if right is Right.OPEN:
        return True
    if tenant == "there":
        return role in ({"root"} if right is Right.SUPERUSER else STRANGER_THERE)
    # The grant of `on-topic` is on the stored topic, and not on its namespace.
    about_namespace = "namespace" in _contents(kind).DESCRIPTOR.fields_by_name
    if role == "on-topic" and (domain == "non-persistent" or about_namespace):
        return False
    return role in NEEDS[right]


def name(kind: int) -> str:
    return api.BaseCommand.Type.Name(kind)


def _contents(kind: int) -> Any:
    return getattr(api.BaseCommand(), COMMAND_RIGHTS[kind].field)


def frame_of(kind: int, tenant: str, domain: str) -> bytes:
    """A command of this kind about the topic `t` of a tenant."""
    topic = f"{domain}://{tenant}/ns/t"
    known = _contents(kind).DESCRIPTOR.fields_by_name
    values = {
        "topic": topic, "namespace": f"{tenant}/ns", "subscription": "s", "request_id": REQUEST,
        "producer_id": 1, "consumer_id": 1, "subType": api.CommandSubscribe.Shared, "tc_id": 0,
        "watcher_id": 1, "topics_pattern": ".*", "txn_ttl_seconds": 10, "sequence_id": 0,
        "messagePermits": 1, "ack_type": api.CommandAck.Individual, "message_publish_time": 1,
    }  # fmt: skip
    fields: dict[str, Any] = {key: value for key, value in values.items() if key in known}
    if kind == api.BaseCommand.ADD_PARTITION_TO_TXN:
        fields["partitions"] = [topic]
    if kind == api.BaseCommand.ADD_SUBSCRIPTION_TO_TXN:
        fields["subscription"] = [api.Subscription(topic=topic, subscription="s")]
    if kind == api.BaseCommand.END_TXN_ON_SUBSCRIPTION:
        fields["subscription"] = api.Subscription(topic=topic, subscription="s")
    if kind == api.BaseCommand.ACK:
        fields["message_id"] = [api.MessageIdData(ledgerId=1, entryId=1)]
    if kind == api.BaseCommand.GET_OR_CREATE_SCHEMA:
        fields["schema"] = api.Schema(name="s", schema_data=b"", type=api.Schema.String)
    if kind == api.BaseCommand.SEND:
        return send(1, 0)
    return command(name(kind), **fields)


async def refused(client: RawClient, frame: bytes) -> bool:
    """Send a command; return whether it was refused for lack of rights."""
    await client.send(frame, command("PING"))
    try:
        while True:
            said = (await client.frame()).command
            if said.type == api.BaseCommand.PONG:
                continue
            return api.AuthorizationError in _codes(said)
    except (TimeoutError, ConnectionError):
        return False  # nothing to say, or thrown out for something else


def _codes(said: api.BaseCommand) -> set[int]:
    contents = [value for field, value in said.ListFields() if field.message_type is not None]
    fields = ("error", "error_code")
    return {
        getattr(each, key)
        for each in contents
        for key in fields
        if key in each.DESCRIPTOR.fields_by_name and each.HasField(key)
    }


def connect(role: str | None, **fields: Any) -> bytes:
    if role is not None:
        fields |= {"auth_method_name": "token", "auth_data": token(role).encode()}
    return command("CONNECT", client_version="raw", protocol_version=21, **fields)


@asynccontextmanager
async def guarded(make_rig: MakeRig, **options: Any) -> AsyncIterator[tuple[Rig, Guard]]:
    settings = options.pop("settings", {})
    store = MemoryStore()
    await furnish(store)
    guard = new_guard(store, **options)
    await guard.access.start()
    rig = make_rig(guard.access, **settings)
    rig.port.namespaces |= {"here/ns", "there/ns"}
    try:
        yield rig, guard
    finally:
        await guard.access.stop()


async def logged_in(rig: Rig, role: str | None, **fields: Any) -> RawClient:
    client = await rig.dial()
    await client.send(connect(role, **fields))
    await client.expect("CONNECTED")
    return client


async def wrong_cells(rig: Rig, kind: int, timeout_s: float = 0.3) -> list[tuple[str, str, str]]:
    """Return the cells of one command's part of the matrix that are not as declared."""
    wrong = []
    for role in ROLES:
        for tenant in ("here", "there"):
            for domain in ("persistent", "non-persistent"):
                client = await logged_in(rig, role)
                async with asyncio.timeout(30):
                    no = await _refused_soon(client, frame_of(kind, tenant, domain), timeout_s)
                if no == may(role, kind, tenant, domain):
                    wrong.append((role, tenant, domain))
                client.close()
    return wrong


async def _refused_soon(client: RawClient, frame: bytes, timeout_s: float) -> bool:
    await client.send(frame, command("PING"))
    pong = False
    try:
        while True:
            # The PONG follows at once where nothing else is to come.
            said = (await client.frame(timeout_s if not pong else 0.02)).command
            if said.type != api.BaseCommand.PONG:
                return api.AuthorizationError in _codes(said)
            pong = True
    except (TimeoutError, ConnectionError):
        return False


@pytest.mark.parametrize("kind", SERVED, ids=name)
async def test_every_command_lets_in_whom_its_right_lets_in_and_nobody_else(
    make_rig: MakeRig, kind: int
) -> None:
    async with guarded(make_rig, settings={"strangers_per_address_max": 1000}) as (rig, _):
        assert await wrong_cells(rig, kind) == []


def test_somebody_has_said_who_may_send_each_command() -> None:
    assert set(EXPECTED) == {name(kind) for kind in SERVED}


@pytest.mark.parametrize(
    ("kind", "right", "found"),
    [
        (api.BaseCommand.SUBSCRIBE, Right.PRODUCE, ("consumer", "here", "persistent")),
        (api.BaseCommand.LOOKUP, Right.KNOWN, ("stranger", "here", "non-persistent")),
    ],
)
async def test_a_right_that_is_declared_wrongly_would_be_found(
    make_rig: MakeRig,
    monkeypatch: pytest.MonkeyPatch,
    kind: int,
    right: Right,
    found: tuple[str, str, str],
) -> None:
    """A negative control of the matrix: one row that demands something else than Pulsar does."""

    def demands(of: Any) -> Sequence[Demand]:
        return (Demand(right, TopicName.parse(of.topic)),)

    wrong = COMMAND_RIGHTS[kind]._replace(right=right, demands=demands)
    monkeypatch.setitem(COMMAND_RIGHTS, kind, wrong)
    async with guarded(make_rig) as (rig, _):
        assert found in await wrong_cells(rig, kind)


async def test_a_missing_check_would_be_found(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the matrix: one row that forgets what it demands."""
    kind = api.BaseCommand.GET_SCHEMA
    forgetful = COMMAND_RIGHTS[kind]._replace(demands=lambda _: ())
    monkeypatch.setitem(COMMAND_RIGHTS, kind, forgetful)
    async with guarded(make_rig) as (rig, _):
        assert ("nobody", "here", "persistent") in await wrong_cells(rig, kind)


async def test_an_initial_subscription_needs_the_right_to_consume(make_rig: MakeRig) -> None:
    async with guarded(make_rig) as (rig, _):
        for role, no in (("producer", True), ("on-topic", False)):
            client = await logged_in(rig, role)
            frame = command(
                "PRODUCER", topic="here/ns/t", producer_id=1, request_id=1,
                initial_subscription_name="s",
            )  # fmt: skip
            assert await refused(client, frame) is no


async def test_a_kept_subscription_is_for_its_roles(make_rig: MakeRig) -> None:
    async with guarded(make_rig) as (rig, _):
        for subscription, no in (("kept", True), ("other", False)):
            client = await logged_in(rig, "consumer")
            frame = command(
                "SUBSCRIBE", topic="here/ns/t", subscription=subscription, consumer_id=1,
                request_id=1, subType=api.CommandSubscribe.Shared,
            )  # fmt: skip
            assert await refused(client, frame) is no


async def test_what_another_connection_has_opened_is_out_of_reach(make_rig: MakeRig) -> None:
    async with guarded(make_rig) as (rig, _):
        owner = await logged_in(rig, "on-topic")
        await owner.produce(1, "here/ns/t")
        await owner.subscribe(1, "here/ns/t")
        other = await logged_in(rig, "nobody")
        for kind, fields in (
            ("SEEK", {"consumer_id": 1, "message_publish_time": 1}),
            ("UNSUBSCRIBE", {"consumer_id": 1}),
            ("GET_LAST_MESSAGE_ID", {"consumer_id": 1}),
        ):
            error = await other.ask(kind, "ERROR", request_id=5, **fields)
            assert "not open on this connection" in error.message
        await other.send(send(1, 0))
        await other.closed()
        await owner.send(send(1, 0))
        await owner.expect("SEND_RECEIPT")


async def test_a_producer_is_the_roles_that_opened_it(make_rig: MakeRig) -> None:
    """Over a connection of its own, through a proxy, and where a sibling passes it on."""
    async with guarded(make_rig) as (rig, guard):

        def change(policies: Policies) -> None:
            policies.grants = Grants(namespace={"proxy": ["produce"], "anna": ["produce"]})

        await guard.namespaces.update(HERE, change)
        for role, original in (("admin", None), ("proxy", "anna")):
            fields = {} if original is None else {"original_principal": original}
            client = await logged_in(rig, role, **fields)
            await client.produce(1, "here/ns/t")
            assert rig.port.opened[-1].request.owner == original or role


async def test_the_absent_and_the_forbidden_look_alike(make_rig: MakeRig) -> None:
    async with guarded(make_rig) as (rig, _):
        client = await logged_in(rig, "producer")
        said = set()
        for topic in ("there/ns/t", "there/absent/t", "absent/ns/t", "HERE/ns/t", "here/Ns/t"):
            answer = await client.ask("LOOKUP", "LOOKUP_RESPONSE", topic=topic, request_id=1)
            said.add((answer.error, answer.message))
        assert len(said) == 1
        assert said.pop()[0] == api.AuthorizationError


async def test_a_name_that_is_none_is_said_to_be_none(make_rig: MakeRig) -> None:
    async with guarded(make_rig) as (rig, _):
        client = await logged_in(rig, "producer")
        answer = await client.ask("LOOKUP", "LOOKUP_RESPONSE", topic="a/b", request_id=1)
        assert answer.error == api.InvalidTopicName


# --- CONNECT ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"auth_method_name": "none"},
        {"auth_method_name": "token"},
        {"auth_method_name": "token", "auth_data": b"x.y.z"},
        {"auth_method_name": "token", "auth_data": token("root", b"o" * 32).encode()},
        {"auth_method_name": "token", "auth_data": b"x" * 20_000},
        {"auth_method_name": "basic", "auth_data": b"root:root"},
        {"auth_method_name": "magnetar-sibling", "auth_data": b'["root"]'},
    ],
)
async def test_who_cannot_prove_who_they_are_is_told_so_and_shut_out(
    make_rig: MakeRig, fields: dict[str, Any]
) -> None:
    async with guarded(make_rig) as (rig, _):
        client = await rig.dial()
        await client.send(connect(None, **fields), command("LOOKUP", topic="t", request_id=1))
        (error,) = await client.closed()
        assert (error.error.request_id, error.error.error) == (NO_REQUEST, api.AuthenticationError)
        assert "x.y.z" not in error.error.message


async def test_a_client_without_a_credential_is_anonymous_where_that_is_allowed(
    make_rig: MakeRig,
) -> None:
    async with guarded(make_rig, anonymous="producer") as (rig, _):
        client = await logged_in(rig, None)
        await client.produce(1, "here/ns/t")


async def test_commands_right_behind_connect_wait_for_it(make_rig: MakeRig) -> None:
    async with guarded(make_rig) as (rig, _):
        client = await rig.dial()
        await client.send(
            connect("producer"),
            command("LOOKUP", topic="here/ns/t", request_id=1),
            command("PRODUCER", topic="here/ns/t", producer_id=1, request_id=2),
            command("PING"),
        )
        await client.expect("CONNECTED")
        kinds = {(await client.frame()).command.type for _ in range(3)}
        assert kinds == {
            api.BaseCommand.LOOKUP_RESPONSE, api.BaseCommand.PRODUCER_SUCCESS, api.BaseCommand.PONG,
        }  # fmt: skip


async def test_only_so_many_from_one_address_may_be_without_log_in(make_rig: MakeRig) -> None:
    async with guarded(make_rig, settings={"strangers_per_address_max": 3}) as (rig, _):
        waiting = [await rig.dial() for _ in range(3)]
        await rig.until(lambda: rig.door.connections == 3)
        late = await rig.dial()
        await late.closed()
        await waiting[0].send(connect("producer"))
        await waiting[0].expect("CONNECTED")
        await logged_in(rig, "producer")


# --- proxies ------------------------------------------------------------------------------


async def test_a_proxy_needs_the_right_and_so_does_whom_it_speaks_for(make_rig: MakeRig) -> None:
    async with guarded(make_rig) as (rig, guard):

        def change(policies: Policies) -> None:
            policies.grants = Grants(namespace={"proxy": ["produce"], "anna": ["produce"]})

        await guard.namespaces.update(HERE, change)
        for original, no in (("anna", False), ("nobody", True)):
            client = await logged_in(rig, "proxy", original_principal=original)
            frame = command("PRODUCER", topic="here/ns/t", producer_id=1, request_id=1)
            assert await refused(client, frame) is no


async def test_a_proxy_that_speaks_for_nobody_is_shut_out(make_rig: MakeRig) -> None:
    async with guarded(make_rig) as (rig, _):
        for role, fields in (
            ("proxy", {}),
            ("proxy", {"original_principal": "other-proxy"}),
            ("producer", {"original_principal": "root"}),
        ):
            client = await rig.dial()
            await client.send(connect(role, **fields))
            assert (await client.closed())[0].error.error == api.AuthenticationError


async def test_a_look_up_may_name_whom_it_is_for_and_only_proxies_may_say_that(
    make_rig: MakeRig,
) -> None:
    async with guarded(make_rig) as (rig, _):
        client = await logged_in(rig, "producer")
        for kind, answer in (
            ("LOOKUP", "LOOKUP_RESPONSE"),
            ("PARTITIONED_METADATA", "PARTITIONED_METADATA_RESPONSE"),
        ):
            told = await client.ask(
                kind, answer, topic="here/ns/t", request_id=1, original_principal="root"
            )
            assert told.error == api.AuthorizationError


# --- while a connection lives ---------------------------------------------------------------


async def expiring(rig: Rig, guard: Guard, refresh: bool) -> RawClient:
    """A client whose token ends in a second, as the guard's clock goes."""
    client = await rig.dial()
    flags = api.FeatureFlags(supports_auth_refresh=refresh)
    shown = token("on-topic", exp=guard.clock.wall_ms() // 1000 + 1).encode()
    await client.send(connect(None, auth_method_name="token", auth_data=shown, feature_flags=flags))
    await client.expect("CONNECTED")
    return client


SOON = {"credential_check_s": 0.05}


async def test_a_client_that_can_is_asked_for_a_fresh_token(make_rig: MakeRig) -> None:
    async with guarded(make_rig, settings=SOON) as (rig, guard):
        client = await expiring(rig, guard, refresh=True)
        await client.produce(1, "here/ns/t")
        guard.clock.advance(2)
        challenge = await client.expect("AUTH_CHALLENGE")
        assert challenge.challenge.auth_data == REFRESH
        assert challenge.challenge.auth_method_name == "token"
        fresh = api.AuthData(auth_method_name="token", auth_data=token("on-topic").encode())
        await client.send(command("AUTH_RESPONSE", client_version="raw", response=fresh))
        await asyncio.sleep(0.15)
        await client.send(send(1, 0))
        await client.expect("SEND_RECEIPT")


@pytest.mark.parametrize("answer", ["nothing", "nonsense", "another role's", "an expired one"])
async def test_without_a_good_answer_the_connection_ends(make_rig: MakeRig, answer: str) -> None:
    async with guarded(make_rig, settings=SOON) as (rig, guard):
        client = await expiring(rig, guard, refresh=True)
        guard.clock.advance(2)
        await client.expect("AUTH_CHALLENGE")
        data = {
            "nonsense": b"x.y.z",
            "another role's": token("root").encode(),
            "an expired one": token("on-topic", exp=guard.clock.wall_ms() // 1000 - 1).encode(),
        }.get(answer)
        if data is not None:
            shown = api.AuthData(auth_method_name="token", auth_data=data)
            await client.send(command("AUTH_RESPONSE", client_version="raw", response=shown))
        assert (await client.closed())[-1].error.error == api.AuthenticationError


async def test_a_client_that_cannot_is_closed(make_rig: MakeRig) -> None:
    async with guarded(make_rig, settings=SOON) as (rig, guard):
        client = await expiring(rig, guard, refresh=False)
        guard.clock.advance(2)
        assert [each.error.error for each in await client.closed()] == [api.AuthenticationError]


async def test_a_revoked_token_is_not_asked_for_a_successor(
    make_rig: MakeRig, tmp_path: Path
) -> None:
    file = tmp_path / "revoked"
    file.write_text("")
    revocations = Revocations(file, Path.read_bytes)
    keys = [Key(None, SECRET, ["HS256"])]
    tokens = Tokens(lambda: keys, clock=SystemClock(), revocations=revocations)
    ways = {"token": tokens}
    async with guarded(make_rig, settings=SOON, providers=ways) as (rig, _):
        flags = api.FeatureFlags(supports_auth_refresh=True)
        stolen, kept = [
            await logged_in(
                rig, None, auth_method_name="token", feature_flags=flags, auth_data=each
            )
            for each in (token("root", jti="stolen").encode(), token("root").encode())
        ]
        file.write_text("id stolen\n")
        await revocations.refresh()
        assert [each.error.error for each in await stolen.closed()] == [api.AuthenticationError]
        await kept.produce(1, "here/ns/t")
        again = await rig.dial()
        shown = token("root", jti="stolen").encode()
        await again.send(connect(None, auth_method_name="token", auth_data=shown))
        assert (await again.closed())[0].error.error == api.AuthenticationError


async def test_what_a_client_may_not_have_any_more_is_closed_and_nothing_else(
    make_rig: MakeRig,
) -> None:
    async with guarded(make_rig) as (rig, guard):
        client = await logged_in(rig, "on-topic")
        await client.produce(1, "here/ns/t")
        await client.subscribe(2, "here/ns/t")
        other = await logged_in(rig, "producer")
        await other.produce(1, "here/ns/t")

        def change(policies: Policies) -> None:
            assert policies.grants is not None
            policies.grants.topics = {"persistent://here/ns/t": {"on-topic": ["consume"]}}

        await guard.namespaces.update(HERE, change)
        assert (await client.expect("CLOSE_PRODUCER")).producer_id == 1
        await client.send(send(1, 0))  # on its way already: dropped
        await client.nothing(0.2)
        error = await client.ask(
            "PRODUCER", "ERROR", topic="here/ns/t", producer_id=1, request_id=1
        )
        assert error.error == api.AuthorizationError

        def take_all(policies: Policies) -> None:
            policies.grants = Grants(namespace={"producer": ["produce"]})

        await guard.namespaces.update(HERE, take_all)
        assert (await client.expect("CLOSE_CONSUMER")).consumer_id == 2
        await other.send(send(1, 0))
        await other.expect("SEND_RECEIPT")


async def test_without_log_in_nobody_is_asked(rig: Rig) -> None:
    client = await rig.dial()
    await client.send(connect(None, auth_method_name="token", auth_data=b"whatever"))
    await client.expect("CONNECTED")
    await client.produce(1)
