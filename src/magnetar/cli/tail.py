"""`magnetar tail`: follow a topic from anywhere, without a subscription."""

import click

from magnetar.cli import values
from magnetar.cli.errors import ExitCode
from magnetar.cli.messages import received
from magnetar.cli.verb import Asked, Verb, pass_asked
from magnetar.client.follow import follow
from magnetar.client.rest import AdminError
from magnetar.names import TopicName


@click.command(cls=Verb)
@click.argument("topic")
@click.option(
    "--from",
    "start",
    type=values.start,
    metavar="earliest|latest|TIME",
    default="latest",
    show_default=True,
    help="Where to start: 2026-01-31T12:00:00Z, 15m (ago) or ms are times; before 1970 is"
    " earliest.",
)
@click.option("--count", "-n", type=click.IntRange(min=1), help="Stop after so many messages.")
@click.option("--until-end", is_flag=True, help="Stop when nothing more is there.")
@click.option("--meta", is_flag=True, help="Print id, time, key and properties, too.")
@pass_asked
def tail(  # noqa: PLR0913, PLR0917 - one argument per option
    asked: Asked,
    topic: str,
    start: str | int,
    count: int | None,
    until_end: bool,
    meta: bool,
) -> None:
    """Follow a topic without a subscription.

    Nothing is acknowledged, and nothing is left behind: a topic that is not there is an
    error, and not made.

    \b
      magnetar tail orders
      magnetar tail orders --from 1h --until-end
    """  # noqa: D301 - click keeps the lines after a \b as they are
    with asked.cluster() as cluster:
        _demand(asked, topic)
        try:
            messages = follow(cluster, topic, start, until_end=until_end)
            for number, message in enumerate(messages, 1):
                received(message).print(as_json=asked.json, meta=meta)
                if number == count:
                    messages.close()
        except KeyboardInterrupt:
            raise click.exceptions.Exit(ExitCode.INTERRUPTED) from None


def _demand(asked: Asked, topic: str) -> None:
    """Check that there is such a topic: opening a reader would make it.

    A non-persistent topic is there only while somebody uses it, and may be waited for.

    Raises:
        AdminError: there is none.
    """
    if not TopicName.parse(topic).persistent:
        return
    try:
        with asked.admin() as admin:
            if not admin.partitions(topic):
                admin.stats(topic)  # no partitions, or no topic?
    except AdminError as error:
        if error.status:
            raise
        asked.remark(f"{error}; cannot ask whether {topic} exists, it is made if not")
