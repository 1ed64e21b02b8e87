"""`magnetar bench`: how fast a broker is, and what it costs; ours, or any that speaks the same.

    magnetar bench publish | consume | latency | fan-out | topics

The load comes from a process of its own over raw sockets: the official client's callbacks cost
more than the broker does. Where the broker runs on this machine, and its process may be looked at,
its CPU, memory and disk writes are reported, too.
"""

import math
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Self

import click

from magnetar.bench import running
from magnetar.bench.load import Load, LoadError, RunError, Where
from magnetar.bench.running import Server
from magnetar.cli.errors import CommandError, ExitCode
from magnetar.cli.verb import Asked, Noun, pass_asked
from magnetar.client.address import service_addresses
from magnetar.client.rest import AdminError
from magnetar.names import NamespaceName

KIB = 1024
BACKLOG_MESSAGES = 200_000
BACKLOG_BYTES = 200 * KIB * KIB
MANY_TOPICS = 10_000
Options = dict[str, Any]


def option(name: str, low: float, high: float, default: float, text: str) -> Callable[..., Any]:
    """Return an option that holds a whole number within bounds."""
    return click.option(
        name,
        type=click.IntRange(int(low), int(high)),
        default=int(default),
        show_default=True,
        help=text,
    )


class Within(click.FloatRange):
    """A number within bounds. What is no number is in no bounds either."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        found: float = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value!r} is no number", param, ctx)
        return found


SIZE = option("--size", 1, 5 * KIB * KIB, KIB, "Bytes of a message.")
BATCH = option("--batch", 1, 10_000, 1, "Messages in one entry; 1: unbatched.")
CONNECTIONS = option("--connections", 1, 1_000, 1, "Connections, and producers on each topic.")
TOPICS = option("--topics", 1, 100_000, 1, "Topics to spread it over.")
WINDOW = option("--window", 1, 100_000, 4_000, "Entries in flight per connection.")
WINDOW_BYTES = option(
    "--window-bytes", 1, 2**30, 4 * KIB * KIB, "Bytes in flight per connection, at most."
)
PERMITS = option("--permits", 1, 1_000_000, 1_000, "Messages a consumer asks for ahead.")
MESSAGES = click.option(
    "--messages",
    type=click.IntRange(1, 10**9),
    help=f"Messages of the backlog. [default: {BACKLOG_MESSAGES:,}, or 200 MiB if that is less]",
)
SECONDS = click.option(
    "--seconds",
    type=Within(0.1, 86_400),
    default=10.0,
    show_default=True,
    help="How long to measure, after the warm-up.",
)
WARM_UP = click.option(
    "--warm-up",
    type=Within(0, 3_600),
    default=1.0,
    show_default=True,
    help="Seconds before that.",
)
RATE = click.option(
    "--rate",
    type=Within(0.1, 100_000),
    default=1_000.0,
    show_default=True,
    help="Messages per second.",
)
ACKNOWLEDGE = click.option(
    "--acknowledge",
    type=click.Choice(["individual", "cumulative"]),
    default="individual",
    show_default=True,
    help="Each entry, or up to the last of each read.",
)
TYPE = click.option(
    "--type",
    "shared",
    type=click.Choice(["shared", "exclusive"]),
    default="shared",
    show_default=True,
    callback=lambda _, __, value: value == "shared",
    help="Kind of the subscriptions.",
)
NAMESPACE = click.option(
    "--namespace",
    default="public/default",
    show_default=True,
    help="Where topics of its own are made for the run.",
)
KEEP = click.option("--keep", is_flag=True, help="Leave these topics there.")
PID = click.option(
    "--server-pid",
    type=click.IntRange(2),
    help="The broker's process; without it, whoever listens at a local --url.",
)

READING = (SIZE, BATCH, TOPICS, WINDOW, WINDOW_BYTES, MESSAGES, PERMITS, ACKNOWLEDGE, TYPE)


def options(*chosen: Callable[..., Any]) -> Callable[..., Any]:
    """Return a decorator that gives a command these options, and those that all have."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for each in reversed((*chosen, NAMESPACE, KEEP, PID)):
            function = each(function)
        return function

    return decorate


@click.group(cls=Noun)
def bench() -> None:
    """Measure how fast a broker is, and what it costs.

    Works on topics of its own, which are deleted in the end. It takes what the broker can give:
    think twice before you point it at one that others use.
    """


@bench.command("publish")
@options(SIZE, BATCH, CONNECTIONS, TOPICS, WINDOW, WINDOW_BYTES, SECONDS, WARM_UP)
@pass_asked
def publish(asked: Asked, /, **told: Any) -> None:
    """Publish as fast as receipts come back."""
    with Bench(asked, told) as run:
        run.show(run.measure("publish"))


@bench.command("consume")
@options(*READING, CONNECTIONS)
@pass_asked
def consume(asked: Asked, /, **told: Any) -> None:
    """Publish a backlog, then read and acknowledge it as fast as it comes."""
    with Bench(asked, told) as run:
        run.show(run.measure("consume", subscriptions=1))


@bench.command("fan-out")
@options(*READING)
@option("--subscriptions", 1, 1_000, 10, "How many read everything.")
@pass_asked
def fan_out(asked: Asked, /, **told: Any) -> None:
    """Publish a backlog that several subscriptions then read at the same time.

    Messages count as often as they are delivered.
    """
    with Bench(asked, told) as run:
        run.show(run.measure("consume"))


@bench.command("latency")
@options(SIZE, RATE, SECONDS, WARM_UP)
@pass_asked
def latency(asked: Asked, /, **told: Any) -> None:
    """Publish one message at a time at a steady rate, and time the receipts.

    The time counts from when a message was due, so that a stall shows in all that it held up.
    """
    with Bench(asked, told) as run:
        run.show(run.measure("latency"))


@bench.command("topics")
@options(SIZE, BATCH, CONNECTIONS, WINDOW, WINDOW_BYTES, SECONDS, WARM_UP)
@option("--topics", 2, 100_000, MANY_TOPICS, "How many topics to compare one with.")
@pass_asked
def topics(asked: Asked, /, **told: Any) -> None:
    """Publish to one topic, then the same to many, and compare."""
    with Bench(asked, told) as run:
        one, many = run.measure("publish", topics=1), run.measure("publish")
        ratio = {"throughput_ratio": many["messages_per_s"] / one["messages_per_s"]}
        if "server_cpu_us" in one and "server_cpu_us" in many:
            ratio["cpu_ratio"] = many["server_cpu_us"] / max(1e-9, one["server_cpu_us"])
        told_text = f"{many['topics']:,} topics against one: {ratio['throughput_ratio']:.2f}x"
        if "cpu_ratio" in ratio:
            told_text += f", at {ratio['cpu_ratio']:.2f}x the CPU per message"
        asked.show_one(
            {"one": one, "many": many, **ratio},
            "\n".join(["one topic", text_of(one), "", "many", text_of(many), "", told_text]),
        )


class Bench:
    """One command: its runs, and the topics that they leave behind."""

    def __init__(self, asked: Asked, told: Options) -> None:
        """Find the server, where it can be seen.

        Raises:
            AddressError: the address of the cluster makes no sense.
        """
        self._asked, self._told = asked, told
        service_addresses(asked.url)
        self._where = Where.of(asked.url, asked.credentials)
        self._namespace = NamespaceName.parse(told["namespace"])
        self._server = Server.of(told["server_pid"]) if told["server_pid"] else None
        self._made: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Delete the topics; one that cannot be deleted is named."""
        if not self._made or self._told["keep"]:
            return
        try:
            with self._asked.admin() as admin:
                for topic in self._made:
                    admin.delete_topic(topic, force=True)
        except AdminError as error:
            if error.status != 404:
                self._asked.remark(f"topics such as {self._made[0]} were left there: {error}")

    def measure(self, mode: str, **changed: Any) -> Options:
        """Run one load; return its conditions and its figures."""
        load = self._load(mode, changed)
        try:
            load.check()
        except LoadError as error:
            raise click.UsageError(str(error)) from None
        server = self._server or running.server_at(load.where.url)
        self._made += [load.topic(number) for number in range(load.topics)]
        try:
            found = running.run(load, server)
        except RunError as error:
            if error.nobody_answers:
                self._made.clear()
            code = ExitCode.NO_ANSWER if error.nobody_answers else ExitCode.FAILED
            raise CommandError(str(error), error.advice, code) from error
        return running.conditions(load) | {"server_pid": server.pid if server else None} | found

    def _load(self, mode: str, changed: Mapping[str, Any]) -> Load:
        told = self._told | dict(changed)
        size = told["size"]
        named: Options = {
            "where": self._where,
            "prefix": f"persistent://{self._namespace}/bench-{secrets.token_hex(4)}",
            "size_bytes": size,
            "warm_up_s": told.get("warm_up"),
            "window_entries": told.get("window"),
        }
        if mode == "consume":
            messages = told["messages"] or min(BACKLOG_MESSAGES, BACKLOG_BYTES // size)
            named["messages"] = max(messages - messages % told["batch"], messages and told["batch"])
        same = {name: told.get(name) for name in Load.__struct_fields__ if name not in named}
        given = {name: value for name, value in (named | same).items() if value is not None}
        return Load(**given | {"mode": mode})

    def show(self, found: Options) -> None:
        """Print one run."""
        self._asked.show_one(found, text_of(found))


def text_of(found: Mapping[str, Any]) -> str:
    """Return what a person looks for first."""
    load = (
        f"{found['size_bytes']:,} B x {found['batch']:,} per entry,"
        f" {found['connections']:,} connections, {found['topics']:,} topics,"
        f" {found['entries_in_flight_per_connection']:,} entries in flight"
    )
    rate = f"{found['messages_per_s']:,.0f} messages/s, {found['mib_per_s']:,.1f} MiB/s"
    lines = [f"load           {load}", f"rate           {rate}"]
    if "p50_ms" in found:
        times = (f"{found[name]:.2f}" for name in ("p50_ms", "p99_ms", "p999_ms", "max_ms"))
        lines.append(f"to receipt     {' / '.join(times)} ms (p50 / p99 / p99.9 / most)")
    lines.append(f"generator CPU  {found['generator_cpu_us']:.2f} us per message")
    if "server_cpu_us" not in found:
        lines.append("server         not on this machine, or not to be looked at: no figures of it")
        return "\n".join(lines)
    lines.append(f"server CPU     {found['server_cpu_us']:.2f} us per message")
    if "written_per_byte" in found:
        lines.append(f"disk           {found['written_per_byte']:.2f} bytes written per byte")
    lines.append(f"server memory  {found['server_memory_bytes'] / 2**20:,.0f} MiB")
    if found["client_bound"]:
        lines.append("client-bound: the generator was the limit; only the CPU per message counts")
    return "\n".join(lines)
