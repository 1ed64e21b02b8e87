"""Settings of log-in that do not fit together are refused at the start."""

from pathlib import Path
from typing import Any

import pytest

from magnetar.broker.access.settings import check_settings
from magnetar.broker.config import BrokerConfig, ConfigError


def config(**settings: Any) -> BrokerConfig:
    return BrokerConfig(data=Path("/data"), **settings)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"authentication": "password"}, "allowed"),
        ({"authentication": "token"}, "token_secret_key"),
        ({"authentication": "basic"}, "basic_file"),
        ({"token_secret_key": "/key"}, "log-in is off"),
        ({"superuser_roles": "root"}, "log-in is off"),
        ({"anonymous_role": "guest"}, "log-in is off"),
        (
            {"authentication": "tls", "proxy_roles": "a b", "superuser_roles": "b"},
            "proxy_roles and in superuser_roles",
        ),
    ],
)
def test_what_is_missing_is_named(settings: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        check_settings(config(**settings))


def test_what_fits_together_is_taken() -> None:
    for settings in (
        {},
        {"authentication": "tls"},
        {"authentication": "token basic", "token_secret_key": "/k", "basic_file": "/p"},
        {"authentication": "token", "oidc_issuers": "https://issuer.example"},
    ):
        check_settings(config(**settings))


def test_a_config_does_not_print_its_secret() -> None:
    secret = "data:;base64,c2VjcmV0"  # noqa: S105 - of no use anywhere
    assert secret not in repr(config(authentication="token", token_secret_key=secret))
