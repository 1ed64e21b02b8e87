"""Plots of the results, as SVG: what the tables say, to be seen at a glance.

matplotlib draws them: `pip install magnetar[bench]`. Nothing in them is random or dated, so that a
plot changes only when its figures do.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

Row = Mapping[str, Any]
OWN, OTHERS, LIMIT = "#c2410c", "#64748b", "#94a3b8"
COLOURS = ("#c2410c", "#94a3b8", "#0f766e", "#7c3aed", "#2563eb", "#0891b2", "#65a30d", "#ca8a04",
           "#db2777", "#4b5563", "#111827", "#9333ea")  # fmt: skip
BARS = ("publish 1 KB", "consume 1 KB", "fan-out to 10, 1 KB", "publish 128 KB")
MIB = 2**20


def draw(rows: Sequence[Row], folder: Path) -> list[tuple[str, str]]:
    """Draw whatever there are figures for; return the title and file name of each plot."""
    folder.mkdir(parents=True, exist_ok=True)
    mpl.rcParams.update(
        {
            "svg.hashsalt": "magnetar",
            "svg.fonttype": "none",
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    found = [row for row in rows if row["median"]]
    made: list[tuple[str, str]] = []
    bars = [(work, [row for row in found if row["work"] == work]) for work in BARS]
    bars = [(work, some) for work, some in bars if some]
    if bars:
        _save(folder, "throughput.svg", lambda: _bars(bars, "messages_per_s", "messages/s"))
        made.append(("Throughput", "throughput.svg"))
        _save(folder, "cpu.svg", lambda: _bars(bars, "server_cpu_us", "server CPU, us per message"))
        made.append(("Server CPU per message", "cpu.svg"))
    timed = [row for row in found if row["kind"] == "latency" and row["times_ms"]]
    if timed:
        _save(folder, "latency.svg", lambda: _latency(timed))
        made.append(("Time to receipt at 1,000 messages a second", "latency.svg"))
        memory = [("resident memory at 1,000 messages/s", timed)]
        scale = 1 / MIB
        _save(folder, "memory.svg", lambda: _bars(memory, "server_memory_bytes", "MiB", scale))
        made.append(("Resident memory at the same load", "memory.svg"))
    series = sorted({row["series"] for row in found if row["series"]})
    if series:
        _save(folder, "growth.svg", lambda: _growth(found, series))
        made.append(("Growth with " + ", ".join(series), "growth.svg"))
    return made


def _save(folder: Path, name: str, paint: Callable[[], None]) -> None:
    paint()
    plt.tight_layout()
    plt.savefig(folder / name, metadata={"Date": None}, bbox_inches="tight")
    plt.close("all")


def _bars(
    groups: Sequence[tuple[str, Sequence[Row]]], name: str, unit: str, scale: float = 1.0
) -> None:
    """One row of bars per work, one bar per server, on a logarithmic scale."""
    heights = [0.6 + 0.24 * len(rows) for _, rows in groups]
    _, axes = plt.subplots(
        *(len(groups), 1), figsize=(8, sum(heights) + 0.3), squeeze=False, height_ratios=heights
    )
    for (work, rows), axis in zip(groups, axes[:, 0], strict=True):
        values = [row["median"][name] * scale for row in rows]
        places = list(range(len(rows)))[::-1]
        axis.barh(places, values, color=[_colour(row["server"]) for row in rows], height=0.7)
        axis.set_yticks(places, [row["server"] for row in rows])
        axis.set_xscale("log")
        axis.set_title(f"{work}: {unit}", loc="left", fontsize=9)
        for place, value, row in zip(places, values, rows, strict=True):
            mark = " *" if row["client_bound"] else ""
            text = f" {value:,.0f}{mark}" if value >= 100 else f" {value:,.2f}{mark}"
            axis.text(value, place, text, va="center", fontsize=8)
        axis.set_xlim(right=max(values) * 3)


def _colour(server: str) -> str:
    if server.startswith("Magnetar"):
        return OWN
    return LIMIT if server.startswith("limit") else OTHERS


def _latency(rows: Sequence[Row]) -> None:
    """Which part of all messages took longer than so many milliseconds."""
    _, axis = plt.subplots(figsize=(8, 4.5))
    for row, colour in zip(rows, COLOURS, strict=False):
        steps = row["times_ms"]
        total = sum(count for _, count in steps)
        left = [1 - done / total for done in accumulate(count for _, count in steps)]
        times = [ms for ms, _ in steps]
        parts = [max(part, 0.5 / total) for part in left]
        width = 1.8 if row["server"].startswith("Magnetar") else 1.0
        axis.step(times, parts, label=row["server"], color=colour, lw=width)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_ylim(bottom=5e-4, top=1)
    axis.set_yticks([1, 0.5, 0.1, 0.01, 0.001], ["all", "p50", "p90", "p99", "p99.9"])
    axis.set_xlabel("milliseconds to receipt")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)


def _growth(rows: Sequence[Row], series: Sequence[str]) -> None:
    """Server CPU per message, and messages a second, as something grows."""
    count = len(series)
    _, axes = plt.subplots(2, count, figsize=(3.2 * count + 0.6, 5), squeeze=False)
    for column, each in enumerate(series):
        points = [row for row in rows if row["series"] == each]
        for axis, name, unit in (
            (axes[0, column], "server_cpu_us", "server CPU, us per message"),
            (axes[1, column], "messages_per_s", "messages/s"),
        ):
            _lines(axis, points, name)
            axis.set_title(unit, loc="left", fontsize=8)
            axis.set_xlabel({"message size": "bytes per message", "backlog": "MiB of backlog"}
                            .get(each, each))  # fmt: skip
    axes[0, 0].legend(fontsize=7)


def _lines(axis: Axes, points: Sequence[Row], name: str) -> None:
    for server in dict.fromkeys(row["server"] for row in points):
        mine = sorted((row["at"], row["median"][name]) for row in points if row["server"] == server)
        axis.plot(
            [at for at, _ in mine], [value for _, value in mine], "o-",
            label=server, color=_colour(server), ms=3, lw=1.4,
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_ylim(bottom=0)
    if name == "server_cpu_us" and max(row["median"][name] for row in points) > 50:
        axis.set_yscale("log")
        axis.set_ylim(bottom=None)
    axis.grid(alpha=0.3)
