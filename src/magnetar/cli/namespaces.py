"""`magnetar namespaces`: list, create, delete and configure namespaces, through admin REST."""

import json
from typing import Any

import click

from magnetar.cli.values import SETTING_MAX, age, json_value, parse_seconds
from magnetar.cli.verb import Asked, Noun, pass_asked

UNLIMITED = -1
MIB = 2**20
_SIZE_UNITS = {"": MIB, "m": MIB, "mb": MIB, "mib": MIB, "g": 2**30, "gb": 2**30, "gib": 2**30}
_SIZE_UNITS |= {"t": 2**40, "tb": 2**40, "tib": 2**40}


@click.group(cls=Noun)
def namespaces() -> None:
    """List, create, delete and configure namespaces."""


@namespaces.command("list")
@click.argument("tenant", required=False)
@pass_asked
def list_namespaces(asked: Asked, tenant: str | None) -> None:
    """List the namespaces of a TENANT, or of all."""
    with asked.admin() as admin:
        found = sorted(admin.namespaces(tenant))
    asked.show_names(found)


@namespaces.command("create")
@click.argument("namespace")
@pass_asked
def create(asked: Asked, namespace: str) -> None:
    """Create a namespace, given as tenant/namespace; the tenant too if it is new."""
    with asked.admin() as admin:
        tenant = namespace.partition("/")[0]
        if "/" in namespace and tenant not in admin.tenants():
            admin.create_tenant(tenant)
        admin.create_namespace(namespace)
    asked.show_one({"namespace": namespace}, f"created {namespace}")


@namespaces.command("delete")
@click.argument("namespace")
@click.option("--force", is_flag=True, help="Its topics, too.")
@pass_asked
def delete(asked: Asked, namespace: str, force: bool) -> None:
    """Delete a namespace."""
    with asked.admin() as admin:
        admin.delete_namespace(namespace, force=force)
    asked.show_one({"namespace": namespace, "deleted": True}, f"deleted {namespace}")


@namespaces.command("policies")
@click.argument("namespace")
@pass_asked
def policies(asked: Asked, namespace: str) -> None:
    """Show everything that is set on a namespace."""
    with asked.admin() as admin:
        told = admin.namespace(namespace)
    asked.show_one({name: value for name, value in told.items() if value is not None})


@namespaces.command("set-retention")
@click.argument("namespace")
@click.option("--time", "time", required=True, help="Such as 7d; `unlimited`, or 0 for none.")
@click.option("--size", "size", required=True, help="Such as 10G; `unlimited`, or 0 for none.")
@pass_asked
def set_retention(asked: Asked, namespace: str, time: str, size: str) -> None:
    """Keep what was acknowledged for a time and up to a size, whichever comes first."""
    minutes, mebibytes = parse_minutes(time), parse_mebibytes(size)
    with asked.admin() as admin:
        admin.set_retention(namespace, minutes, mebibytes)
    asked.show_one(
        {"namespace": namespace, "retention_time_min": minutes, "retention_size_mib": mebibytes},
        f"{namespace} keeps acknowledged messages: time {time}, size {size}",
    )


@namespaces.command("set-ttl")
@click.argument("namespace")
@click.argument("seconds", metavar="AGE", type=age)
@pass_asked
def set_ttl(asked: Asked, namespace: str, seconds: int) -> None:
    """Acknowledge for everybody what is older than AGE, such as 3d; 0 means never.

    In whole seconds, rounded up.
    """
    with asked.admin() as admin:
        admin.set_policy(namespace, "messageTTL", seconds)
    asked.show_one({"namespace": namespace, "message_ttl_s": seconds}, f"{namespace}: {seconds} s")


@namespaces.command("set-deduplication")
@click.argument("namespace")
@click.argument("wanted", metavar="on|off", type=click.Choice(["on", "off"]))
@pass_asked
def set_deduplication(asked: Asked, namespace: str, wanted: str) -> None:
    """Store a message that a producer sends twice only once."""
    with asked.admin() as admin:
        admin.set_policy(namespace, "deduplication", wanted == "on")
    asked.show_one(
        {"namespace": namespace, "deduplication": wanted == "on"},
        f"{namespace}: deduplication is {wanted}",
    )


@namespaces.command("set")
@click.argument("namespace")
@click.argument("policy")
@click.argument("value", type=json_value)
@pass_asked
def set_policy(asked: Asked, namespace: str, policy: str, value: Any) -> None:
    """Set any POLICY by its admin REST name, to a VALUE: JSON, or one word."""
    with asked.admin() as admin:
        admin.set_policy(namespace, policy, value)
    shown = json.dumps(value)
    asked.show_one({"namespace": namespace, policy: value}, f"{namespace}: {policy} is {shown}")


@namespaces.command("unset")
@click.argument("namespace")
@click.argument("policy")
@pass_asked
def unset_policy(asked: Asked, namespace: str, policy: str) -> None:
    """Take a POLICY away, by its admin REST name; the default holds again."""
    with asked.admin() as admin:
        admin.remove_policy(namespace, policy)
    asked.show_one({"namespace": namespace, policy: None}, f"{namespace}: {policy} is not set")


@namespaces.command("bundles")
@click.argument("namespace")
@click.option("--split", "bundle", help="Cut one in halves before; LARGEST: that with most topics.")
@pass_asked
def bundles(asked: Asked, namespace: str, bundle: str | None) -> None:
    """Show the hash ranges that a namespace is shown in."""
    with asked.admin() as admin:
        if bundle is not None:
            admin.split_bundle(namespace, bundle)
        found = admin.bundles(namespace)
    asked.show_names(found)


@namespaces.command("unload")
@click.argument("namespace")
@pass_asked
def unload(asked: Asked, namespace: str) -> None:
    """Let the broker forget the memory of all topics; clients come back by themselves."""
    with asked.admin() as admin:
        admin.unload_namespace(namespace)
    asked.show_one({"namespace": namespace, "unloaded": True}, f"unloaded {namespace}")


@namespaces.command("clear")
@click.argument("namespace")
@click.option("--subscription", "-s", help="Of this subscription only.")
@pass_asked
def clear(asked: Asked, namespace: str, subscription: str | None) -> None:
    """Acknowledge everything in all topics, for all subscriptions or for one."""
    with asked.admin() as admin:
        admin.clear_namespace(namespace, subscription)
    asked.show_one({"namespace": namespace, "cleared": True}, f"cleared {namespace}")


def parse_minutes(text: str) -> int:
    """Return a retention time in minutes, rounded up, so that nothing goes too early.

    Raises:
        click.BadParameter: it is no time.
    """
    if text in {"unlimited", "-1"}:
        return UNLIMITED
    try:
        return _in_bounds(text, -(-parse_seconds(text) // 60), "minutes")
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def parse_mebibytes(text: str) -> int:
    """Return a retention size in MiB; a number alone is MiB.

    Raises:
        click.BadParameter: it is no size.
    """
    if text in {"unlimited", "-1"}:
        return UNLIMITED
    number = text.rstrip("abgimtABGIMT")
    unit = _SIZE_UNITS.get(text[len(number) :].lower())
    if unit is None or not number.isdecimal():
        raise click.BadParameter(f"{text!r} is no size, expected a number with M, G or T")
    return _in_bounds(text, int(number) * unit // MIB, "MiB")


def _in_bounds(text: str, number: int, unit: str) -> int:
    if number > SETTING_MAX:
        raise click.BadParameter(
            f"{text!r} is out of bounds, expected at most {SETTING_MAX} {unit}, or unlimited"
        )
    return number
