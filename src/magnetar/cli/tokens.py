"""`magnetar tokens`: keys to sign with, and tokens that say who somebody is.

    secret key     HS256    one key signs and verifies: the broker has it, and whoever makes tokens
    key pair       RS256    the private key signs; the broker has the public one only
                   ES256

A key is a file (`FILE` or `file:///path`) or the key itself (`data:;base64,...`), as with Pulsar's
own `bin/pulsar tokens`, whose files these are: a secret is its raw bytes, the halves of a pair are
DER; PEM is read too. Tokens go to standard output, and nowhere else.
"""

import base64
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from magnetar.broker.files import DiskFiles
from magnetar.cli import keys, values
from magnetar.cli.certs import LocalNoun
from magnetar.cli.errors import CommandError, ExitCode
from magnetar.cli.verb import Asked, pass_asked

TOKEN_BYTES_MAX = 16 * 1024

secret_option = click.option("--secret-key", "-sk", metavar="KEY", help="A secret key.")


@click.group(cls=LocalNoun)
def tokens() -> None:
    """Make signing keys and tokens, and look into them."""


@tokens.command("create-secret-key")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--algorithm",
    "-a",
    type=click.Choice(list(keys.SECRET_BYTES)),
    default="HS256",
    show_default=True,
)
@click.option("--base64", "-b", "as_text", is_flag=True, help="Write it as text.")
@pass_asked
def create_secret_key(asked: Asked, file: Path, algorithm: str, as_text: bool) -> None:
    """Create a secret key in FILE."""
    key = secrets.token_bytes(keys.SECRET_BYTES[algorithm])
    _store(file, base64.b64encode(key) if as_text else key)
    asked.show_one({"secret_key": str(file)}, f"created {file}; the broker needs it too")


@tokens.command("create-key-pair")
@click.argument("private", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("public", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--algorithm", "-a", type=click.Choice(keys.PAIRS), default="RS256", show_default=True
)
@pass_asked
def create_key_pair(asked: Asked, private: Path, public: Path, algorithm: str) -> None:
    """Create a key pair in two files: PRIVATE signs tokens, PUBLIC goes to the broker."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - loaded when needed
    from cryptography.hazmat.primitives.asymmetric import ec, rsa  # noqa: PLC0415

    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    if algorithm in keys.CURVES:
        key = ec.generate_private_key(getattr(ec, keys.CURVES[algorithm])())
    else:
        key = rsa.generate_private_key(public_exponent=65_537, key_size=keys.RSA_BITS)
    encoding = serialization.Encoding.DER
    _store(
        private,
        key.private_bytes(
            encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
    _store(
        public,
        key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo),
    )
    asked.show_one(
        {"private_key": str(private), "public_key": str(public)},
        f"created {private} and {public}; the broker needs only {public}",
    )


@tokens.command("create")
@click.option("--subject", "-s", required=True, metavar="ROLE", help="Whose token it is.")
@secret_option
@click.option("--private-key", "-pk", metavar="KEY", help="The private half of a key pair.")
@click.option("--algorithm", "-a", help="How to sign; without it, as the key is made for.")
@click.option(
    "--expiry",
    "--expiry-time",
    "-e",
    "expiry",
    type=values.age,
    metavar="AGE",
    help="How long it is good, such as 12h or 30d; without it, for ever.",
)
@click.option("--audience", metavar="NAME", help="For which brokers it is.")
@click.option("--key-id", metavar="ID", help="Which of the broker's keys it is signed with.")
@click.option("--token-id", metavar="ID", help="What it is called, so that it can be revoked.")
@pass_asked
def create(
    asked: Asked,
    /,
    subject: str,
    secret_key: str | None,
    private_key: str | None,
    **claims: Any,
) -> None:
    """Create a token for a ROLE, and write it to standard output.

    \b
      magnetar tokens create --secret-key my.key --subject sensors --expiry 30d
    """  # noqa: D301 - click keeps the lines after a \b as they are
    key, algorithms = _signing_key(secret_key, private_key)
    algorithm = claims["algorithm"] or algorithms[0]
    if algorithm not in algorithms:
        raise CommandError(
            f"this key cannot sign with {algorithm}",
            f"it can with {', '.join(algorithms)}",
            ExitCode.USAGE,
        )
    if not subject or not subject.isprintable():
        raise CommandError("a role is a printable text", "", ExitCode.USAGE)
    expiry = claims["expiry"]
    told = {
        "sub": subject,
        "exp": None if expiry is None else values.now_ms() // 1000 + expiry,
        "aud": claims["audience"],
        "jti": claims["token_id"],
    }
    token = signed(
        {name: value for name, value in told.items() if value is not None},
        key,
        algorithm,
        claims["key_id"],
    )
    asked.show_one({"token": token, "subject": subject, "expires_s": told["exp"]}, token)


@tokens.command("show")
@click.argument("token", required=False)
@click.option("--token-file", "-f", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@pass_asked
def show(asked: Asked, token: str | None, token_file: Path | None) -> None:
    """Show what a TOKEN says, without asking whether it is true.

    Without TOKEN, it is read from --token-file, MAGNETAR_TOKEN or standard input.
    """
    import jwt  # noqa: PLC0415 - loaded when needed

    text = given_token(token, token_file)
    try:
        header = jwt.get_unverified_header(text)
        claims = jwt.decode(text, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        raise _no_token() from None
    asked.show_one({"header": header, "claims": claims}, _claims_text(header, claims))


@tokens.command("validate")
@click.argument("token", required=False)
@click.option("--token-file", "-f", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@secret_option
@click.option("--public-key", "-pk", metavar="KEY", help="The public half of a key pair.")
@click.option("--audience", metavar="NAME", help="For whom it has to be.")
@pass_asked
def validate(
    asked: Asked, /, token: str | None, token_file: Path | None, audience: str | None, **key: Any
) -> None:
    """Check that a TOKEN was signed with a key and is good now; exit code 1 if not."""
    import jwt  # noqa: PLC0415 - loaded when needed

    text = given_token(token, token_file)
    verifying, algorithms = _verifying_key(key["secret_key"], key["public_key"])
    try:
        claims = jwt.decode(
            text,
            verifying,
            algorithms=algorithms,
            audience=audience,
            options={"verify_aud": audience is not None},
        )
    except jwt.ExpiredSignatureError:
        raise CommandError(
            "the token has expired", "make another with `magnetar tokens create`"
        ) from None
    except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError, jwt.InvalidKeyError):
        raise CommandError("the token was not signed with this key") from None
    except jwt.InvalidAudienceError:
        raise CommandError("the token is for another audience") from None
    except jwt.ImmatureSignatureError:
        raise CommandError("the token is not valid yet") from None
    except jwt.InvalidTokenError:
        raise _no_token() from None
    asked.show_one({"valid": True, "claims": claims}, _claims_text({}, claims))


def signed(
    claims: Mapping[str, Any], key: Any, algorithm: str = "HS256", key_id: str | None = None
) -> str:
    """Return a token."""
    import jwt  # noqa: PLC0415 - loaded when needed

    headers = {} if key_id is None else {"kid": key_id}
    try:
        return jwt.encode(dict(claims), key, algorithm=algorithm, headers=headers)
    except jwt.InvalidKeyError as error:  # a public key as a secret, for instance
        raise CommandError(f"tokens are not signed with that: {error}") from None


def given_token(token: str | None, file: Path | None) -> str:
    """Return a token from wherever it was given."""
    text = token
    if text is None and file is not None:
        text = file.read_text("ascii", "replace")
    if text is None:
        text = os.environ.get("MAGNETAR_TOKEN") or sys.stdin.read(TOKEN_BYTES_MAX + 1)
    if len(text) > TOKEN_BYTES_MAX:
        raise CommandError(f"a token has at most {TOKEN_BYTES_MAX} characters")
    return text.strip()


def _no_token() -> CommandError:
    return CommandError("that is no token", "expected three parts with dots between them")


def _claims_text(header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    lines = [f"{name:9} {value}" for name, value in header.items() if name != "typ"]
    for name, value in claims.items():
        shown = value
        if name in {"exp", "nbf", "iat"} and isinstance(value, int | float):
            shown = f"{value} ({values.time_text(int(value * 1000))})"
        lines.append(f"{name:9} {shown}")
    return "\n".join(lines)


def _signing_key(secret: str | None, private: str | None) -> tuple[Any, list[str]]:
    if (secret is None) == (private is None):
        raise CommandError("name one key", "--secret-key KEY or --private-key KEY", ExitCode.USAGE)
    return keys.secret_key(secret) if secret is not None else keys.private_key(str(private))


def _verifying_key(secret: str | None, public: str | None) -> tuple[Any, list[str]]:
    if (secret is None) == (public is None):
        raise CommandError("name one key", "--secret-key KEY or --public-key KEY", ExitCode.USAGE)
    return keys.secret_key(secret) if secret is not None else keys.public_key(str(public))


def _store(path: Path, data: bytes) -> None:
    files = DiskFiles()
    if files.exists(path):
        raise CommandError(f"{path} is there already", "a key is never replaced; name another file")
    files.make_dir(path.absolute().parent)
    files.write_whole(path, data)
