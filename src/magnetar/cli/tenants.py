"""`magnetar tenants`: list, show, create, change and delete tenants, through admin REST."""

from collections.abc import Sequence

import click

from magnetar.cli.verb import Asked, Noun, pass_asked

_ROLES = click.option("--role", "roles", multiple=True, help="Who may administer it; repeatable.")
_CLUSTERS = click.option(
    "--cluster", "clusters", multiple=True, help="Where it may be used; repeatable."
)


@click.group(cls=Noun)
def tenants() -> None:
    """List, create, change and delete tenants."""


@tenants.command("list")
@pass_asked
def list_tenants(asked: Asked) -> None:
    """List all tenants."""
    with asked.admin() as admin:
        found = sorted(admin.tenants())
    asked.show_names(found)


@tenants.command("show")
@click.argument("tenant")
@pass_asked
def show(asked: Asked, tenant: str) -> None:
    """Show who may administer a TENANT, and on which clusters."""
    with asked.admin() as admin:
        asked.show_one(admin.tenant(tenant))


@tenants.command("create")
@click.argument("tenant")
@_ROLES
@_CLUSTERS
@pass_asked
def create(asked: Asked, tenant: str, roles: Sequence[str], clusters: Sequence[str]) -> None:
    """Create a TENANT; without --cluster, one that may be used on all there are."""
    with asked.admin() as admin:
        admin.create_tenant(tenant, list(clusters) or None, list(roles))
    asked.show_one({"tenant": tenant}, f"created {tenant}")


@tenants.command("update")
@click.argument("tenant")
@_ROLES
@_CLUSTERS
@pass_asked
def update(asked: Asked, tenant: str, roles: Sequence[str], clusters: Sequence[str]) -> None:
    """Say anew who may administer a TENANT; without --cluster, it is used where it was."""
    with asked.admin() as admin:
        where = list(clusters) or list(admin.tenant(tenant)["allowedClusters"])
        admin.update_tenant(tenant, where, list(roles))
    asked.show_one({"tenant": tenant}, f"changed {tenant}")


@tenants.command("delete")
@click.argument("tenant")
@click.option("--force", is_flag=True, help="Its namespaces and their topics, too.")
@pass_asked
def delete(asked: Asked, tenant: str, force: bool) -> None:
    """Delete a TENANT."""
    with asked.admin() as admin:
        admin.delete_tenant(tenant, force=force)
    asked.show_one({"tenant": tenant, "deleted": True}, f"deleted {tenant}")
