"""`magnetar schemas`: see, add and delete the schemas of topics, through admin REST."""

from collections.abc import Callable, Sequence
from typing import IO, Any, TypeVar

import click

from magnetar.cli import values
from magnetar.cli.values import time_text
from magnetar.cli.verb import Asked, Noun, pass_asked

TYPES = (
    "AVRO", "JSON", "PROTOBUF", "PROTOBUF_NATIVE", "KEY_VALUE", "STRING", "BOOLEAN",
    "INT8", "INT16", "INT32", "INT64", "FLOAT", "DOUBLE", "DATE", "TIME", "TIMESTAMP",
    "INSTANT", "LOCAL_DATE", "LOCAL_TIME", "LOCAL_DATE_TIME", "EXTERNAL",
)  # fmt: skip

Function = TypeVar("Function", bound=Callable[..., Any])


@click.group(cls=Noun)
def schemas() -> None:
    """See, add and delete the schemas of topics."""


def takes_schema(function: Function) -> Function:
    """Let a command be given a schema."""
    for decorate in (
        click.argument("topic"),
        click.option(
            "--type",
            "kind",
            required=True,
            type=click.Choice(TYPES, case_sensitive=False),
            help="What the definition is.",
        ),
        click.option(
            "--file",
            "file",
            type=click.File("r", encoding="utf-8"),
            help="The definition; `-` is standard input. Types such as STRING need none.",
        ),
        click.option(
            "--property",
            "properties",
            type=values.key_value,
            metavar="KEY=VALUE",
            multiple=True,
            help="May be repeated.",
        ),
    ):
        function = decorate(function)
    return function


@schemas.command("get")
@click.argument("topic")
@click.option("--version", type=click.IntRange(min=0), help="Instead of the latest.")
@pass_asked
def get(asked: Asked, topic: str, version: int | None) -> None:
    """Show the schema of a TOPIC: its definition, or its type if it has none."""
    with asked.admin() as admin:
        found = admin.schema(topic, version)
    asked.show_one(found, found["data"] or found["type"])


@schemas.command("list")
@click.argument("topic")
@pass_asked
def list_schemas(asked: Asked, topic: str) -> None:
    """List the versions of a TOPIC's schema."""
    with asked.admin() as admin:
        found = admin.schemas(topic)
    if asked.json:
        asked.show_one(found)
        return
    rows = [
        {
            "version": each["version"],
            "type": each["type"],
            "added": time_text(int(each["timestamp"])),
            "characters": len(each["data"]),
        }
        for each in found
    ]
    asked.show(rows, ("version", "type", "added", "characters"))


@schemas.command("upload")
@takes_schema
@pass_asked
def upload(
    asked: Asked,
    topic: str,
    kind: str,
    file: IO[str] | None,
    properties: Sequence[tuple[str, str]],
) -> None:
    """Add a schema to a TOPIC, which need not be there yet."""
    definition = file.read() if file else ""
    with asked.admin() as admin:
        version = admin.add_schema(topic, kind, definition, dict(properties))
    asked.show_one({"topic": topic, "version": version}, f"{topic}: version {version}")


@schemas.command("compatibility")
@takes_schema
@pass_asked
def compatibility(
    asked: Asked,
    topic: str,
    kind: str,
    file: IO[str] | None,
    properties: Sequence[tuple[str, str]],
) -> int:
    """Say whether a schema could be added to a TOPIC; exit code 1 if it could not."""
    definition = file.read() if file else ""
    with asked.admin() as admin:
        compatible, strategy = admin.schema_compatibility(topic, kind, definition, dict(properties))
    told = {"topic": topic, "compatible": compatible, "strategy": strategy}
    words = "compatible" if compatible else "not compatible"
    asked.show_one(told, f"{topic}: {words} ({strategy})")
    return 0 if compatible else 1


@schemas.command("delete")
@click.argument("topic")
@click.option("--force", is_flag=True, help="Forget all versions; the next one is 0 again.")
@pass_asked
def delete(asked: Asked, topic: str, force: bool) -> None:
    """Delete the schema of a TOPIC: its versions so far cannot be seen any more."""
    with asked.admin() as admin:
        version = admin.delete_schema(topic, force=force)
    told = {"topic": topic, "deleted": True, "version": version}
    asked.show_one(told, f"deleted the schema of {topic}")
