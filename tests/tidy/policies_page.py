"""Writes docs/reference/policies.md from the table of policies in `resources/policy_table.py`.

python -m tests.tidy.policies_page > docs/reference/policies.md
"""

import sys
from typing import Any

import msgspec

from magnetar.broker.doors.admin.resources.policy_table import NOT_YET, POLICIES, QUOTA_POLICIES
from magnetar.broker.metadata.documents import Document

HEAD = """\
# Policies

Made from `admin/resources/policy_table.py` by `tests/tidy/policies_page.py`; a test keeps the two
alike.

A policy is set on a namespace, or on one topic, where it wins over that of the namespace; a
partitioned topic and its partitions have theirs in common. What is set nowhere is as the broker's
own [settings](settings.md) say. Each is a resource of admin REST:

```text
GET                /admin/v2/namespaces/{tenant}/{namespace}/NAME
POST, PUT, DELETE  /admin/v2/{domain}/{tenant}/{namespace}/{topic}/NAME
```

GET answers 204 while nothing is set; with `?applied=true` it answers what holds. A change is
durable when it is confirmed, and holds for topics in use, in every broker process, within a second.
Policies that contradict each other are refused with 412 and what to do. On the command line:
`magnetar namespaces set` and `unset`, `magnetar topics set-policy` and `unset-policy`.

| for a namespace | for a topic | JSON | what it does |
|---|---|---|---|
"""
TAIL = f"""\
| `backlogQuota`, `backlogQuotaMap` | the same | `limitSize`, `limitTime`, `policy` | How large \
(`?backlogQuotaType=destination_storage`) or how old (`message_age`) the backlog of the slowest \
subscription may become. Then {", ".join(f"`{each}`" for each in QUOTA_POLICIES)}: producers wait, \
are refused, or the slowest subscriptions are moved on. Looked at when it may be full, not from \
time to time. |
| `replication` | the same | a list of clusters | Only this cluster. |
| `resourcegroup/NAME` (POST) |  |  | The rates of the [resource group](#resource-groups). |

Rates are means over time. What is published too fast is taken all the same, and then nothing more
is read from that connection until the debt is paid, as in Pulsar; producers on other connections
are not slowed. Subscriptions of non-persistent topics are not slowed either: what they cannot take
at once is lost anyway. One subscription may have a rate of its own, by `POST` to
`.../TOPIC/SUBSCRIPTION/dispatchRate`. A batch counts with all its messages. What is sent may go in
bursts of a tenth of a period.

## Resource groups

`PUT /admin/v2/resourcegroups/NAME` with `publishRateInMsgs`, `publishRateInBytes`,
`dispatchRateInMsgs` and `dispatchRateInBytes`, per second, for all topics of all namespaces of the
group together; a namespace joins by `POST .../resourcegroup/NAME`. With several broker processes
each takes an equal part of a rate.

## Not supported

Asking for these is answered with 204, setting them is refused with 405, because a limit that is set
and not kept is worse than none:
"""


def page() -> str:
    """Return the page as it should be."""
    rows = [
        f"| {_name(each.namespace)} | {_name(each.topic)} | {_shape(each.shape)} | {each.does} |"
        for each in POLICIES
    ]
    missing = sorted({name for names in NOT_YET.values() for name in names})
    return HEAD + "\n".join(rows) + "\n" + TAIL + "\n".join(f"`{n}`" for n in missing) + "\n"


def _name(name: str) -> str:
    return f"`{name}`" if name else ""


def _shape(shape: Any) -> str:
    if isinstance(shape, type) and issubclass(shape, Document):
        names = [each.encode_name for each in msgspec.structs.fields(shape) if each.encode_name]
        return ", ".join(f"`{name}`" for name in names)
    return {int: "a number", bool: "true or false", str: "a text"}.get(shape, "a JSON value")


if __name__ == "__main__":
    sys.stdout.write(page())
