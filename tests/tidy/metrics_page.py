"""Writes docs/reference/metrics.md from what a running broker shows.

curl -s localhost:8080/metrics | python tests/tidy/metrics_page.py > docs/reference/metrics.md

The broker should have been used: tests/conformance/test_metrics.py does, and compares.
"""

import re
import sys
from collections.abc import Iterable
from typing import NamedTuple

HEAD = """\
# Metrics

Made from what a broker that is in use shows, by `tests/tidy/metrics_page.py`; a test that moves
them keeps the two alike. `GET /metrics` on the HTTP port has all of them, of all processes.

Names, labels and units are Apache Pulsar's (checked against the sources and output of Pulsar 4), so
that dashboards and whatever steers a cluster read both alike. What Pulsar has and we have not is
left out or 0, as the last table says; no name is used for something else. Differences: where
Pulsar says `gauge` of what only grows and ends in `_total`, we say `counter`; Pulsar's labels
`broker` and `metric` are left out, because there is one broker.

* **Several processes** look like one broker under Pulsar's and BookKeeper's names: gauges are sums,
  counters are sums that do not fall when a process is restarted, `pulsar_lb_cpu_usage` and
  `pulsar_lb_bandwidth_*` are the largest, quantiles of summaries too. Names with `magnetar_` and
  `process_` have a sample for each process, with its number as `worker`.
* **Buckets** (`_le_`, `pulsar_ml_*Buckets`) hold the entries of the last whole minute, each bucket
  only its own, as in Pulsar; `pulsar_ml_*Buckets` are divided by the seconds of it. To get a
  percentile of them, add them up and interpolate. `_count` and `_sum` are those of that minute.
* **Summaries** (`quantile`) are milliseconds and those of the last whole minute; `NaN`: nothing was
  observed. `magnetar_*_seconds` are histograms since the start, `magnetar_*_quantile_seconds`
  quantiles of the last whole minute within 2 %. `magnetar brokers latency` adds up the processes.
* **Rates** are those of the time since the last look, at least a second.
* **Topics or namespaces**: with `metrics_of_topics` off (live; in Pulsar
  `exposeTopicLevelMetricsInPrometheus`) families of topics are those of namespaces, without
  `topic`. `metrics_of_producers`, `metrics_of_consumers` and `metrics_of_bundles` are switches,
  too. With more than 500 topics published to in a process, buckets are those of namespaces; with
  more than 1,000 clients, none is shown singly.
* **What it costs**: counting is a few additions per run and commit, nothing per message
  ([measured](../performance.md)); the rest is made when somebody asks, in turns of the event
  loop below 5 ms.

"""

_ELSEWHERE = (
    "ml_|lb_|broker_|bundle_|schema_|txn_(?!tb_)|conn|active|topic_load|authentication|"
    "expired_token|web_|websocket|proxy|compaction_|entry_size_|storage_write_latency_"
)
PARTS = (
    ("Topics and their subscriptions", rf"pulsar_(?!{_ELSEWHERE})"),
    ("Buckets of write latency and entry size", r"pulsar_(entry_size|storage_write_latency)_"),
    ("Compaction", "pulsar_compaction_"),
    ("Managed ledgers and the cache", "pulsar_ml_"),
    ("The broker, its clients and its machine", "pulsar_"),
    ("Journal and storage under BookKeeper's names", "bookie_"),
    ("Each process", "process_"),
    ("Ours", "magnetar_"),
)

LEFT_OUT = {
    "pulsar_lb_resource_usage": "of Pulsar's extensible load manager only",
    "pulsar_ledgeroffloader_offload_rate, pulsar_ledgeroffloader_offload_error": "nothing is "
    "offloaded to other storage yet",
    "pulsar_replication_*": "no replication to other clusters yet; in Pulsar, too, they are there "
    "only with it",
    "pulsar_ml_LedgerAddEntryLatencyBuckets, pulsar_ml_LedgerSwitchLatencyBuckets": "there is no "
    "bookie between a topic and its journal; see pulsar_ml_AddEntryLatencyBuckets",
    "pulsar_entry_size_sum": "sizes are counted in buckets only; see pulsar_in_bytes_total",
    "jvm_*": "there is no JVM; see process_*",
    "bookie_journal_JOURNAL_FORCE_WRITE_QUEUE_SIZE, bookie_journal_JOURNAL_CB_QUEUE_SIZE, "
    "JOURNAL_FORCE_WRITE_BATCH_*, JOURNAL_NUM_FLUSH_MAX_WAIT": "one thread writes and syncs, so "
    "nothing waits between the two",
    "bookie_SERVER_STATUS, bookie_flush, bookie_throttled_write_requests, "
    "bookie_ledger_writable_dirs, bookkeeper_server_*": "there are no bookies that serve requests; "
    "see magnetar_storage_*",
    "auditor_NUM_UNDER_REPLICATED_LEDGERS": "every entry is on the one disk there is",
}
"""What the operator reads of Pulsar and does not find here, and why."""

OPTIONAL = (
    "pulsar_lb_cpu_usage",
    "pulsar_lb_memory_usage",
    "pulsar_lb_bandwidth_in_usage",
    "pulsar_lb_bandwidth_out_usage",
    "process_resident_memory_bytes",
    "process_open_fds",
)
"""There only where the operating system tells; the first needs two looks some seconds apart."""

_BUCKETS = re.compile(r"_bucket$|_count$|_sum$")
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ", re.ASCII)
_LABEL = re.compile(r'(\w+)="(?:[^"\\]|\\.)*"')


class Shown(NamedTuple):
    """What a broker shows under one name."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


def shown_in(text: str) -> dict[str, Shown]:
    """Return the families of a text, with all labels that any of their samples has."""
    found: dict[str, Shown] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            _, _, name, *said = line.split(" ", 3)
            found[name] = Shown(name, "", (), said[0] if said else "")
        elif line.startswith("# TYPE "):
            found[name] = found[name]._replace(kind=line.rsplit(" ", 1)[1])
        elif match := _SAMPLE.match(line):
            labels = dict.fromkeys([*found[name].labels, *_LABEL.findall(match[2] or "")])
            found[name] = found[name]._replace(labels=tuple(labels))
    return found


def rows(families: Iterable[Shown]) -> list[str]:
    """Return a table's rows."""
    return [
        f"| `{each.name}` | {each.kind} | {', '.join(sorted(each.labels))} | {each.help} |"
        for each in sorted(families)
    ]


def page(text: str) -> str:
    """Return the page, given what a broker shows."""
    left = shown_in(text)
    for name in OPTIONAL:
        left.pop(name, None)
    parts = []
    for title, names in PARTS:
        of_part = [left.pop(name) for name in sorted(left) if re.match(names, name)]
        table = "\n".join(rows(of_part))
        parts.append(
            f"## {title}\n\n| name | type | labels | what it is |\n|---|---|---|---|\n{table}\n"
        )
    optional = "\n".join(f"* `{name}`" for name in OPTIONAL)
    parts.append(f"## Where the operating system tells\n\n{optional}\n")
    reasons = "\n".join(f"| `{name}` | {why} |" for name, why in LEFT_OUT.items())
    parts.append(f"## Not here\n\n| name | why |\n|---|---|\n{reasons}\n")
    return HEAD + "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page(sys.stdin.read()))
