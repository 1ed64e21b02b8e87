"""One admin call: what its path, query and body say, checked on the way out.

    path       /admin/v2/persistent/public/default/orders/messageid/1700000000000?format=json
    template   /admin/v2/{domain}/{tenant}/{namespace}/{topic}/messageid/{time}
    call       .topic  .number("time")  .word("format")

Handlers take a call and return a response. Everything that is wrong with the caller's
words is refused here, so that a handler only sees names and numbers that can be.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import parse_qs

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from magnetar.broker.access.caller import LOCAL, Caller
from magnetar.broker.doors.admin.context import Context
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.http.siblings import HERE
from magnetar.broker.doors.admin.routes import ADMIN
from magnetar.broker.entry import EARLIEST, LATEST, EntryId
from magnetar.broker.metadata.documents import Document
from magnetar.names import NamespaceName, TopicName, check_subscription, check_tenant

D = TypeVar("D", bound=Document)

NUMBER_MAX = 2**63 - 1
QUERY_FIELDS_MAX = 64

_QUOTED_NUMBER = re.compile(rb'"(-?\d{1,20})"')
_WORDS = {"true": True, "false": False, "": True}


class Position(msgspec.Struct, frozen=True, rename="camel"):
    """A message id, as Pulsar writes it in JSON."""

    ledger_id: int
    entry_id: int
    partition_index: int = -1
    batch_index: int = -1
    is_excluded: bool = False

    def __post_init__(self) -> None:
        for number in (self.ledger_id, self.entry_id):
            if not -(NUMBER_MAX + 1) <= number <= 2 * NUMBER_MAX + 1:
                raise ValueError(f"{number} does not fit into 64 bits")

    @property
    def entry(self) -> EntryId:
        """The entry meant. Pulsar's constants for both ends of a topic are ours, in other words."""
        if self.ledger_id >= NUMBER_MAX or self.entry_id >= NUMBER_MAX:
            return LATEST
        if self.ledger_id < 0:
            return EARLIEST
        return EntryId(self.ledger_id, max(self.entry_id, -1))


@dataclass(frozen=True)
class Call:
    """One request, and what there is to answer it with."""

    request: Request
    parameters: dict[str, str]
    body: bytes
    """As it came, at most BODY_BYTES_MAX."""
    context: Context
    caller: Caller = LOCAL
    """Who calls, and may: that has been looked at."""

    @property
    def here(self) -> bool:
        """Whether a sibling passed the call on: it concerns only what this process owns."""
        return HERE in self.request.headers

    # --- path ---------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The path as it went over the wire."""
        return str(self.request.scope["raw_path"].decode("latin-1"))

    @property
    def target(self) -> str:
        """Path and query as they went over the wire."""
        query = self.request.scope["query_string"].decode("latin-1")
        return f"{self.path}?{query}" if query else self.path

    def target_for(self, topic_path: str, tail: str | None = None) -> str:
        """Return the target of the same call about another topic, given the latter's path.

        `tail` replaces what comes after the topic; the query stays.
        """
        path, mark, query = self.target.partition("?")
        if tail is None:
            tail = "".join(f"/{segment}" for segment in path.split("/")[7:])
        return f"{ADMIN}/{topic_path}{tail}{mark}{query}"

    @property
    def tenant(self) -> str:
        return check_tenant(self.parameters["tenant"])

    @property
    def namespace(self) -> NamespaceName:
        namespace = f"{self.parameters['tenant']}/{self.parameters['namespace']}"
        return NamespaceName.parse(namespace)

    @cached_property
    def topic(self) -> TopicName:
        """The topic; its parts cannot move into each other, because a slash in one is refused."""
        parts = self.parameters
        return TopicName.parse(
            f"{parts['domain']}://{parts['tenant']}/{parts['namespace']}/{parts['topic']}"
        )

    @property
    def subscription(self) -> str:
        return check_subscription(self.parameters["subscription"])

    def number(self, parameter: str, low: int = 0, high: int = NUMBER_MAX) -> int:
        """Return a number in the path.

        Raises:
            Refusal: 400, it is none; 412, it is out of bounds.
        """
        return _number(parameter, self.parameters[parameter], low, high)

    # --- query --------------------------------------------------------------------------

    @cached_property
    def _query(self) -> dict[str, list[str]]:
        text = self.request.scope["query_string"].decode("latin-1")
        try:
            return parse_qs(
                text,
                keep_blank_values=True,
                errors="strict",
                max_num_fields=QUERY_FIELDS_MAX,
            )
        except ValueError as error:
            raise Refusal(400, f"the query cannot be read: {error}") from None

    def word(self, name: str, default: str = "") -> str:
        """Return a value of the query."""
        return self._query.get(name, [default])[-1]

    def words(self, name: str) -> list[str]:
        """Return all values a query gives under one name."""
        return self._query.get(name, [])

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a yes or no of the query.

        Raises:
            Refusal: 400, it is neither.
        """
        if name not in self._query:
            return default
        value = _WORDS.get(self.word(name).lower())
        if value is None:
            raise Refusal(400, f"{name}={self.word(name)[:100]!r}: expected true or false")
        return value

    def query_number(self, name: str, default: int, low: int = 0, high: int = NUMBER_MAX) -> int:
        """Return a number of the query.

        Raises:
            Refusal: 400, it is none; 412, it is out of bounds.
        """
        return _number(name, self.word(name), low, high) if name in self._query else default

    # --- body ---------------------------------------------------------------------------

    def json(self, expected: Any, what: str) -> Any:
        """Return the body read as the expected type; None if there is none.

        `what` names it for the caller. Fields that Pulsar has and we do not are ignored.

        Raises:
            Refusal: 400, it is no JSON, or not of that shape.
        """
        body = self.body.strip()
        if body in {b"", b"null"}:
            return None
        try:
            return msgspec.json.decode(body, type=expected)
        except msgspec.DecodeError as error:
            quoted = _QUOTED_NUMBER.fullmatch(body)
            if quoted is not None:  # as in Pulsar: where a number is meant, "3" is one
                with suppress(msgspec.DecodeError):
                    return msgspec.json.decode(quoted[1], type=expected)
            raise Refusal(400, f"{what}: {error}") from None
        except UnicodeDecodeError:
            raise Refusal(400, f"{what}: the JSON is not in UTF-8") from None
        except RecursionError:
            raise Refusal(400, f"{what}: nested too deeply") from None

    def document(self, kind: type[D], what: str) -> D | None:
        """Return the body read as a document, which keeps the fields we do not know; None: empty.

        A field that is null is as if it were not there: clients in Go write empty lists so.

        Raises:
            Refusal: 400, it is no JSON object, or a field has a wrong type; 412, a wrong value.
        """
        value = self.json(dict[str, Any], what)
        if value is None:
            return None
        value = {name: each for name, each in value.items() if each is not None}
        try:
            # What a document says about its values comes wrapped; its own words are the cause.
            msgspec.convert(value, kind)
            return kind.from_dict(value)
        except msgspec.ValidationError as error:
            raise Refusal(412 if error.__cause__ else 400, f"{what}: {error}") from None

    def needed_json(self, expected: Any, what: str) -> Any:
        """Return the body read as the expected type.

        Raises:
            Refusal: 400, there is none, it is no JSON, or not of that shape.
        """
        value = self.json(expected, what)
        if value is None:
            raise Refusal(400, f"{what}: the body is missing")
        return value


def _number(name: str, text: str, low: int, high: int) -> int:
    if len(text) > 20:
        raise Refusal(400, f"{name}: {text[:20]!r}... is too long for a number")
    try:
        value = int(text) if text.isascii() and "_" not in text else None
    except ValueError:
        value = None
    if value is None:
        raise Refusal(400, f"{name}: {text!r} is not a number")
    if not low <= value <= high:
        raise Refusal(412, f"{name} is {value}, allowed: {low} to {high}")
    return value


def answer(value: object, status: int = 200) -> Response:
    """Return a value as JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def done() -> Response:
    """Return the answer of a call that only does something."""
    return Response(status_code=204)
