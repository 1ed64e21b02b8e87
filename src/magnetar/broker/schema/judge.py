"""The judge: is a definition one, and can its data be read by another?

    loop ──▶ Judge.fingerprint(schema) ──▶ the schema thread ──▶ text, or InvalidSchemaError
    loop ──▶ Judge.compare(new, old, demand, budget) ──▶ ... ──▶ "" or why not

Definitions come from clients and may be anything, so they are read on two threads of their own,
one at a time, within the limits of `work`; the event loop only hashes them. Large ones have a
thread to themselves, so that ordinary ones never wait behind them. The threads, and Avro's
library, are not there before the first definition that needs them.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec

from magnetar.broker.port import InvalidSchemaError, Schema, SchemaType, ServiceNotReadyError
from magnetar.broker.schema import json_schema, key_value
from magnetar.broker.schema.compatibility import Demand
from magnetar.broker.schema.work import Budget

T = TypeVar("T")

DEFINITION_BYTES_MAX = 512 * 1024
"""The largest definition. A command, which carries one, may have twice as much."""

PROPERTIES_BYTES_MAX = 64 * 1024
"""All properties of one schema together."""

LARGE_BYTES = 16 * 1024
"""A definition beyond this is a large one; people's own are a few kilobytes."""

WAITING_MAX = 1_000
"""Judgements that may wait for each thread. Whoever comes then is asked to come again."""

REMEMBERED_MAX = 1_000
"""Fingerprints remembered, so that a thousand producers of one schema cost one reading."""

AVRO = frozenset({SchemaType.AVRO, SchemaType.JSON, SchemaType.PROTOBUF})
"""Types whose definitions are Avro's."""

_NOTHING_SAID = (b"", b"null")
"""Definitions of types that have none; the official Python client writes the latter."""


class Judge:
    """Reads and compares definitions. All calls are made on the event loop."""

    def __init__(self) -> None:
        self._threads: dict[bool, ThreadPoolExecutor] = {}
        """The thread for large definitions, and that for all others."""
        self._waiting = {True: 0, False: 0}
        self._known: OrderedDict[bytes, str] = OrderedDict()

    async def fingerprint(self, schema: Schema) -> str:
        """Return a text that all schemas have in common that say the same, and no others.

        Raises:
            InvalidSchemaError: the definition is none.
            ServiceNotReadyError: too many wait already.
        """
        if len(schema.data) > DEFINITION_BYTES_MAX:
            raise InvalidSchemaError(
                f"a definition of {len(schema.data)} bytes, the limit is {DEFINITION_BYTES_MAX}"
            )
        size = sum(len(key) + len(value) for key, value in schema.properties.items())
        if size > PROPERTIES_BYTES_MAX:
            raise InvalidSchemaError(
                f"properties of {size} bytes, the limit is {PROPERTIES_BYTES_MAX}"
            )
        raw = hashlib.sha256(_identity(schema, schema.data)).digest()
        known = self._known.get(raw)
        if known is not None:
            self._known.move_to_end(raw)
            return known
        large = len(schema.data) > LARGE_BYTES
        found = await self._on_thread(large, lambda: fingerprint(schema, Budget()))
        self._known[raw] = found
        if len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)
        return found

    async def compare(self, new: Schema, old: Schema, demand: Demand, budget: Budget) -> str:
        """Return why a schema does not go with an older one; empty: it does.

        Raises:
            InvalidSchemaError: that takes too long to find out.
            ServiceNotReadyError: too many wait already.
        """
        large = max(len(new.data), len(old.data)) > LARGE_BYTES
        return await self._on_thread(large, lambda: compare(new, old, demand, budget))

    def stop(self) -> None:
        """Let the threads end. Calling it twice is harmless."""
        for thread in self._threads.values():
            thread.shutdown(wait=False, cancel_futures=True)

    async def _on_thread(self, large: bool, work: Callable[[], T]) -> T:
        if self._waiting[large] >= WAITING_MAX:
            raise ServiceNotReadyError(f"{WAITING_MAX} schemas are being checked; try again soon")
        if large not in self._threads:
            self._threads[large] = ThreadPoolExecutor(1, thread_name_prefix="schema")
        self._waiting[large] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads[large], work)
        finally:
            self._waiting[large] -= 1


def fingerprint(schema: Schema, budget: Budget) -> str:
    """Read a definition, and return what it says in short.

    Raises:
        InvalidSchemaError: it is none.
    """
    return hashlib.sha256(_identity(schema, _normal(schema, budget))).hexdigest()


def compare(new: Schema, old: Schema, demand: Demand, budget: Budget) -> str:
    """Return why a schema does not go with an older one; empty: it does.

    Raises:
        InvalidSchemaError: that takes too long to find out.
    """
    if new.type is not old.type:
        return f"its type is {new.type.name}, and that of the topic's schema is {old.type.name}"
    how = _COMPARED.get(new.type)
    return "" if how is None else how(new, old, demand, budget)


def _compare_key_value(new: Schema, old: Schema, demand: Demand, budget: Budget) -> str:
    ours, theirs = key_value.split(new), key_value.split(old)
    for name, one, other in zip(("key", "value"), ours, theirs, strict=True):
        why = compare(one, other, demand, budget)
        if why:
            return f"{name}: {why}"
    return ""


def _compare_avro(new: Schema, old: Schema, demand: Demand, budget: Budget) -> str:
    from magnetar.broker.schema import avro  # noqa: PLC0415 - only who uses it loads it

    one, other = (avro.parse(avro.read(each.data, budget), budget) for each in (new, old))
    return _directions(one, other, demand, budget, avro.can_read)


def _compare_protobuf(new: Schema, old: Schema, demand: Demand, budget: Budget) -> str:
    from magnetar.broker.schema import protobuf  # noqa: PLC0415 - as above

    one, other = (protobuf.parse(each.data, budget) for each in (new, old))
    return _directions(one, other, demand, budget, protobuf.can_read)


def _directions(
    new: Any, old: Any, demand: Demand, budget: Budget, can_read: Callable[[Any, Any, Budget], str]
) -> str:
    if demand.reads_old and (why := can_read(new, old, budget)):
        return f"it cannot read what was written before: {why}"
    if demand.read_by_old and (why := can_read(old, new, budget)):
        return f"what it writes cannot be read with the topic's schema: {why}"
    return ""


def _compare_json(new: Schema, old: Schema, demand: Demand, budget: Budget) -> str:
    from magnetar.broker.schema import avro  # noqa: PLC0415 - only who uses it loads it

    texts = [avro.read(each.data, budget) for each in (new, old)]
    parsed: list[Any] = []
    for each in texts:
        try:
            parsed.append(avro.parse(each, budget))
        except InvalidSchemaError:
            if not json_schema.is_old_form(each):
                raise
            parsed.append(None)
    if None not in parsed:
        return _directions(parsed[0], parsed[1], demand, budget, avro.can_read)
    if parsed == [None, None] and not json_schema.same_class(*texts):
        return "it is about another class than the topic's schema"
    return ""


_COMPARED: Mapping[SchemaType, Callable[[Schema, Schema, Demand, Budget], str]] = {
    SchemaType.AVRO: _compare_avro,
    SchemaType.JSON: _compare_json,
    SchemaType.KEY_VALUE: _compare_key_value,
    SchemaType.PROTOBUF_NATIVE: _compare_protobuf,
}
"""Types that are more than a word. Of all others any two go together."""


def _normal(schema: Schema, budget: Budget) -> bytes:
    """Return a definition without what says nothing about data."""
    if schema.type in AVRO:
        from magnetar.broker.schema import avro  # noqa: PLC0415 - only who uses it loads it

        read = avro.read(schema.data, budget)
        if schema.type is SchemaType.AVRO and isinstance(read, list):
            raise InvalidSchemaError("the definition is a union; payloads need one type")
        try:
            avro.parse(read, budget)
        except InvalidSchemaError:
            if schema.type is not SchemaType.JSON or not json_schema.is_old_form(read):
                raise
        return msgspec.json.encode(read, order="deterministic")
    if schema.type is SchemaType.PROTOBUF_NATIVE:
        from magnetar.broker.schema import protobuf  # noqa: PLC0415 - as above

        protobuf.parse(schema.data, budget)
        return schema.data
    if schema.type is SchemaType.KEY_VALUE:
        parts = key_value.split(schema)
        return key_value.join(*(_normal(part, budget) for part in parts))
    if schema.type is SchemaType.EXTERNAL:
        return schema.data  # only somebody else understands it
    # Pulsar looks at no definition of a STRING, and takes none for numbers and times.
    if schema.type is not SchemaType.STRING and schema.data not in _NOTHING_SAID:
        raise InvalidSchemaError(
            f"a {schema.type.name} schema has no definition, this one has {len(schema.data)} bytes"
        )
    return b""


def _identity(schema: Schema, definition: bytes) -> bytes:
    """Return everything that makes a schema another one."""
    if schema.type is not SchemaType.KEY_VALUE:
        return b"%s\n%s" % (schema.type.name.encode(), definition)
    said = [
        schema.properties.get(name, "")
        for name in ("key.schema.type", "value.schema.type", key_value.ENCODING)
    ]
    return b"%s\n%s\n%s" % (schema.type.name.encode(), msgspec.json.encode(said), definition)
