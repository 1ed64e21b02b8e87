"""The private authority: what it signs is good for what it is for, and for no more."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509 import DNSName, IPAddress
from cryptography.x509.verification import (
    PolicyBuilder,
    Store,
    VerificationError,
)

from magnetar.authority import (
    Authority,
    AuthorityError,
    Pair,
    due,
    facts_of,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=360)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("a CA", NOW)


def verified(authority: Authority, pair: Pair, subject: Any, at: datetime = NOW) -> None:
    store = Store([x509.load_pem_x509_certificate(authority.pair.certificate)])
    policy = PolicyBuilder().store(store).time(at)
    leaf = x509.load_pem_x509_certificate(pair.certificate)
    if subject is None:
        policy.build_client_verifier().verify(leaf, [])
    else:
        policy.build_server_verifier(subject).verify(leaf, [])


def test_a_server_is_good_for_its_names_and_for_no_other(authority: Authority) -> None:
    from ipaddress import ip_address

    pair = authority.server(["broker.example", "*.sub.example", "192.0.2.7", "::1"], NOW)
    for name in (
        DNSName("broker.example"),
        DNSName("x.sub.example"),
        IPAddress(ip_address("192.0.2.7")),
        IPAddress(ip_address("::1")),
    ):
        verified(authority, pair, name)
    for name in (DNSName("other.example"), IPAddress(ip_address("192.0.2.8"))):
        with pytest.raises(VerificationError):
            verified(authority, pair, name)
    assert facts_of(pair.certificate).kind == "server"
    assert set(facts_of(pair.certificate).names) == {
        "broker.example",
        "*.sub.example",
        "192.0.2.7",
        "::1",
    }


def test_a_server_is_no_client_and_a_client_no_server(authority: Authority) -> None:
    server, client = authority.server(["broker.example"], NOW), authority.client("alice", NOW)
    with pytest.raises(VerificationError):
        verified(authority, server, None)
    with pytest.raises(VerificationError):
        verified(authority, client, DNSName("alice"))
    assert facts_of(client.certificate).common_name == "alice"
    assert facts_of(client.certificate).kind == "client"


def test_what_another_authority_signed_is_not_ours(authority: Authority) -> None:
    stranger = Authority.create("a CA", NOW)  # of the same name
    pair = stranger.server(["broker.example"], NOW)
    with pytest.raises(VerificationError):
        verified(authority, pair, DNSName("broker.example"))
    assert stranger.signed(pair.certificate)
    assert not authority.signed(pair.certificate)
    with pytest.raises(AuthorityError, match="another CA"):
        authority.renewed(pair.certificate, NOW)


def test_a_certificate_begins_a_little_early_and_ends_when_it_says(authority: Authority) -> None:
    pair = authority.server(["broker.example"], NOW, days=10)
    verified(authority, pair, DNSName("broker.example"), NOW + timedelta(days=9))
    for at in (NOW - timedelta(minutes=10), NOW + timedelta(days=10, seconds=1)):
        with pytest.raises(VerificationError):
            verified(authority, pair, DNSName("broker.example"), at)
    assert 9.9 < facts_of(pair.certificate).days_left(NOW) <= 10
    assert due(pair.certificate, NOW, days=11)
    assert not due(pair.certificate, NOW, days=9)


def test_nothing_outlives_the_authority(authority: Authority) -> None:
    short = Authority.create("a short CA", NOW, days=5)
    pair = short.client("alice", NOW, days=365)
    assert facts_of(pair.certificate).not_after <= facts_of(short.pair.certificate).not_after
    with pytest.raises(AuthorityError, match="has ended"):
        short.client("alice", NOW + timedelta(days=6))


def test_a_renewed_certificate_has_the_names_and_another_key(authority: Authority) -> None:
    for old in (
        authority.server(["broker.example", "192.0.2.7"], NOW),
        authority.client("alice", NOW),
    ):
        new = authority.renewed(old.certificate, LATER)
        before, after = facts_of(old.certificate), facts_of(new.certificate)
        assert (before.names, before.common_name, before.kind) == (
            after.names,
            after.common_name,
            after.kind,
        )
        assert after.not_after > before.not_after
        assert new.key != old.key


def test_an_authority_is_found_again_from_its_files(authority: Authority) -> None:
    again = Authority(authority.pair)
    verified(authority, again.server(["broker.example"], NOW), DNSName("broker.example"))


@pytest.mark.parametrize(
    "make",
    [
        lambda a: Authority.create("", NOW),
        lambda a: Authority.create("a\nb", NOW),
        lambda a: Authority.create("a CA", NOW, days=0),
        lambda a: a.client("x" * 65, NOW),
        lambda a: a.server([], NOW),
        lambda a: a.server(["not a name"], NOW),
        lambda a: a.server(["-x.example"], NOW),
        lambda a: a.server(["x" * 64 + ".example"], NOW),
        lambda a: a.server(["a.example"] * 101, NOW),
        lambda a: a.renewed(a.pair.certificate, NOW),
        lambda a: a.renewed(b"nothing", NOW),
        lambda a: Authority(a.client("alice", NOW)),
        lambda a: Authority(a.pair._replace(key=a.client("alice", NOW).key)),
        lambda a: Authority(Pair(b"", b"")),
        lambda a: Authority(a.pair._replace(key=b"nothing")),
        lambda a: facts_of(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    ],
)
def test_what_makes_no_sense_is_refused(
    authority: Authority, make: Callable[[Authority], object]
) -> None:
    with pytest.raises(AuthorityError):
        make(authority)
