"""Beyond loopback: log-in and TLS, made where nobody has provided them.

    --listen 0.0.0.0     log-in configured?   yes: as it is     no: a signing key and an admin token
                         certificate given?   yes: as it is     no: a private CA, and a certificate
    --insecure           neither; the banner, `doctor` and a metric say so

    DATA/access/secret.key     signs tokens; whoever has it can be anybody
    DATA/access/admin.token    the administrator's, shown once and readable by the owner only
    DATA/tls/ca.pem, ca.key    the authority; clients need ca.pem
    DATA/tls/server.pem, .key  for every name this machine is known to have; renewed in time

All of it is made once and kept. With log-in switched off by a setting the start is refused.
"""

import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from magnetar.broker.files import Files
from magnetar.standalone.addresses import own_names, shared_address
from magnetar.standalone.options import AddressError, StandaloneOptions

ADMIN = "admin"
"""The role of the token that is made."""
SECRET_BYTES = 32

OTHER_WAYS = ("basic_file", "oidc_issuers", "token_public_key", "token_secret_key")
"""Settings of somebody who provides for log-in, and has not switched it on."""

MARK = "insecure"
"""File in DATA/run, for `doctor`: the last start let other machines in unsafely."""


class Safe(NamedTuple):
    """Options that other machines may be let in with."""

    options: StandaloneOptions
    lines: list[str]
    """What the banner adds, such as the settings of clients."""
    told: Mapping[str, Any]
    """The same for programs."""


def check(options: StandaloneOptions) -> None:
    """Refuse to let other machines in where nobody is asked who they are.

    Raises:
        AddressError: that is what the options come to.
    """
    if options.this_machine_only or options.insecure:
        return
    ways = options.settings.get("authentication")
    if ways is not None and not str(ways).split():
        raise AddressError(
            f"--listen {options.listen} is reachable from other machines, and the setting"
            " authentication switches log-in off: anybody could read and delete everything."
            " Leave the setting out, and tokens are made for you; listen on 127.0.0.1; or say"
            " --insecure if the network itself keeps others out"
        )
    anonymous = str(options.settings.get("anonymous_role", ""))
    if anonymous and anonymous in str(options.settings.get("superuser_roles", "")).split():
        raise AddressError(
            f"--listen {options.listen} is reachable from other machines, and whoever does not log"
            f" in is {anonymous!r}, a superuser: anybody could read and delete everything. Give"
            " --anonymous-role another role, or say --insecure"
        )


def secured(options: StandaloneOptions, data: Path, files: Files, now: datetime) -> Safe:
    """Return options that are safe, with everything made that they need.

    Raises:
        AddressError: they cannot be made safe.
    """
    check(options)
    mark = data / "run" / MARK
    if options.exposed:
        files.write_whole(mark, b"")
    elif files.exists(mark):
        files.remove(mark)
    if options.this_machine_only:
        return Safe(options, [], {})
    if options.insecure:
        return Safe(options, _insecure(options), {"insecure": True})
    token = ""
    settings = dict(options.settings)
    made_log_in = not settings.get("authentication")
    if made_log_in:
        for each in OTHER_WAYS:
            if settings.get(each):
                raise AddressError(
                    f"{each} is set and log-in is off: say --auth token, basic or tls as well"
                )
        token = _log_in(settings, data, files)
        if options.tls_client_ca is not None:
            settings["authentication"] += " tls"
    made_certificate = options.tls_certificate is None and options.tls_key is None
    if made_certificate:
        certificate, key = server_certificate(options, data, files, now)
        options = replace(options, tls_certificate=certificate, tls_key=key)
    options = replace(options, settings=settings)
    trust = data / "tls" / "ca.pem" if made_certificate else None
    token_file = data / "access" / "admin.token" if made_log_in else None
    return Safe(
        options,
        _client_settings(options, trust, token_file, token),
        {
            name: str(path)
            for name, path in (("tls_trust_certs", trust), ("token_file", token_file))
            if path is not None
        },
    )


def _log_in(settings: dict[str, Any], data: Path, files: Files) -> str:
    """Switch on log-in by token; return the administrator's token if it is new."""
    folder = data / "access"
    secret, token = folder / "secret.key", folder / "admin.token"
    files.make_dir(folder)
    if not files.exists(secret):
        files.write_whole(secret, secrets.token_bytes(SECRET_BYTES))
    shown = ""
    if not files.exists(token):
        import jwt  # noqa: PLC0415 - once in the life of a data folder

        shown = jwt.encode({"sub": ADMIN}, files.read(secret), algorithm="HS256")
        files.write_whole(token, shown.encode())
    settings["authentication"] = "token"
    settings["token_secret_key"] = "file://" + quote(str(secret))
    roles = str(settings.get("superuser_roles", "")).split()
    settings["superuser_roles"] = " ".join(dict.fromkeys([ADMIN, *roles]))
    return shown


def server_certificate(
    options: StandaloneOptions, data: Path, files: Files, now: datetime
) -> tuple[Path, Path]:
    """Return a certificate and its key that will do for a while; new ones if need be.

    Raises:
        AddressError: what is there cannot be used.
    """
    from magnetar.authority import (  # noqa: PLC0415 - loads a library that nobody else needs
        Authority,
        AuthorityError,
        Pair,
        due,
        facts_of,
    )

    folder = data / "tls"
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    certificate, key = folder / "server.pem", folder / "server.key"
    files.make_dir(folder)
    names = own_names(options)
    try:
        if not files.exists(ca):
            pair = Authority.create(f"Magnetar CA {secrets.token_hex(4)}", now).pair
            files.write_whole(ca_key, pair.key)
            files.write_whole(ca, pair.certificate)
        authority = Authority(Pair(files.read(ca), files.read(ca_key)))
        if files.exists(certificate) and files.exists(key):
            shown = files.read(certificate)
            enough = set(names) <= set(facts_of(shown).names)
            if enough and authority.signed(shown) and not due(shown, now):
                return certificate, key
        made = authority.server(names, now)
    except (AuthorityError, OSError) as error:
        raise AddressError(
            f"the certificates in {folder} cannot be used: {error}. Move the folder away, and new"
            " ones are made; clients then need the new ca.pem"
        ) from error
    files.write_whole(key, made.key)
    files.write_whole(certificate, made.certificate)
    return certificate, key


# --- what is said ----------------------------------------------------------------------


def _insecure(options: StandaloneOptions) -> list[str]:
    why = (
        "credentials and messages travel without TLS"
        if options.settings.get("authentication")
        else "whoever reaches these ports may read and delete everything"
    )
    return [f"  INSECURE    --insecure was said: {why}"]


def _client_settings(
    options: StandaloneOptions, trust: Path | None, token_file: Path | None, token: str
) -> list[str]:
    """Return what people can copy to reach the broker."""
    address = shared_address(options)
    lines = [f"  TLS         {options.tls_certificate}"]
    if token_file is not None:
        lines.append(f"  admin token {token_file}")
    if token:
        lines += ["", f"The token of the role {ADMIN}, shown this once:", "", token]
    shell = [f"export MAGNETAR_URL={address.url_tls}"]
    python = [f'    "{address.url_tls}",', "    tls_validate_hostname=True,"]
    curl = ["curl"]
    if trust is not None:
        shell.append(f"export MAGNETAR_TLS_TRUST_CERTS={_word(trust)}")
        python.append(f"    tls_trust_certs_file_path={str(trust)!r},")
        curl.append(f"--cacert {_word(trust)}")
    if token_file is not None:
        shell.append(f"export MAGNETAR_TOKEN_FILE={_word(token_file)}")
        python.append(
            f"    authentication=pulsar.AuthenticationToken(open({str(token_file)!r}).read()),"
        )
        curl.append(f'-H "Authorization: Bearer $(cat {_word(token_file)})"')
    curl.append(f"{address.http_url_tls}/admin/v2/clusters")
    lines += ["", "Command line:", "", *shell, "magnetar topics list"]
    lines += ["", "Python:", "", "import pulsar", "client = pulsar.Client(", *python, ")"]
    lines += ["", "Admin REST:", "", " ".join(curl)]
    if token_file is not None:
        secret = token_file.with_name("secret.key")
        make = f"magnetar tokens create --secret-key {_word(secret)} --subject ROLE --expiry 30d"
        lines += ["", "A token for another role:", "", make]
    return [*lines, ""]


def _word(path: Path) -> str:
    """Return a path as one word of a shell."""
    import shlex  # noqa: PLC0415 - only beyond loopback

    return shlex.quote(str(path))
