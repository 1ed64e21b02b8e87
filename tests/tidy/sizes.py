"""Lines per file, and what the last commit added: a report, read by people. Nothing fails.

`make sizes`. Looked to: tinygrad's line count.
"""

import subprocess
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
SHOWN = 15


def main() -> None:
    """Print the report."""
    out = sys.stdout.write
    for top in ("src", "tests", "benchmarks"):
        sizes = {
            path.relative_to(ROOT): len(path.read_text().splitlines())
            for path in (ROOT / top).rglob("*.py")
            if "generated" not in path.parts
        }
        if not sizes:
            continue
        lines = sorted(sizes.values())
        out(
            f"\n{top}: {len(lines)} files, {sum(lines)} lines; median {median(lines):.0f},"
            f" nine of ten up to {lines[len(lines) * 9 // 10]}, largest {lines[-1]}\n"
        )
        for path, count in sorted(sizes.items(), key=lambda item: -item[1])[:SHOWN]:
            out(f"{count:7} {path}\n")
    done = subprocess.run(
        ["git", "diff", "--shortstat", "HEAD~1", "--", "src", "tests"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        out(f"\nlast commit: {done.stdout.strip() or 'nothing here'}\n")


if __name__ == "__main__":
    main()
