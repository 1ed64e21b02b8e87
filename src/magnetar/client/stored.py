"""Messages that are stored, as admin REST shows them."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from magnetar.client.rest import Json


class MessageId(NamedTuple):
    """Where a message lies. Sorts in publish order within one partition."""

    ledger: int
    entry: int
    partition: int = -1
    """-1: the topic is not partitioned, or it is not known."""
    batch_index: int = -1
    """-1: the message is alone in its entry."""

    def __str__(self) -> str:
        parts = [self.ledger, self.entry]
        if self.partition >= 0 or self.batch_index >= 0:
            parts.append(self.partition)
        if self.batch_index >= 0:
            parts.append(self.batch_index)
        return ":".join(map(str, parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One stored message, as admin REST shows it."""

    id: MessageId
    payload: bytes
    """Decompressed, unless `encrypted` or `opaque` says why not."""
    publish_time_ms: int
    event_time_ms: int = 0
    """0: the producer set none."""
    deliver_at_ms: int = 0
    """0: at once."""
    producer: str = ""
    sequence_id: int = 0
    key: str | None = None
    key_bytes: bytes | None = None
    """The key as bytes, if the producer gave it as bytes."""
    properties: Mapping[str, str] = field(default_factory=dict[str, str])
    null_value: bool = False
    """The message says that its key has no value any more."""
    encrypted: bool = False
    """The payload is as the producer encrypted it; a batch comes as one message."""
    opaque: str = ""
    """Why the payload could not be decoded, if it could not; it is then as it was stored."""
    chunk: tuple[int, int] | None = None
    """(index, count) if this is one piece of a larger message."""


def position_json(id: MessageId) -> Json:  # noqa: A002 - it is what the protocol calls it
    """Return a place as it is asked for."""
    return {"ledgerId": id.ledger, "entryId": id.entry, "partitionIndex": id.partition}


def message_id_of(answer: Json) -> MessageId:
    """Read a place."""
    return MessageId(
        int(answer["ledgerId"]), int(answer["entryId"]), int(answer.get("partitionIndex", -1))
    )


def message_of(answer: Json, partition: int) -> Message:
    """Read a message of a topic, or of one of its partitions; -1: it has none."""
    chunk = answer.get("chunk")
    key_bytes = answer.get("keyBytes")
    return Message(
        id=MessageId(
            int(answer["ledgerId"]),
            int(answer["entryId"]),
            partition,
            int(answer.get("batchIndex", -1)),
        ),
        payload=base64.b64decode(answer["payload"]),
        publish_time_ms=int(answer["publishTime"]),
        event_time_ms=int(answer.get("eventTime", 0)),
        deliver_at_ms=int(answer.get("deliverAtTime", 0)),
        producer=str(answer.get("producerName", "")),
        sequence_id=int(answer.get("sequenceId", 0)),
        key=answer.get("key"),
        key_bytes=base64.b64decode(key_bytes) if key_bytes is not None else None,
        properties=dict(answer.get("properties", {})),
        null_value=bool(answer.get("nullValue", False)),
        encrypted=bool(answer.get("encrypted", False)),
        opaque=str(answer.get("opaque", "")),
        chunk=(int(chunk["index"]), int(chunk["count"])) if chunk else None,
    )
