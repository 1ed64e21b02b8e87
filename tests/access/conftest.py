"""Metadata with two tenants, roles of every kind, and keys to sign tokens with."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import jwt
import pytest

from magnetar.broker.access.authentication import Authenticator
from magnetar.broker.access.authorize import Access, Grantor
from magnetar.broker.access.keys import Key, secret_algorithms
from magnetar.broker.access.permissions import Known
from magnetar.broker.access.tokens import Tokens
from magnetar.broker.clock import ManualClock
from magnetar.broker.metadata.first_start import prepare
from magnetar.broker.metadata.grants import Grants
from magnetar.broker.metadata.memory import MemoryStore
from magnetar.broker.metadata.namespaces import Namespaces
from magnetar.broker.metadata.policies import Policies
from magnetar.broker.metadata.store import Store
from magnetar.broker.metadata.tenants import Tenant, Tenants
from magnetar.broker.metrics import Metrics
from magnetar.names import NamespaceName

SECRET = secrets.token_bytes(32)
HERE = NamespaceName("here", "ns")
THERE = NamespaceName("there", "ns")


async def furnish(store: Store) -> None:
    """Make two tenants alike; grants are in `here` alone."""
    await prepare(store, "standalone")
    tenants, namespaces = Tenants(store), Namespaces(store)
    await tenants.create("here", Tenant(admin_roles=["admin"], allowed_clusters=["standalone"]))
    await tenants.create("there", Tenant(admin_roles=["stranger"]))
    granted = Grants(
        namespace={
            "producer": ["produce"], "consumer": ["consume"], "worker": ["functions"],
            "sourcer": ["sources"], "sinker": ["sinks"], "packer": ["packages"],
        },
        topics={"persistent://here/ns/t": {"on-topic": ["produce", "consume"]}},
        subscriptions={"kept": ["keeper"]},
    )  # fmt: skip
    await namespaces.create(HERE, Policies(grants=granted))
    await namespaces.create(THERE, Policies())


def token(role: str, secret: bytes = SECRET, **claims: Any) -> str:
    """A token for a role."""
    headers = {"kid": kid} if (kid := claims.pop("kid", None)) else None
    algorithm = claims.pop("algorithm", "HS256")
    return jwt.encode({"sub": role, **claims}, secret, algorithm=algorithm, headers=headers)


@dataclass
class Guard:
    """What decides, and what it decides from."""

    access: Access
    store: Store
    clock: ManualClock
    metrics: Metrics

    @property
    def namespaces(self) -> Namespaces:
        return Namespaces(self.store)


def new_guard(store: Store, **options: Any) -> Guard:
    """Log-in by token, with one superuser and one proxy."""
    clock, metrics = ManualClock(), Metrics()
    tokens = Tokens(lambda: [Key(None, SECRET, secret_algorithms(SECRET))], clock=clock)
    known = Known(
        superusers=frozenset({"root"}),
        watchers=frozenset({"monitor"}),
        wildcards=options.pop("wildcards", False),
    )
    ways = Authenticator(
        options.pop("providers", {"token": tokens}),
        clock=clock,
        metrics=metrics,
        proxies=["proxy", "other-proxy"],
        **options,
    )
    return Guard(Access(Grantor(store, known), ways), store, clock, metrics)


@asynccontextmanager
async def guarding() -> AsyncIterator[Guard]:
    """A broker's guard, with tenants, grants and tokens, while it is in force."""
    store = MemoryStore()
    await furnish(store)
    guard = new_guard(store)
    await guard.access.start()
    try:
        yield guard
    finally:
        await guard.access.stop()


@pytest.fixture
async def guard() -> AsyncIterator[Guard]:
    async with guarding() as guard:
        yield guard
