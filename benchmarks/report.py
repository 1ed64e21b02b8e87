"""The table in docs/performance.md, made from one run's results."""

from pathlib import Path
from typing import Any

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def write_report(result: dict[str, Any], path: Path) -> None:
    """Put the table between the two marks of the page; the words around it stay."""
    text = path.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{table(result)}\n{END}{after}")


def table(result: dict[str, Any]) -> str:
    """Return the Markdown of one run."""
    machine = result["machine"]
    lines = [
        (
            f"{machine['date']}, {machine['cores']} cores of {machine['cpu']}, {machine['system']},"
            f" Python {machine['python']}; medians of {result['rounds']} interleaved rounds of"
            f" {result['seconds']:g} s each."
        ),
        "",
        (
            "| what | server | messages/s | MiB/s | server CPU, us per message"
            " | CPU against Magnetar | written per byte | memory, MiB | p50 / p99 / p99.9, ms |"
        ),
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    ours: dict[str, float] = {}
    for row in result["rows"]:
        figures, name = row["median"], row["scenario"]["name"]
        if not figures:
            lines.append(f"| {name} | {row['server']} | did not finish | | | | | | |")
            continue
        if row["server"] == "Magnetar":
            ours[name] = figures["server_cpu_us"]
        ratio = f"{figures['server_cpu_us'] / ours[name]:.2f}x" if ours.get(name) else ""
        bound = " *" if figures.get("client_cpu_us", 0) > figures["server_cpu_us"] / 2 else ""
        delays = (
            f"{figures['p50_ms']:.2f} / {figures['p99_ms']:.2f} / {figures['p999_ms']:.2f}"
            if "p50_ms" in figures
            else ""
        )
        written = f"{figures['written_per_byte']:.2f}" if "written_per_byte" in figures else ""
        lines.append(
            f"| {name} | {row['server']} | {figures['messages_per_s']:,.0f}{bound}"
            f" | {figures['mib_per_s']:,.1f} | {figures['server_cpu_us']:.2f} | {ratio}"
            f" | {written} | {figures['memory_mib']:,.0f} | {delays} |"
        )
    means = {row["server"]: row["acknowledged_means"] for row in result["rows"]}
    lines += ["", "What an acknowledgement means:", ""]
    lines += [f"* {server}: {meaning}" for server, meaning in means.items()]
    lines += ["", "\\* The load generator was the limit; only the CPU per message counts."]
    return "\n".join(lines)
