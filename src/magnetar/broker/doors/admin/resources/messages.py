"""Stored messages, one entry at a time: peeked, found by place, or counted from an end.

    GET .../subscription/{s}/position/{n}      the n-th entry of a backlog
    GET .../ledger/{l}/entry/{e}               the entry at a place, acknowledged or not
    GET .../examinemessage                     the n-th entry from the start or the end

Nothing is acknowledged. Pulsar's answer is the entry's contents, decompressed, with its
metadata in X-Pulsar headers; a batch comes as it is, for the client to take apart. With
`?format=json`, our own, every message of the entry is decoded:

    {"messages": [{"ledgerId": 3, "entryId": 0, "batchIndex": 1, "payload": "<base64>", ...}]}
"""

import asyncio
import base64
import json
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.responses import Response

from magnetar.broker.clock import iso_time
from magnetar.broker.doors.admin.call import Call
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.http.spelling import Spelled
from magnetar.broker.doors.admin.resources.subscriptions import SUBSCRIPTION, subscription_of
from magnetar.broker.doors.admin.resources.topics import TOPIC, one_topic, refuse_partitioned
from magnetar.broker.doors.admin.routes import Right, Route
from magnetar.broker.entry import BodyFormat, EntryId
from magnetar.broker.port import SubscriptionNotFoundError
from magnetar.broker.topics.consumers.places import StoredEntry
from magnetar.broker.wire.pulsar.generated.PulsarApi_pb2 import (
    CompressionType,
    MessageMetadata,
    SingleMessageMetadata,
)
from magnetar.broker.wire.pulsar.metadata import (
    BodyError,
    Message,
    batch_contents,
    messages,
    split_body,
)

CONTENTS_BYTES_MAX = 32 * 1024 * 1024
"""What is larger decompressed is shown as it was stored."""
HEADER_BYTES_MAX = 32 * 1024
"""Properties beyond this are left out of the header; `format=json` shows them all."""
_NAME_SAFE = "!#$&'*+-.^_`|~"
"""What the name of a header may hold beside letters and digits, but for the % we escape with."""
TIME_MS_MAX = 253_402_300_799_999
"""The end of the year 9999: what comes after has no ISO form."""
POSITION_MAX = 2**31 - 1
_BROKER_ENTRY = "X-Pulsar-Broker-Entry-METADATA"
_PROPERTIES = Spelled(b"X-Pulsar-PROPERTY")


async def peek(call: Call) -> Response:
    """Return the n-th entry of a subscription's backlog; the first is 1.

    Pulsar makes a subscription that is missing, at the first entry. It is enough to show what
    that one would have: who only looks changes nothing.
    """
    position = call.number("position", low=1, high=POSITION_MAX)
    await refuse_partitioned(call)
    try:
        subscription = await subscription_of(call.context, call.topic, call.subscription)
        found = await subscription.peek(position)
    except SubscriptionNotFoundError:
        topic = await one_topic(call)
        found = await topic.nth_entry(position, from_end=False)
    if found is None:
        raise Refusal(404, f"the backlog of {call.subscription!r} has no entry {position}")
    return await _shown(call, found)


async def entry_at(call: Call) -> Response:
    """Return the entry at a known place."""
    place = EntryId(call.number("ledger"), call.number("entry"))
    topic = await one_topic(call)
    found = await topic.entry(place)
    if found is None:
        raise Refusal(404, f"topic {call.topic} has no entry {place}")
    return await _shown(call, found)


async def examine(call: Call) -> Response:
    """Return the n-th entry from the start or from the end; the first is 1."""
    position = call.query_number("messagePosition", 1, low=1, high=POSITION_MAX)
    start = call.word("initialPosition", "latest").lower()
    if start not in {"earliest", "latest"}:
        raise Refusal(412, f"initialPosition is {start[:100]!r}, allowed: earliest, latest")
    topic = await one_topic(call)
    found = await topic.nth_entry(position, from_end=start == "latest")
    if found is None:
        raise Refusal(404, f"topic {call.topic} has fewer than {position} entries")
    return await _shown(call, found)


async def _shown(call: Call, entry: StoredEntry) -> Response:
    """Render an entry in a thread: a large one takes longer than the event loop can wait."""
    if entry.envelope.flags & 0xFF != BodyFormat.PULSAR:
        raise Refusal(422, f"entry {entry.id} was not written by a Pulsar client")
    if call.word("format").lower() == "json":
        return await asyncio.to_thread(as_json, entry, call.topic.partition)
    answer = await asyncio.to_thread(as_pulsar, entry, call.topic.partition)
    if call.context.config.broker_entry_metadata:
        envelope = entry.envelope
        last_index = envelope.first_index + envelope.messages - 1
        answer.headers[f"{_BROKER_ENTRY}-timestamp"] = iso_time(envelope.broker_time_ms)
        answer.headers[f"{_BROKER_ENTRY}-index"] = str(last_index)
    return answer


# --- JSON ---------------------------------------------------------------------------------


def as_json(entry: StoredEntry, partition: int) -> Response:
    """Return every message of an entry, decoded."""
    opaque = ""
    try:
        metadata, payload = split_body(entry.body)
    except BodyError as error:
        shown = [_unreadable(entry, partition, str(error))]
        return _json({"messages": shown})
    try:
        found = messages(entry.body, CONTENTS_BYTES_MAX)
    except BodyError as error:
        opaque = str(error)
        found = [_undecoded(metadata, bytes(payload))]
    return _json({"messages": [_message(entry, partition, metadata, m, opaque) for m in found]})


def _message(
    entry: StoredEntry, partition: int, metadata: MessageMetadata, message: Message, opaque: str
) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "ledgerId": entry.id.ledger,
        "entryId": entry.id.entry,
        "partitionIndex": partition,
        "batchIndex": message.batch_index,
        "batchSize": message.batch_size,
        "publishTime": message.publish_time_ms,
        "eventTime": message.event_time_ms,
        "deliverAtTime": entry.envelope.deliver_at_ms,
        "brokerTime": entry.envelope.broker_time_ms,
        "index": entry.envelope.first_index + max(message.batch_index, 0),
        "producerName": message.producer_name,
        "sequenceId": message.sequence_id,
        "properties": dict(message.properties),
        "nullValue": message.null_value,
        "encrypted": message.encrypted,
        "payload": base64.b64encode(message.payload).decode("ascii"),
    }
    if message.key is not None:
        if message.key_is_base64:
            shown["keyBytes"] = message.key
        else:
            shown["key"] = message.key
    if message.ordering_key is not None:
        shown["orderingKey"] = base64.b64encode(message.ordering_key).decode("ascii")
    if metadata.HasField("num_chunks_from_msg"):
        shown["chunk"] = {"index": metadata.chunk_id, "count": metadata.num_chunks_from_msg}
    if opaque:
        shown["opaque"] = opaque
    return shown


def _undecoded(metadata: MessageMetadata, payload: bytes) -> Message:
    """Return an entry whose contents cannot be decoded as the one message it is to us."""
    return Message(
        batch_index=-1,
        batch_size=metadata.num_messages_in_batch,
        key=None,
        key_is_base64=False,
        ordering_key=None,
        properties={},
        event_time_ms=metadata.event_time,
        publish_time_ms=metadata.publish_time,
        producer_name=str(metadata.producer_name),
        sequence_id=metadata.sequence_id,
        payload=payload,
    )


def _unreadable(entry: StoredEntry, partition: int, why: str) -> dict[str, Any]:
    return {
        "ledgerId": entry.id.ledger,
        "entryId": entry.id.entry,
        "partitionIndex": partition,
        "batchIndex": -1,
        "publishTime": entry.envelope.publish_time_ms,
        "payload": base64.b64encode(entry.body).decode("ascii"),
        "opaque": why,
    }


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


# --- as Pulsar shows it ---------------------------------------------------------------------


def as_pulsar(entry: StoredEntry, partition: int) -> Response:
    """Return an entry's contents, with its metadata in headers."""
    headers = {"X-Pulsar-Message-ID": str(entry.id), "X-Pulsar-partition": str(partition)}
    try:
        metadata, payload = split_body(entry.body)
    except BodyError as error:
        raise Refusal(500, f"entry {entry.id} cannot be read: {error}") from None
    headers |= _headers(metadata)
    batch = metadata.HasField("num_messages_in_batch")
    try:
        found = messages(entry.body, CONTENTS_BYTES_MAX)
    except BodyError:
        # Its producer wrote it so: it is shown as it is, and says how it is compressed.
        contents = bytes(payload)
        headers["X-Pulsar-compression"] = CompressionType.Name(metadata.compression)
        headers["X-Pulsar-uncompressed-size"] = str(metadata.uncompressed_size)
    else:
        alone = not batch or found[0].encrypted
        contents = found[0].payload if alone else _contents(metadata, payload, found)
    if batch:
        headers["X-Pulsar-num-batch-message"] = str(metadata.num_messages_in_batch)
        headers["X-Pulsar-batch-size"] = str(len(contents))
    answer = Response(contents, headers=headers, media_type="application/octet-stream")
    if metadata.properties:
        answer.raw_headers.append((_PROPERTIES, _properties(metadata).encode("ascii")))
    return answer


def _contents(metadata: MessageMetadata, payload: memoryview, found: list[Message]) -> bytes:
    """Return the contents of a batch, decompressed."""
    if not metadata.compression:
        return bytes(payload)
    return batch_contents((_single(message), message.payload) for message in found)


def _single(message: Message) -> SingleMessageMetadata:
    single = SingleMessageMetadata(
        sequence_id=message.sequence_id,
        event_time=message.event_time_ms,
        null_value=message.null_value,
        compacted_out=message.compacted_out,
        partition_key_b64_encoded=message.key_is_base64,
    )
    if message.key is not None:
        single.partition_key = message.key
    if message.ordering_key is not None:
        single.ordering_key = message.ordering_key
    for key, value in message.properties.items():
        single.properties.add(key=key, value=value)
    return single


def _headers(metadata: MessageMetadata) -> dict[str, str]:
    headers = {
        "X-Pulsar-producer-name": _header(metadata.producer_name),
        "X-Pulsar-sequence-id": str(metadata.sequence_id),
        "X-Pulsar-publish-time": iso_time(metadata.publish_time),
    }
    if metadata.event_time:
        headers["X-Pulsar-event-time"] = iso_time(metadata.event_time)
    if metadata.HasField("deliver_at_time"):
        headers["X-Pulsar-deliver-at-time"] = iso_time(metadata.deliver_at_time)
    if metadata.HasField("partition_key"):
        headers["X-Pulsar-partition-key"] = _header(metadata.partition_key)
        headers["X-Pulsar-partition-key-b64-encoded"] = str(
            metadata.partition_key_b64_encoded
        ).lower()
    if metadata.encryption_keys:
        headers["X-Pulsar-Is-Encrypted"] = "true"
    return headers


def _properties(metadata: MessageMetadata) -> str:
    """Return properties as a JSON object without letters that a header cannot hold."""
    shown: dict[str, str] = {}
    room = HEADER_BYTES_MAX
    for pair in metadata.properties:
        room -= len(json.dumps({pair.key: pair.value}))
        if room < 0:
            break
        shown[pair.key] = pair.value
    return json.dumps(shown)


def _header(value: object) -> str:
    """Escape what a header cannot hold, and what would end it."""
    return quote(str(value), safe=_NAME_SAFE + ' "(),/:;<=>?@[\\]{}')


ROUTES = [
    Route(
        "GET", f"{SUBSCRIPTION}/position/{{position}}", peek, Right.CONSUME, answer=bytes,
        query={"format": str},
    ),
    Route(
        "GET", f"{TOPIC}/ledger/{{ledger}}/entry/{{entry}}", entry_at, Right.CONSUME, answer=bytes,
        query={"format": str},
    ),
    Route(
        "GET", f"{TOPIC}/examinemessage", examine, Right.CONSUME, answer=bytes,
        query={"initialPosition": str, "messagePosition": int, "format": str},
    ),
]  # fmt: skip
