"""`magnetar permissions`: what roles may do on a namespace or a topic, through admin REST."""

from collections.abc import Sequence

import click

from magnetar.cli.errors import write_out
from magnetar.cli.verb import Asked, Noun, pass_asked

ACTIONS = ("produce", "consume", "functions", "sources", "sinks", "packages")


@click.group(cls=Noun)
def permissions() -> None:
    """See, grant and revoke what roles may do.

    WHERE is a namespace (tenant/namespace) or a topic (tenant/namespace/topic).
    """


@permissions.command("list")
@click.argument("where")
@pass_asked
def list_permissions(asked: Asked, where: str) -> None:
    """List what is granted on WHERE; for a topic, by its namespace too."""
    with asked.admin() as admin:
        granted = admin.permissions(where)
    if asked.json:
        asked.show_one(granted)
    else:
        lines = (f"{role}  {', '.join(sorted(granted[role]))}\n" for role in sorted(granted))
        write_out("".join(lines), newline=False)


@permissions.command("grant")
@click.argument("where")
@click.argument("role")
@click.argument("actions", nargs=-1, required=True, type=click.Choice(ACTIONS))
@pass_asked
def grant(asked: Asked, where: str, role: str, actions: Sequence[str]) -> None:
    """Let ROLE do exactly these ACTIONS on WHERE.

    \b
      magnetar permissions grant public/default sensors produce
      magnetar permissions grant public/default/readings reports consume
    """  # noqa: D301 - click keeps the lines after a \b as they are
    with asked.admin() as admin:
        admin.grant(where, role, list(actions))
    told = {"where": where, "role": role, "actions": list(actions)}
    asked.show_one(told, f"{role} may {' and '.join(actions)} on {where}")


@permissions.command("revoke")
@click.argument("where")
@click.argument("role")
@pass_asked
def revoke(asked: Asked, where: str, role: str) -> None:
    """Take back what ROLE was granted on WHERE."""
    with asked.admin() as admin:
        admin.revoke(where, role)
    asked.show_one({"where": where, "role": role, "revoked": True}, f"revoked {role} on {where}")
