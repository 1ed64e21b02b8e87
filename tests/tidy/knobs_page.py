"""The tables in docs/knobs.md, from what `broker/knobs.py` declares.

python tests/tidy/knobs_page.py    rewrites them in place
"""

import re
from pathlib import Path

from magnetar.broker.knobs import ABSENT, KNOBS, PROCESSES, Knob

PAGE = Path(__file__).resolve().parents[2] / "docs" / "knobs.md"
HEAD = "| knob | unit | bounds for a program | step | pause | from |\n|---|---|---|---|---|---|\n"


def page(text: str) -> str:
    """Return the page as it should be, given as it is."""
    rows = "".join(map(_row, [*KNOBS.values(), PROCESSES]))
    before, after = text.split(HEAD)
    rest = after[after.index("\n`broker_processes` is what") :]
    absent = "refused: " + ", ".join(f"`{name}`" for name in ABSENT) + "."
    return before + HEAD + rows + re.sub(r"refused: .*?\.", absent, rest, count=1, flags=re.DOTALL)


def _row(knob: Knob) -> str:
    high = f"{knob.high:,}" + (f", {knob.share:.0%} of memory" if knob.share else "")
    times = [f"x{knob.up:g} or /{knob.down:g}"] if knob.up > 1 else []
    step = ", or ".join([*times, *([f"{knob.add:g}"] if knob.add else [])])
    return (
        f"| `{knob.name}` | {knob.unit} | {knob.low:,} to {high} | {step}"
        f" | {knob.interval_s:g} s | {knob.holds_from} |\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
