"""What a client asks for in the address of a WebSocket: path and query, checked.

    /ws/v2/producer/{domain}/{tenant}/{namespace}/{topic}                  ──▶ ProducerOptions
    /ws/v2/consumer/{domain}/{tenant}/{namespace}/{topic}/{subscription}   ──▶ ConsumerOptions
    /ws/v2/reader/{domain}/{tenant}/{namespace}/{topic}                    ──▶ ReaderOptions
    /ws/v3/consumer/{subscription}?topics=a,b                              ──▶ ConsumerOptions
                                  ?topicsPattern=persistent://t/n/a.*

Names, defaults and bounds are those of Pulsar's WebSocket proxy and of the Java client behind it.
As there, the first of several values counts, and parameters that nobody knows are passed over.
"""

import binascii
import re
import secrets
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
from google.protobuf.message import DecodeError

from magnetar.broker.doors.pattern import PatternError
from magnetar.broker.doors.websocket.fitting import TopicPattern
from magnetar.broker.port import SubscriptionType
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.names import InvalidNameError, TopicName, check_subscription

PARAMETERS_MAX = 100
TOPICS_MAX = 1_000
"""Topics that one consumer of several may name."""
RECEIVER_QUEUE_MAX = 1_000
"""Messages sent and not acknowledged, however many a client asks for. Pulsar's number."""
ACK_TIMEOUT_MS_MIN = 1_000
SEND_TIMEOUT_MS = 30_000
BATCH_DELAY_MS = 1
BATCH_MESSAGES = 1_000
NEGATIVE_ACK_DELAY_MS = 60_000
INT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1

COMPRESSIONS: Mapping[str, api.CompressionType] = {
    "NONE": api.NONE,
    "LZ4": api.LZ4,
    "ZLIB": api.ZLIB,
    "ZSTD": api.ZSTD,
    "SNAPPY": api.SNAPPY,
}

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")


class OptionError(ValueError):
    """The address asks for something that cannot be. The message names it."""


class NoSuchPathError(ValueError):
    """There is nothing at this path."""


class CryptoFailure(Enum):
    """What becomes of a message that is encrypted. Nobody here has keys."""

    FAIL = "FAIL"
    """It is not delivered and not acknowledged: for somebody who can read it."""
    DISCARD = "DISCARD"
    CONSUME = "CONSUME"
    """It is delivered as it is, with all that is needed to decrypt it."""


class EncryptionKey(msgspec.Struct, frozen=True):
    """The key of a client's messages, itself encrypted for one reader."""

    keyValue: bytes  # noqa: N815 - JSON's name for it
    metadata: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ProducerOptions:
    """A producer, as asked for."""

    topic: TopicName
    name: str | None = None
    initial_sequence_id: int | None = None
    murmur: bool = False
    """Choose partitions by Murmur3; else by Java's hash of strings."""
    round_robin: bool = False
    send_timeout_ms: int = SEND_TIMEOUT_MS
    pending_max: int = 0
    """Messages without a receipt; 0: only their bytes are bounded."""
    batching: bool = False
    batch_messages_max: int = BATCH_MESSAGES
    batch_delay_ms: int = BATCH_DELAY_MS
    compression: api.CompressionType = api.NONE
    encryption_keys: Mapping[str, EncryptionKey] = field(default_factory=dict[str, EncryptionKey])
    """The client encrypts, and says with which keys; empty: it does not."""


@dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """A consumer, as asked for."""

    topics: Sequence[TopicName]
    """None, if there is a pattern."""
    subscription: str
    pattern: TopicPattern | None = None
    type: SubscriptionType = SubscriptionType.EXCLUSIVE
    durable: bool = True
    from_earliest: bool = False
    name: str = ""
    priority: int = 0
    queue: int = RECEIVER_QUEUE_MAX
    pull: bool = False
    ack_timeout_ms: int = 0
    negative_ack_delay_ms: int = NEGATIVE_ACK_DELAY_MS
    redeliveries_max: int = 0
    """After so many, a message goes to the dead letter topic; 0: never."""
    dead_letter_topic: TopicName | None = None
    crypto_failure: CryptoFailure = CryptoFailure.FAIL


@dataclass(frozen=True, slots=True)
class ReaderOptions:
    """A reader, as asked for."""

    topic: TopicName
    subscription: str
    """Made up, and gone with the reader."""
    name: str = ""
    queue: int = RECEIVER_QUEUE_MAX
    earliest: bool = False
    start: api.MessageIdData | None = None
    """The first message is the one after this; None: `earliest`, or else what comes from now on."""
    crypto_failure: CryptoFailure = CryptoFailure.FAIL


Options = ProducerOptions | ConsumerOptions | ReaderOptions


class Parameters:
    """A query, as Java would read it."""

    def __init__(self, query: str) -> None:
        """Split it.

        Raises:
            OptionError: it has too many parameters, or is not UTF-8.
        """
        try:
            pairs = parse_qsl(
                query, keep_blank_values=True, max_num_fields=PARAMETERS_MAX, errors="strict"
            )
        except ValueError as error:
            raise OptionError(f"the query cannot be read: {error}") from None
        self._values: dict[str, str] = {}
        for name, value in pairs:
            self._values.setdefault(name, value)

    def word(self, name: str) -> str | None:
        """Return a parameter as it is; None: it is not there."""
        return self._values.get(name)

    def number(self, name: str, default: int, low: int, high: int = INT_MAX) -> int:
        """Return a whole number.

        Raises:
            OptionError: it is none, or out of bounds.
        """
        text = self._values.get(name)
        if text is None:
            return default
        if not _INTEGER.fullmatch(text):
            raise OptionError(f"{name} is {text[:100]!r}, expected a whole number")
        value = int(text)
        if not low <= value <= high:
            raise OptionError(f"{name} is {value}, allowed: {low} to {high}")
        return value

    def flag(self, name: str) -> bool:
        """Return whether it says `true`, in any case. Everything else is false, as in Java."""
        return self._values.get(name, "").lower() == "true"

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        """Return one of some words; None: the parameter is not there.

        Raises:
            OptionError: it is another one.
        """
        word = self._values.get(name)
        if word is not None and word not in choices:
            raise OptionError(
                f"Invalid {name} {word[:100]}, allowed: {', '.join(filter(None, choices))}"
            )
        return word


def options_of(path: str, query: str) -> Options:
    """Return what an address asks for. The path is undecoded.

    Raises:
        NoSuchPathError: it is no path of the WebSocket API.
        OptionError: a parameter cannot be.
        InvalidNameError: the name of a topic or a subscription is none.
    """
    segments = path.split("/")[1:]
    parameters = Parameters(query)
    match segments:
        case ["ws", "v2", "producer", domain, tenant, namespace, topic]:
            return _producer(_topic(domain, tenant, namespace, topic), parameters)
        case ["ws", "v2", "consumer", domain, tenant, namespace, topic, subscription]:
            name = _topic(domain, tenant, namespace, topic)
            return _consumer([name], _decoded(subscription), parameters)
        case ["ws", "v2", "reader", domain, tenant, namespace, topic]:
            return _reader(_topic(domain, tenant, namespace, topic), parameters)
        case ["ws", "v3", "consumer", subscription]:
            pattern = _pattern(parameters)
            topics = [] if pattern is not None else _topics(parameters)
            return _consumer(topics, _decoded(subscription), parameters, pattern)
        case _:
            raise NoSuchPathError(
                "expected /ws/v2/producer, consumer or reader, then /{domain}/{tenant}/{namespace}"
                "/{topic}, for a consumer also /{subscription}; or /ws/v3/consumer/{subscription}"
            )


def _topic(domain: str, tenant: str, namespace: str, topic: str) -> TopicName:
    if domain not in {"persistent", "non-persistent"}:
        raise InvalidNameError(f"{domain[:100]!r} is neither persistent nor non-persistent")
    parts = "/".join(map(_decoded, (tenant, namespace, topic)))
    return TopicName.parse(f"{domain}://{parts}")


def _pattern(parameters: Parameters) -> TopicPattern | None:
    text = parameters.word("topicsPattern")
    if text is None:
        return None
    if parameters.word("topics") is not None:
        raise OptionError("topics and topicsPattern exclude each other")
    try:
        return TopicPattern.parse(text)
    except PatternError as error:
        raise OptionError(f"topicsPattern is {text[:100]!r}: {error}") from None


def _topics(parameters: Parameters) -> list[TopicName]:
    text = parameters.word("topics")
    names = [name.strip() for name in (text or "").split(",")]
    if not all(names):
        raise OptionError("topics must name topics, separated by commas")
    if len(names) > TOPICS_MAX:
        raise OptionError(f"topics names {len(names)} topics, allowed: {TOPICS_MAX}")
    return list(dict.fromkeys(map(TopicName.parse, names)))


def _decoded(segment: str) -> str:
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise InvalidNameError(f"{segment[:100]!r} is not UTF-8") from None


def _producer(topic: TopicName, parameters: Parameters) -> ProducerOptions:
    compression = parameters.choice("compressionType", tuple(COMPRESSIONS))
    hashing = parameters.choice("hashingScheme", ("JavaStringHash", "Murmur3_32Hash"))
    routing = parameters.choice(
        "messageRoutingMode", ("SinglePartition", "RoundRobinPartition", "CustomPartition")
    )
    keys = _encryption_keys(parameters)
    initial: int | None = None
    if parameters.word("initialSequenceId") is not None:
        initial = parameters.number("initialSequenceId", 0, -1, LONG_MAX - 1)
    return ProducerOptions(
        topic=topic,
        name=parameters.word("producerName") or None,
        initial_sequence_id=initial,
        murmur=hashing == "Murmur3_32Hash",
        round_robin=routing == "RoundRobinPartition",
        send_timeout_ms=parameters.number("sendTimeoutMillis", SEND_TIMEOUT_MS, 0),
        pending_max=parameters.number("maxPendingMessages", 0, 0),
        # What the client has encrypted cannot be joined or compressed any more.
        batching=parameters.flag("batchingEnabled") and not keys,
        batch_messages_max=parameters.number("batchingMaxMessages", BATCH_MESSAGES, 0),
        batch_delay_ms=parameters.number("batchingMaxPublishDelay", BATCH_DELAY_MS, 1),
        compression=(api.NONE if compression is None or keys else COMPRESSIONS[compression]),
        encryption_keys=keys,
    )


def _encryption_keys(parameters: Parameters) -> dict[str, EncryptionKey]:
    """Read the keys that a client encrypts with: base64 of `{"name": {"keyValue": base64}}`."""
    text = parameters.word("encryptionKeys")
    if text is None:
        return {}
    try:
        keys = msgspec.json.decode(
            b64decode(text.strip(), validate=True), type=dict[str, EncryptionKey]
        )
    except (binascii.Error, ValueError):
        keys = {}
    if not keys or not all(name.strip() for name in keys):
        raise OptionError(
            "encryptionKeys must be base64 of {name: {keyValue, metadata}}: the broker has no keys"
            " to encrypt with, so the client must encrypt and say how"
        )
    return {name.strip(): key for name, key in keys.items()}


_TYPES = {
    "Exclusive": SubscriptionType.EXCLUSIVE,
    "Shared": SubscriptionType.SHARED,
    "Failover": SubscriptionType.FAILOVER,
    "Key_Shared": SubscriptionType.KEY_SHARED,
}


def _consumer(
    topics: Sequence[TopicName],
    subscription: str,
    parameters: Parameters,
    pattern: TopicPattern | None = None,
) -> ConsumerOptions:
    check_subscription(subscription)
    type_name = parameters.choice("subscriptionType", tuple(_TYPES)) or "Exclusive"
    mode = parameters.choice("subscriptionMode", ("Durable", "NonDurable"))
    start = parameters.choice("subscriptionInitialPosition", ("Latest", "Earliest"))
    ack_timeout_ms = parameters.number("ackTimeoutMillis", 0, 0)
    if 0 < ack_timeout_ms < ACK_TIMEOUT_MS_MIN:
        raise OptionError(f"ackTimeoutMillis is {ack_timeout_ms}, allowed: 0 or from 1000")
    redeliveries_max = 0
    dead_letter_topic: TopicName | None = None
    dead_letter = parameters.word("deadLetterTopic")
    if dead_letter is not None or parameters.word("maxRedeliverCount") is not None:
        redeliveries_max = parameters.number("maxRedeliverCount", 0, 1)
        if not redeliveries_max:
            raise OptionError("deadLetterTopic needs maxRedeliverCount beside it, from 1")
        if not topics and not dead_letter:
            raise OptionError("topicsPattern and maxRedeliverCount need deadLetterTopic, too")
        dead_letter_topic = TopicName.parse(dead_letter or f"{topics[0]}-{subscription}-DLQ")
    return ConsumerOptions(
        topics=topics,
        subscription=subscription,
        pattern=pattern,
        type=_TYPES[type_name],
        durable=mode != "NonDurable",
        from_earliest=start == "Earliest",
        name=parameters.word("consumerName") or "",
        priority=parameters.number("priorityLevel", 0, 0),
        queue=_queue(parameters),
        pull=parameters.flag("pullMode"),
        ack_timeout_ms=ack_timeout_ms,
        negative_ack_delay_ms=parameters.number(
            "negativeAckRedeliveryDelay", NEGATIVE_ACK_DELAY_MS, 0
        ),
        redeliveries_max=redeliveries_max,
        dead_letter_topic=dead_letter_topic,
        crypto_failure=_crypto_failure(parameters),
    )


def _reader(topic: TopicName, parameters: Parameters) -> ReaderOptions:
    text = (parameters.word("messageId") or "latest").strip()
    start: api.MessageIdData | None = None
    if text not in {"earliest", "latest"}:
        start = message_id(text)
        if start is None:
            raise OptionError(
                f"messageId is {text[:100]!r}, expected earliest, latest or a message's id"
            )
    return ReaderOptions(
        topic=topic,
        subscription=f"reader-{secrets.token_hex(5)}",
        name=parameters.word("readerName") or "",
        queue=_queue(parameters),
        earliest=text == "earliest",
        start=start,
        crypto_failure=_crypto_failure(parameters),
    )


def _queue(parameters: Parameters) -> int:
    size = parameters.number("receiverQueueSize", RECEIVER_QUEUE_MAX, 0)
    return max(min(size, RECEIVER_QUEUE_MAX), 1)


def _crypto_failure(parameters: Parameters) -> CryptoFailure:
    try:
        return CryptoFailure(parameters.word("cryptoFailureAction") or "FAIL")
    except ValueError:
        return CryptoFailure.FAIL  # as Pulsar does, which only logs it


def message_id(text: str) -> api.MessageIdData | None:
    """Read a message's id as clients were told it; None: it is none."""
    try:
        found = api.MessageIdData.FromString(b64decode(text, validate=True))
    except (ValueError, DecodeError):  # not base64 is a ValueError, too
        return None
    return found if found.IsInitialized() else None
