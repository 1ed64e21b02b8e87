"""The tables and plots of docs/performance.md, made from results; the words around them stay."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.goals import figures

PAGE = Path("docs/performance.md")
PLOTS = Path("docs/performance")
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
Row = Mapping[str, Any]


def write_report(result: Mapping[str, Any], page: Path = PAGE, folder: Path = PLOTS) -> None:
    """Draw the plots, and put the tables between the two marks of the page."""
    made = plots.draw(result["rows"], folder)
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{measured(result, made)}\n{END}{after}")


def measured(result: Mapping[str, Any], made: Sequence[tuple[str, str]] = ()) -> str:
    """Return the Markdown of the results."""
    rows: Sequence[Row] = result["rows"]
    compared = [row for row in rows if not row["series"]]
    machine = result["machine"]
    lines = [
        (
            f"{machine['cores']} cores of {machine['cpu']}, {machine['system']}, Python"
            f" {machine['python']}. {forms(rows)}"
        ),
        "",
        *table([row for row in compared if row["kind"] not in {"latency", "idle"}]),
        "",
        (
            "\\* client-bound: the generator needed more than half of the server's CPU."
            " Only the CPU per message counts."
        ),
        "",
        *latency_table([row for row in compared if row["kind"] == "latency"]),
        "",
        *idle_table([row for row in compared if row["kind"] == "idle"]),
        "",
        *promises(compared),
    ]
    lines += [f"* {name}: not measured here; {why}" for name, why in result["absent"].items()]
    lines += ["", "### Figures to reach", "", *goals(rows), ""]
    for title, name in made:
        lines += [f"### {title}", "", f"![{title}](performance/{name})", ""]
    return "\n".join(lines).rstrip()


def forms(rows: Sequence[Row]) -> str:
    """Return when, how long and under what conditions the rows were measured."""
    found: dict[str, None] = {}
    for row in rows:
        counted = len(row["rounds"]) + len(row["failed"])
        seconds = row["load"]["seconds"]
        note = f", {row['note']}" if row.get("note") else ""
        text = f"{row['date']}, {row['form']} form: {counted} rounds of {seconds:g} s{note}"
        found.setdefault(text)
    return "Measured " + "; ".join(found) + "."


def table(rows: Sequence[Row]) -> list[str]:
    """Return what was published and consumed as fast as it went."""
    lines = [
        (
            "| what | server | messages/s | MiB/s | server CPU, us per message"
            " | CPU against Magnetar | generator CPU, us | written per byte | memory, MiB"
            " | in flight |"
        ),
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    ours = {row["work"]: row["median"] for row in rows if row["server"] == "Magnetar"}
    for row in rows:
        seen, name = row["median"], row["work"]
        if not seen:
            lines.append(f"| {name} | {row['server']} | did not finish | | | | | | | |")
            continue
        own = ours.get(name, {}).get("server_cpu_us")
        ratio = f"{seen['server_cpu_us'] / own:.2f}x" if own else ""
        written = "written_per_byte" in seen and row["load"]["mode"] == "publish"
        lines.append(
            f"| {name} | {row['server']} | {seen['messages_per_s']:,.0f}"
            f"{' *' if row['client_bound'] else ''} | {seen['mib_per_s']:,.1f}"
            f" | {seen['server_cpu_us']:.2f} | {ratio} | {seen['generator_cpu_us']:.2f}"
            f" | {format(seen['written_per_byte'], '.2f') if written else ''}"
            f" | {seen['server_memory_bytes'] / 2**20:,.0f} | {seen['window']:,.0f} |"
        )
    return lines


def latency_table(rows: Sequence[Row]) -> list[str]:
    """Return times to receipt."""
    lines = [
        (
            "| what | server | p50, ms | p99, ms | p99.9, ms | server CPU, us per message"
            " | memory, MiB |"
        ),
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        if not (seen := row["median"]):
            lines.append(f"| {row['work']} | {row['server']} | did not finish | | | | |")
            continue
        times = " | ".join(f"{seen[name]:.2f}" for name in ("p50_ms", "p99_ms", "p999_ms"))
        lines.append(
            f"| {row['work']} | {row['server']} | {times} | {seen['server_cpu_us']:.0f}"
            f" | {seen['server_memory_bytes'] / 2**20:,.0f} |"
        )
    return lines if rows else []


def idle_table(rows: Sequence[Row]) -> list[str]:
    """Return what servers use when nobody does anything."""
    lines = ["| what | server | per cent of a core | memory, MiB |", "|---|---|---:|---:|"]
    for row in rows:
        if not (seen := row["median"]):
            lines.append(f"| {row['work']} | {row['server']} | did not finish | |")
            continue
        memory = seen["server_memory_bytes"] / 2**20
        used = seen["idle_cpu_percent"]
        lines.append(f"| {row['work']} | {row['server']} | {used:.2f} | {memory:,.0f} |")
    return lines if rows else []


def promises(rows: Sequence[Row]) -> list[str]:
    """Return what an acknowledgement of each server means."""
    means = {row["server"]: row["acknowledged_means"] for row in rows}
    told = [f"* {server}: {meaning}" for server, meaning in means.items()]
    return ["What an acknowledgement means:", "", *told]


def goals(rows: Sequence[Row]) -> list[str]:
    """Return every figure to reach of which something was seen."""
    lines = ["| figure | goal | seen | reached |", "|---|---:|---:|---|"]
    for each in figures(rows):
        reached = "yes" if each.reached else "no"
        lines.append(f"| {each.what} | {each.goal} | {each.seen:.2f} | {reached} |")
    return lines
