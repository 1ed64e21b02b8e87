"""Writes docs/reference/settings.md from what `broker/config.py` declares.

python tests/tidy/settings_page.py > docs/reference/settings.md
"""

import ast
import inspect
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from magnetar.broker import config

HEAD = """\
# Settings

Made from `broker/config.py` by `tests/tidy/settings_page.py`; a test keeps the two alike.

A setting comes from the TOML file named by `--config` (section `[settings]`), then from the
environment (`MAGNETAR_` and the name in capitals), then from a flag where there is one. A value
out of bounds is refused at the start, with the bounds. Sizes are bytes; `_s` are seconds, `_ms`
milliseconds. What bounds memory holds for the data folder and is divided among its workers.

```toml
[settings]
journal_window_ms = 0.5
retention_time_min = 10080
```

Those marked live may be changed while the broker runs, by `magnetar config set` or admin REST
(`brokers/configuration`, also under Pulsar's name where one is given): durable, and the same in
all processes within a second. Rates of the whole broker are divided among its processes. Under
Pulsar's name its unit holds: `managedLedgerCacheSizeMB` 64 is `read_cache_bytes_max` 67108864. How
far a program may turn them at once: [knobs](../knobs.md).

| setting | default | allowed | live | what it does |
|---|---|---|---|---|
"""
SET_BY_FLAGS = {"data", "worker", "workers"}


def page() -> str:
    """Return the page as it should be."""
    said = descriptions()
    rows = [
        f"| `{each.name}` | {_shown(each.default)} | {_bounds(each.metadata)}"
        f" | {_live(each.metadata)} | {said[each.name]} |"
        for each in fields(config.BrokerConfig)
        if each.name not in SET_BY_FLAGS
    ]
    return HEAD + "\n".join(rows) + "\n"


def descriptions() -> dict[str, str]:
    """Return the string below each field, in one line; empty where there is none."""
    [declared] = ast.parse(inspect.getsource(config.BrokerConfig)).body
    assert isinstance(declared, ast.ClassDef)
    found: dict[str, str] = {}
    name = ""
    for node in declared.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
            found[name] = ""
        elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found[name] = " ".join(str(node.value.value).split())
    return found


def _shown(value: object) -> str:
    if value is MISSING:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else f"`{value}`"


def _bounds(metadata: Mapping[str, Any]) -> str:
    if "words" in metadata:
        return ", ".join(map(_shown, metadata["words"]))
    return f"{_shown(metadata['low'])} to {_shown(metadata['high'])}" if "low" in metadata else ""


def _live(metadata: Mapping[str, object]) -> str:
    if not metadata.get("live"):
        return ""
    pulsar = metadata["pulsar"]
    return f"live, `{pulsar}`" if pulsar else "live"


if __name__ == "__main__":
    sys.stdout.write(page())
