"""How one message is printed: one line of text, or one line of JSON.

    text          the payload
    text, --meta  id  publish time  key  payload  {properties}
    json          {"id", "topic", "publish_time", "event_time", "key", "properties", "producer",
                   "redelivery_count", "payload" or "payload_base64"}

A payload that is UTF-8 is shown as text; any other as base64, so that no byte is lost.
Messages come from two places, the official client and admin REST, and look alike here.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from magnetar.cli.errors import write_out
from magnetar.cli.values import time_text
from magnetar.client.stored import Message, MessageId


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What is shown of a message."""

    id: str
    payload: bytes
    publish_time_ms: int
    topic: str = ""
    event_time_ms: int = 0
    key: str = ""
    properties: Mapping[str, str] = field(default_factory=dict[str, str])
    producer: str = ""
    redelivery_count: int = 0
    notes: tuple[str, ...] = ()
    """Why the payload is not what the producer passed in, such as `encrypted`."""

    def as_json(self) -> dict[str, Any]:
        """Return the message as a JSON object."""
        told: dict[str, Any] = {
            "id": self.id,
            "topic": self.topic,
            "publish_time": time_text(self.publish_time_ms),
            "event_time": time_text(self.event_time_ms) if self.event_time_ms else None,
            "key": self.key or None,
            "properties": dict(self.properties),
            "producer": self.producer,
            "redelivery_count": self.redelivery_count,
        }
        if self.notes:
            told["notes"] = list(self.notes)
        try:
            told["payload"] = self.payload.decode()
        except UnicodeDecodeError:
            told["payload_base64"] = base64.b64encode(self.payload).decode()
        return told

    def as_text(self, *, meta: bool = False) -> str:
        """Return the message as one line, or as many as its payload has."""
        try:
            payload = self.payload.decode()
        except UnicodeDecodeError:
            payload = "base64:" + base64.b64encode(self.payload).decode()
        if not meta:
            return payload
        parts = [self.id, time_text(self.publish_time_ms), self.key or "-", payload]
        if self.properties:
            parts.append(json.dumps(dict(self.properties), ensure_ascii=False))
        return "  ".join((*parts, *(f"({note})" for note in self.notes)))

    def print(self, *, as_json: bool, meta: bool = False) -> None:
        """Write the message to standard output."""
        text = (
            json.dumps(self.as_json(), ensure_ascii=False) if as_json else self.as_text(meta=meta)
        )
        write_out(text)


def id_text(message_id: Any) -> str:
    """Return `ledger:entry[:partition[:batch index]]` of an id of the official client."""
    return str(
        MessageId(
            message_id.ledger_id(),
            message_id.entry_id(),
            message_id.partition(),
            message_id.batch_index(),
        )
    )


def received(message: Any) -> Shown:
    """Return what is shown of a message that the official client received."""
    return Shown(
        id=id_text(message.message_id()),
        topic=message.topic_name(),
        payload=message.data(),
        publish_time_ms=message.publish_timestamp(),
        event_time_ms=message.event_timestamp(),
        key=message.partition_key(),
        properties=message.properties(),
        producer=message.producer_name(),
        redelivery_count=message.redelivery_count(),
    )


def stored(message: Message, topic: str) -> Shown:
    """Return what is shown of a message that admin REST found."""
    notes = []
    if message.encrypted:
        notes.append("encrypted")
    if message.opaque:
        notes.append(message.opaque)
    if message.null_value:
        notes.append("no value: its key is deleted")
    if message.chunk:
        notes.append(f"chunk {message.chunk[0] + 1} of {message.chunk[1]}")
    if message.deliver_at_ms:
        notes.append(f"to be delivered at {time_text(message.deliver_at_ms)}")
    return Shown(
        id=str(message.id),
        topic=topic,
        payload=message.payload,
        publish_time_ms=message.publish_time_ms,
        event_time_ms=message.event_time_ms,
        key=message.key or "",
        properties=message.properties,
        producer=message.producer,
        notes=tuple(notes),
    )
