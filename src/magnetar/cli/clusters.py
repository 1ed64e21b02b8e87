"""`magnetar clusters`: this cluster and others it knows by name, through admin REST."""

import click

from magnetar.cli.verb import Asked, Noun, pass_asked


@click.group(cls=Noun)
def clusters() -> None:
    """List clusters, and make others known."""


@clusters.command("list")
@pass_asked
def list_clusters(asked: Asked) -> None:
    """List all clusters, this one included."""
    with asked.admin() as admin:
        found = sorted(admin.clusters())
    asked.show_names(found)


@clusters.command("show")
@click.argument("cluster")
@pass_asked
def show(asked: Asked, cluster: str) -> None:
    """Show where a CLUSTER can be reached."""
    with asked.admin() as admin:
        asked.show_one(admin.cluster(cluster))


@clusters.command("create")
@click.argument("cluster")
@click.option("--service-url", required=True, help="Its HTTP port, such as http://west:8080.")
@click.option("--broker-url", default="", help="Its Pulsar port, such as pulsar://west:6650.")
@pass_asked
def create(asked: Asked, cluster: str, service_url: str, broker_url: str) -> None:
    """Make another CLUSTER known."""
    with asked.admin() as admin:
        admin.create_cluster(cluster, service_url, broker_url)
    asked.show_one({"cluster": cluster}, f"created {cluster}")


@clusters.command("delete")
@click.argument("cluster")
@pass_asked
def delete(asked: Asked, cluster: str) -> None:
    """Forget another CLUSTER."""
    with asked.admin() as admin:
        admin.delete_cluster(cluster)
    asked.show_one({"cluster": cluster, "deleted": True}, f"deleted {cluster}")
