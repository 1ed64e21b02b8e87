"""`magnetar certs`: a private certificate authority in a folder.

    FOLDER/ca.pem      give this to every client: it is what they trust
    FOLDER/ca.key      signs; whoever has it can be anybody
    FOLDER/NAME.pem    a server's or a client's certificate
    FOLDER/NAME.key    its key

Files are readable by their owner only, and none is ever replaced but by `renew`. A broker reads
its certificate again when the files change.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from magnetar import authority as authorities
from magnetar.authority import Authority, AuthorityError, Facts, Pair
from magnetar.broker.files import DiskFiles
from magnetar.cli import values
from magnetar.cli.errors import CommandError, ExitCode
from magnetar.cli.verb import Asked, LocalVerb, Noun, pass_asked

CA = "ca"
COLUMNS = ("file", "kind", "name", "valid_for", "ends", "days_left")

folder_argument = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
days_option = click.option(
    "--days",
    type=click.IntRange(1, authorities.DAYS_MAX),
    default=authorities.LEAF_DAYS,
    show_default=True,
    help="How long it is valid.",
)
file_option = click.option(
    "--file", "stem", metavar="NAME", help="Name of the files, without .pem and .key."
)


class LocalNoun(Noun):
    """A group of verbs that need no broker."""

    command_class = LocalVerb


@click.group(cls=LocalNoun)
def certs() -> None:
    """Make and renew TLS certificates of your own."""


@certs.command("create-ca")
@folder_argument
@click.option("--name", default="Magnetar CA", show_default=True, help="What it is called.")
@click.option(
    "--days",
    type=click.IntRange(1, authorities.DAYS_MAX),
    default=authorities.CA_DAYS,
    show_default=True,
    help="How long it is valid.",
)
@pass_asked
def create_ca(asked: Asked, folder: Path, name: str, days: int) -> None:
    """Create a certificate authority in FOLDER.

    Clients trust its ca.pem. Keep ca.key to yourself.
    """
    if (folder / f"{CA}.key").exists():
        raise CommandError(
            f"{folder} has a CA already", "what it signed depends on it; name another folder"
        )
    with _told():
        pair = Authority.create(name, _now(), days).pair
    _tell(asked, [_store(folder, CA, pair)])


@certs.command("create-server")
@folder_argument
@click.argument("names", nargs=-1, required=True)
@file_option
@days_option
@pass_asked
def create_server(
    asked: Asked, folder: Path, names: Sequence[str], stem: str | None, days: int
) -> None:
    """Create a certificate for a server that is dialled as NAMES: host names and addresses.

    \b
      magnetar certs create-server certs broker.example localhost 127.0.0.1
    """  # noqa: D301 - click keeps the lines after a \b as they are
    with _told():
        pair = _authority(folder).server(names, _now(), days)
    _tell(asked, [_store(folder, stem or "server", pair)])


@certs.command("create-client")
@folder_argument
@click.argument("role")
@file_option
@days_option
@pass_asked
def create_client(asked: Asked, folder: Path, role: str, stem: str | None, days: int) -> None:
    """Create a certificate for a client that logs in as ROLE."""
    with _told():
        pair = _authority(folder).client(role, _now(), days)
    _tell(asked, [_store(folder, stem or quote(role, safe=" @:"), pair)])


@certs.command("renew")
@folder_argument
@click.argument("stems", nargs=-1, metavar="[NAME]...")
@click.option(
    "--within",
    type=click.IntRange(min=0),
    metavar="DAYS",
    default=authorities.RENEW_DAYS,
    show_default=True,
    help="Those that end so soon, when no NAME is given.",
)
@days_option
@pass_asked
def renew(asked: Asked, folder: Path, stems: Sequence[str], within: int, days: int) -> None:
    """Renew certificates of FOLDER: the NAMED ones, or all that end soon.

    They get a new key and keep their names. A broker that uses them takes them up by itself.
    """
    authority, renewed = _authority(folder), []
    for stem in stems or _stems(folder):
        old = _read(folder / f"{stem}.pem")
        with _told(folder / f"{stem}.pem"):
            if not stems and (
                not authority.signed(old) or not authorities.due(old, _now(), within)
            ):
                continue
            pair = authority.renewed(old, _now(), days)
        renewed.append(_store(folder, stem, pair, replace=True))
    if not renewed and not asked.json:
        asked.remark(f"nothing in {folder} ends within {within} days")
    _tell(asked, renewed)


@certs.command("show")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@pass_asked
def show(asked: Asked, paths: Sequence[Path]) -> None:
    """Show what certificates say, and when they end. PATHS: files, or folders of them."""
    files = [each for path in paths for each in (_pem_files(path) if path.is_dir() else [path])]
    _tell(asked, files)


def _tell(asked: Asked, files: Sequence[Path]) -> None:
    rows = []
    for file in files:
        with _told(file):
            rows.append(_row(file, authorities.facts_of(_read(file)), json=asked.json))
    asked.show(rows, COLUMNS)


def _row(file: Path, facts: Facts, *, json: bool) -> dict[str, Any]:
    left = facts.days_left(_now())
    row: dict[str, Any] = {
        "file": str(file),
        "kind": facts.kind,
        "name": facts.common_name,
        "valid_for": list(facts.names) if json else ", ".join(facts.names) or None,
        "ends": facts.not_after.isoformat(timespec="seconds"),
        "days_left": int(left) if left >= 0 else -1,
    }
    if json:
        row |= {
            "begins": facts.not_before.isoformat(timespec="seconds"),
            "issuer": facts.issuer,
            "serial": facts.serial,
            "sha256": facts.fingerprint,
        }
    return row


# --- files -----------------------------------------------------------------------------


def _authority(folder: Path) -> Authority:
    certificate, key = folder / f"{CA}.pem", folder / f"{CA}.key"
    if not certificate.exists() or not key.exists():
        raise CommandError(
            f"{folder} has no ca.pem and ca.key",
            f"create them with `magnetar certs create-ca {folder}`",
            ExitCode.NOT_FOUND,
        )
    with _told(certificate):
        return Authority(Pair(_read(certificate), _read(key)))


def _stems(folder: Path) -> list[str]:
    return [each.stem for each in _pem_files(folder) if each.with_suffix(".key").exists()]


def _pem_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pem"))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", exit_code=ExitCode.NOT_FOUND) from None


def _store(folder: Path, stem: str, pair: Pair, *, replace: bool = False) -> Path:
    """Write a certificate and its key; return where the certificate is."""
    if "/" in stem or stem in {"", ".", ".."}:
        raise CommandError(f"{stem!r} is no name of a file", "give one with --file", ExitCode.USAGE)
    certificate, key = folder / f"{stem}.pem", folder / f"{stem}.key"
    files = DiskFiles()
    if not replace and (files.exists(certificate) or files.exists(key)):
        raise CommandError(
            f"{certificate} is there already",
            "renew it with `magnetar certs renew`, or name another with --file",
        )
    files.make_dir(folder)
    files.write_whole(key, pair.key)
    files.write_whole(certificate, pair.certificate)
    return certificate


class _told:  # noqa: N801 - reads as a statement
    """Turns what an authority has to say into a command's error, with the file it is about."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, AuthorityError):
            about = f"{self._file}: " if self._file else ""
            raise CommandError(f"{about}{error}", exit_code=ExitCode.USAGE) from None


def _now() -> datetime:
    return datetime.fromtimestamp(values.now_ms() / 1000, UTC)
