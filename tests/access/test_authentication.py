"""Ways to log in, together: which one is meant, proxies, the anonymous, and who fails too often."""

from typing import Any

import pytest

from magnetar.broker.access.attempts import DELAY_S, FAILURES_PER_MINUTE_MAX
from magnetar.broker.access.authentication import CREDENTIAL_BYTES_MAX, Credentials
from magnetar.broker.access.caller import BROKER_METHOD, Caller
from magnetar.broker.access.certificates import ClientCertificates
from magnetar.broker.access.rights import AuthenticationError
from magnetar.broker.metadata.memory import MemoryStore
from tests.access.conftest import Guard, new_guard, token


def shown(role: str, **fields: Any) -> Credentials:
    return Credentials("token", token(role).encode(), **fields)


async def login(guard: Guard, credentials: Credentials) -> Caller:
    return await guard.access.authenticator.authenticate(credentials)


def metric(guard: Guard, name: str) -> int:
    text = "".join(guard.metrics.render())
    return int(next(line for line in text.splitlines() if line.startswith(name)).split()[-1])


async def test_who_logs_in_is_known_by_role_method_and_address(guard: Guard) -> None:
    caller = await login(guard, shown("anna", address="192.0.2.1:5"))
    assert (caller.role, caller.method, caller.address) == ("anna", "token", "192.0.2.1:5")
    assert str(caller) == "anna"


@pytest.mark.parametrize("method", ["", "none", "unknown", "basic", "sasl", BROKER_METHOD])
async def test_without_an_anonymous_role_nobody_gets_in_without_a_credential(
    guard: Guard, method: str
) -> None:
    with pytest.raises(AuthenticationError, match="token"):
        await login(guard, Credentials(method, b"anna:secret"))


async def test_the_anonymous_role_is_for_those_who_show_nothing_that_we_know() -> None:
    guard = new_guard(MemoryStore(), anonymous="guest")
    for method in ("", "none", "unknown", BROKER_METHOD):
        caller = await login(guard, Credentials(method, b"x"))
        assert (caller.role, caller.broker) == ("guest", False)
    # Who tries to log in and fails is not let in as somebody else.
    with pytest.raises(AuthenticationError):
        await login(guard, Credentials("token", b"x.y.z"))


async def test_a_certificate_counts_when_nothing_else_is_shown() -> None:
    guard = new_guard(MemoryStore(), providers={"tls": ClientCertificates()})
    for method in ("", "none", "tls"):
        assert (await login(guard, Credentials(method, common_name="anna"))).role == "anna"
        with pytest.raises(AuthenticationError):
            await login(guard, Credentials(method))


async def test_an_over_long_credential_is_refused_unread(guard: Guard) -> None:
    with pytest.raises(AuthenticationError, match="limit"):
        await login(guard, Credentials("token", b"x" * (CREDENTIAL_BYTES_MAX + 1)))
    with pytest.raises(AuthenticationError, match="limit"):
        await login(guard, Credentials("token", b"x" * 2**20))


@pytest.mark.parametrize("role", ["a\nb", "a\x00", "x" * 2000, "\x1b[31m"])
async def test_a_role_can_be_written_into_a_log(guard: Guard, role: str) -> None:
    with pytest.raises(AuthenticationError):
        await login(guard, shown(role))


# --- proxies ------------------------------------------------------------------------------


async def test_a_proxy_speaks_for_whom_it_says(guard: Guard) -> None:
    caller = await login(guard, shown("proxy", original="anna"))
    assert caller.names == ("proxy", "anna")
    assert caller.principal == "anna"


@pytest.mark.parametrize("original", [None, "", "proxy", "other-proxy"])
async def test_a_proxy_speaks_for_somebody_who_is_no_proxy(
    guard: Guard, original: str | None
) -> None:
    with pytest.raises(AuthenticationError):
        await login(guard, shown("proxy", original=original))


async def test_nobody_else_speaks_for_others(guard: Guard) -> None:
    with pytest.raises(AuthenticationError):
        await login(guard, shown("anna", original="root"))
    assert (await login(guard, shown("anna", original="anna"))).names == ("anna",)


async def test_a_credential_that_a_proxy_passes_on_is_verified_again(guard: Guard) -> None:
    told: dict[str, Any] = {"original": "root", "original_method": "token"}
    caller = await login(guard, shown("proxy", **told, original_data=token("anna").encode()))
    assert caller.names == ("proxy", "anna"), "what was shown counts, not what was said"
    for bad in (b"x.y.z", token("anna", b"o" * 32).encode()):
        with pytest.raises(AuthenticationError):
            await login(guard, shown("proxy", **told, original_data=bad))


# --- failures -----------------------------------------------------------------------------


async def test_log_ins_are_counted(guard: Guard) -> None:
    await login(guard, shown("anna"))
    now = guard.clock.wall_ms() // 1000
    for bad in (b"x", token("anna", exp=now - 1).encode()):
        with pytest.raises(AuthenticationError):
            await login(guard, Credentials("token", bad))
    assert metric(guard, "pulsar_authentication_success_total") == 1
    assert metric(guard, "pulsar_authentication_failures_total") == 2
    assert metric(guard, "pulsar_expired_token_total") == 1


async def test_who_fails_too_often_waits_and_nobody_else_does(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(delay_s: float) -> None:
        waits.append(delay_s)

    monkeypatch.setattr("magnetar.broker.access.attempts.asyncio.sleep", sleep)
    attempts = guard.access.authenticator._attempts
    for port in range(FAILURES_PER_MINUTE_MAX):
        assert attempts.delay_s("192.0.2.1:1") == 0
        with pytest.raises(AuthenticationError):
            await login(guard, Credentials("token", b"x", address=f"192.0.2.1:{port}"))
    assert attempts.delay_s("192.0.2.1:999") == DELAY_S
    assert attempts.delay_s("192.0.2.2:1") == 0
    assert waits == [DELAY_S], "the last of them"
    await login(guard, shown("anna", address="192.0.2.1:7"))
    assert waits == [DELAY_S], "a success is told at once"
    guard.clock.advance(61)
    assert attempts.delay_s("192.0.2.1:1") == 0


def test_a_caller_whose_credential_has_ended_may_not_stay(guard: Guard) -> None:
    ways = guard.access.authenticator
    soon = Caller("anna", "token", expires_ms=guard.clock.wall_ms() + 1000)
    assert ways.still(soon)
    assert ways.still(Caller("anna", "token"))
    guard.clock.advance(2)
    assert not ways.still(soon)


@pytest.mark.parametrize(
    ("proxy_s", "clients", "ends"), [(None, 60, 60), (60, None, 60), (30, 60, 30), (60, 30, 30)]
)
async def test_a_connection_through_a_proxy_ends_with_the_credential_that_ends_first(
    guard: Guard, proxy_s: int | None, clients: int | None, ends: int
) -> None:
    now = guard.clock.wall_ms() // 1000

    def claims(seconds: int | None) -> dict[str, Any]:
        return {} if seconds is None else {"exp": now + seconds}

    caller = await guard.access.authenticator.authenticate(
        Credentials(
            "token",
            token("proxy", **claims(proxy_s)).encode(),
            original_method="token",
            original_data=token("anna", **claims(clients)).encode(),
        )
    )
    assert caller.names == ("proxy", "anna")
    assert caller.expires_ms == (now + ends) * 1000
    guard.clock.advance(ends + 1)
    assert not guard.access.authenticator.still(caller)
