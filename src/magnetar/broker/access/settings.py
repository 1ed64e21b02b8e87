"""Whether the settings of log-in fit together. Pure.

A setting that lacks its counterpart is refused at the start, rather than found out by the first
client: log-in by token without a key lets nobody in, and a key without log-in protects nothing.
"""

from magnetar.broker.config import BrokerConfig, ConfigError

METHODS = ("token", "basic", "tls")


_NEEDS_LOG_IN = (
    "anonymous_role",
    "basic_file",
    "oidc_issuers",
    "proxy_roles",
    "superuser_roles",
    "token_public_key",
    "token_secret_key",
)


def check_settings(config: BrokerConfig) -> None:
    """See that the settings of log-in fit together.

    Raises:
        ConfigError: they do not. The message says what is missing.
    """
    methods = config.authentication.split()
    for each in methods:
        if each not in METHODS:
            raise ConfigError(f"authentication is {each!r}, allowed: {', '.join(METHODS)}")
    if not methods:
        useless = [name for name in _NEEDS_LOG_IN if getattr(config, name)]
        if useless:
            raise ConfigError(
                f"{useless[0]} is set and log-in is off; set authentication too, such as"
                ' "token" (--auth token)'
            )
        return
    has_token = config.token_secret_key or config.token_public_key or config.oidc_issuers
    if "token" in methods and not has_token:
        raise ConfigError(
            "authentication has token, and there is nothing to verify one with: set"
            " token_secret_key, token_public_key or oidc_issuers"
        )
    if "basic" in methods and not config.basic_file:
        raise ConfigError("authentication has basic, and basic_file is not set")
    if set(config.proxy_roles.split()) & set(config.superuser_roles.split()):
        raise ConfigError(
            "a role is in proxy_roles and in superuser_roles: whoever takes over the proxy would"
            " have everything"
        )
