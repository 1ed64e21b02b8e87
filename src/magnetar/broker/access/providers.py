"""From settings to the ways to log in.

authentication = "token basic"     which there are
token_*, oidc_*                    tokens, of our own keys and of issuers
basic_file                         names and passwords
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from magnetar.broker.access.authentication import Authenticator, Provider
from magnetar.broker.access.certificates import ClientCertificates
from magnetar.broker.access.issuers import Issuers
from magnetar.broker.access.keys import Key, public_keys, secret_keys
from magnetar.broker.access.passwords import Passwords
from magnetar.broker.access.permissions import Known
from magnetar.broker.access.revocations import Revocations
from magnetar.broker.access.tokens import Tokens
from magnetar.broker.clock import Clock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.metrics import Metrics

Read = Callable[[Path], bytes]


def authenticator(
    config: BrokerConfig, read: Read, clock: Clock, metrics: Metrics
) -> Authenticator:
    """Return the ways to log in that the settings name.

    Raises:
        ConfigError: a file cannot be read, or makes no sense.
    """
    methods = config.authentication.split()
    revocations = None
    if config.token_revocations:
        revocations = Revocations(Path(config.token_revocations), read)
    providers: dict[str, Provider] = {}
    if "token" in methods:
        providers["token"] = _tokens(config, read, clock, revocations)
    if "basic" in methods:
        providers["basic"] = Passwords(Path(config.basic_file), read, clock, revocations)
    if "tls" in methods:
        providers["tls"] = ClientCertificates(revocations)
    return Authenticator(
        providers,
        clock=clock,
        metrics=metrics,
        anonymous=config.anonymous_role or None,
        proxies=config.proxy_roles.split(),
    )


def known(config: BrokerConfig) -> Known:
    """Return what is known of rights before the metadata are read."""
    return Known(
        superusers=frozenset(config.superuser_roles.split()),
        watchers=frozenset(config.metrics_roles.split()),
        wildcards=config.role_wildcards,
    )


def _tokens(
    config: BrokerConfig, read: Read, clock: Clock, revocations: Revocations | None
) -> Tokens:
    def load_keys() -> Sequence[Key]:
        return [
            *secret_keys("token_secret_key", config.token_secret_key, read),
            *public_keys("token_public_key", config.token_public_key, read),
        ]

    issuers = None
    if config.oidc_issuers:
        issuers = Issuers(
            config.oidc_issuers.split(),
            config.oidc_audiences.split(),
            clock,
            claim=config.oidc_claim,
        )
    return Tokens(
        load_keys,
        clock=clock,
        claim=config.token_claim,
        audience=config.token_audience,
        audience_claim=config.token_audience_claim,
        revocations=revocations,
        issuers=issuers,
    )
