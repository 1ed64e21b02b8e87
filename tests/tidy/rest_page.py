"""Writes docs/reference/rest.md from the table of routes.

python tests/tidy/rest_page.py > docs/reference/rest.md
"""

import sys
from collections.abc import Iterable, Mapping
from itertools import groupby
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from magnetar.broker.doors.admin.app import TABLE
from magnetar.broker.doors.admin.routes import Route

HEAD = """\
# Admin REST

Made from the tables of routes in `broker/doors/admin/` by `tests/tidy/rest_page.py`; a test keeps
the two alike. Paths, bodies and answers are those of Apache Pulsar's admin REST; the same as
OpenAPI 3.1, with every schema, is under `/admin/v2/openapi.json` of a running broker.

`{domain}` is `persistent` or `non-persistent`. Each part of a name is escaped: a topic `a?b` is
`a%3Fb` in a path, a subscription `a/b` is `a%2Fb`; topics have no slash. Bodies are JSON, with
`Content-Type: application/json`. A call that only does something answers 204; so does asking for
what is not set. A refusal is `{"reason": "..."}` with 400 (the body cannot be read), 401 and 403
(see who may call), 404 (not there), 405 (not on this kind of topic), 409 (exists, or is in use),
412 (a value that cannot be; of partitions 406 and 422, as in Pulsar), 501 (Pulsar has it, this
version has not) or 503 (try again). A call about a partitioned topic is about all its partitions,
where that makes sense.

"""
COLUMNS = "| call | takes | query | does | right |\n|---|---|---|---|---|\n"


def page() -> str:
    """Return the page as it should be."""
    routes = sorted(TABLE, key=lambda route: (_noun(route), route.template))
    parts = [HEAD]
    for noun, about in groupby(routes, key=_noun):
        parts.append(f"## {noun}\n\n{COLUMNS}{''.join(map(_row, about))}\n")
    return "".join(parts).rstrip() + "\n"


def _noun(route: Route[Any]) -> str:
    segments = route.template.strip("/").split("/")
    word = segments[2] if segments[0] == "admin" and len(segments) > 2 else segments[0]
    return "topics" if word == "{domain}" else word


def _row(route: Route[Any]) -> str:
    does = " ".join(route.summary.split())
    query = ", ".join(f"`{name}`" for name in route.query)
    path = route.template.removeprefix("/admin/v2")
    cells = (f"`{route.method} {path}`", _kind(route.body), query, does, route.right.value)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _kind(shape: Any) -> str:
    """Return a short name for what a body is."""
    if shape is None:
        return ""
    if get_origin(shape) in {Union, UnionType}:
        kinds = [_kind(each) for each in get_args(shape) if each is not NoneType]
        optional = " (optional)" if NoneType in get_args(shape) else ""
        return " or ".join(dict.fromkeys(kinds)) + optional
    origin = get_origin(shape) or shape
    if isinstance(origin, type) and issubclass(origin, Mapping | dict):
        return "object"
    if isinstance(origin, type) and issubclass(origin, list | tuple):
        return "list"
    names = {bool: "true or false", int: "number", float: "number", str: "text"}
    if origin in names:
        return names[origin]
    arguments: Iterable[Any] = get_args(shape)
    return _kind(next(iter(arguments))) if arguments else getattr(origin, "__name__", "JSON")


if __name__ == "__main__":
    sys.stdout.write(page())
