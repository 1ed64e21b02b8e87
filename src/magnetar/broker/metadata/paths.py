"""Where each fact lies: the names of all keys, in one place.

    clusters/<cluster>                       JSON
    tenants/<tenant>                         JSON
    namespaces/<tenant>/<namespace>          JSON: the policies
    partitioned/<topic>                      JSON: how many partitions
    topics/<topic>                           JSON: one per topic or partition
    policies/<topic>                         JSON: what one topic, by its base name, says itself
    owners/<topic>                           number of the worker; its version is the epoch
    assignment/topics                        JSON: which worker has which topic (see `assignments`)
    ledgers/<topic>/<ledger>                 JSON: one per ledger of the chain
    compacted/<topic>/<ledger>               JSON: the compacted view (see `compactions`)
    dropped/<ledger>                         a ledger that no topic has any more
    held/<worker>, synced/<worker>           JSON: what must be on the disk (see `holdings`)
    cursors/<topic>/<cursor>                 JSON: one per durable subscription
    pages/<cursor>/<ledger>/<page>           bytes: acknowledged entries ahead of the mark
    sequences/<topic>/<producer>             JSON: what deduplication must not forget
    resource-groups/<name>                   JSON: rates that namespaces have in common
    settings/<name>                          JSON: a setting that people changed while it runs
    operated/<name>                          JSON: the same, changed by an operator
    changes/settings                         nothing: its version tells who was faster
    changes/processes                        JSON: how many an operator last asked for, and when
    live/<topic>                             nothing: a topic in some process's memory only
    placement/<kind>/<scope>/<name>          JSON: where things should be (see `placement`)
    transactions/<coordinator>/<number>      JSON: one that is not over; what belongs to it lies
                                             in transaction-... (see `transactions`)
    schemas/<schema>                         JSON: which versions there are
    definitions/<schema>/<version>           JSON: one version
    counters/ledger, counters/cursor         the last number given out

A topic is written `domain/tenant/namespace/local`; none of its parts has a slash. A schema is
written `tenant/namespace/local`: a topic, its partitions and its non-persistent twin share it.
Names that may have one (subscription, producer) come last or are kept in the value. Numbers are
16 hexadecimal digits, so that keys sort as the numbers do.
"""

from magnetar.broker.entry import TransactionId
from magnetar.names import NamespaceName, TopicName

TRANSACTIONS = "transactions/"
TRANSACTION_COORDINATORS = "transaction-coordinators"
TRANSACTION_BUFFERS = "transaction-buffers/"
TRANSACTION_ACKS = "transaction-acks/"
TOPIC_PART = "topic/"
CLUSTERS = "clusters/"
TENANTS = "tenants/"
NAMESPACES = "namespaces/"
PARTITIONED = "partitioned/"
TOPICS = "topics/"
POLICIES = "policies/"
ASSIGNMENTS = "assignment/"
ASSIGNMENT = "assignment/topics"
OWNERS = "owners/"
LEDGERS = "ledgers/"
COMPACTED = "compacted/"
DROPPED = "dropped/"
HELD = "held/"
SYNCED = "synced/"
RESOURCE_GROUPS = "resource-groups/"
SETTINGS = "settings/"
OPERATED = "operated/"
SETTINGS_CHANGED = "changes/settings"
PROCESSES_CHANGED = "changes/processes"
LIVE = "live/"
PLACEMENT = "placement/"
LEDGER_COUNTER = "counters/ledger"
CURSOR_COUNTER = "counters/cursor"


def cluster(name: str) -> str:
    """Return the key of a cluster."""
    return CLUSTERS + name


def tenant(name: str) -> str:
    """Return the key of a tenant."""
    return TENANTS + name


def namespace(name: NamespaceName) -> str:
    """Return the key of a namespace's policies."""
    return f"{NAMESPACES}{name}"


def partitioned(topic: TopicName) -> str:
    """Return the key of a partitioned topic."""
    return PARTITIONED + _topic(topic)


def topic(name: TopicName) -> str:
    """Return the key of a topic, or of one partition."""
    return TOPICS + _topic(name)


def policies(topic: TopicName) -> str:
    """Return the key of what a topic says itself. Its partitions have it in common."""
    return POLICIES + _topic(topic.base)


def owner(topic: TopicName) -> str:
    """Return the key that says which worker may extend the topic's chain."""
    return OWNERS + _topic(topic)


def ledgers(topic: TopicName) -> str:
    """Return the prefix of the topic's chain."""
    return f"{LEDGERS}{_topic(topic)}/"


def compacted(topic: TopicName) -> str:
    """Return the prefix of the topic's compacted ledgers."""
    return f"{COMPACTED}{_topic(topic)}/"


def cursors(topic: TopicName) -> str:
    """Return the prefix of the topic's cursors."""
    return f"cursors/{_topic(topic)}/"


def pages(cursor: int) -> str:
    """Return the prefix of a cursor's pages."""
    return f"pages/{cursor:016x}/"


def page(cursor: int, ledger: int, number: int) -> str:
    """Return the key of one page."""
    return f"pages/{cursor:016x}/{ledger:016x}/{number:016x}"


def page_of(key: str) -> tuple[int, int]:
    """Return ledger and number of a page."""
    return int(key[-33:-17], 16), int(key[-16:], 16)


def sequences(topic: TopicName) -> str:
    """Return the prefix of what deduplication knows about a topic."""
    return f"sequences/{_topic(topic)}/"


def resource_group(name: str) -> str:
    """Return the key of a resource group."""
    return RESOURCE_GROUPS + name


def live(topic: TopicName) -> str:
    """Return the key that says that a topic is in memory."""
    return LIVE + _topic(topic)


def transaction_counter(coordinator: int) -> str:
    """Return the counter of a coordinator's transactions."""
    return f"counters/transaction/{coordinator:016x}"


def transactions(coordinator: int) -> str:
    """Return the prefix of a coordinator's transactions."""
    return f"{TRANSACTIONS}{coordinator:016x}/"


def transaction(each: TransactionId) -> str:
    """Return the key of a transaction."""
    return f"{transactions(each.most)}{each.least:016x}"


def transaction_parts(each: TransactionId) -> str:
    """Return the prefix of what takes part in a transaction."""
    return f"transaction-parts/{each.most:016x}/{each.least:016x}/"


def transaction_part(each: TransactionId, topic: TopicName) -> str:
    """Return the key that says that a topic takes part in a transaction."""
    return f"{transaction_parts(each)}{TOPIC_PART}{_topic(topic)}"


def transaction_cursor_part(each: TransactionId, cursor: int) -> str:
    """Return the key that says that a cursor takes part in a transaction."""
    return f"{transaction_parts(each)}cursor/{cursor:016x}"


def transaction_buffers(topic: TopicName) -> str:
    """Return the prefix of the transactions that a topic has entries of."""
    return f"{TRANSACTION_BUFFERS}{_topic(topic)}/"


def all_transaction_acks(cursor: int) -> str:
    """Return the prefix of the acknowledgements that are held back at a cursor."""
    return f"{TRANSACTION_ACKS}{cursor:016x}/"


def transaction_acks(cursor: int, each: TransactionId) -> str:
    """Return the prefix of those of one transaction."""
    return f"{all_transaction_acks(cursor)}{each.most:016x}/{each.least:016x}/"


def transaction_of_acks(prefix: str, key: str) -> TransactionId:
    """Return the transaction of a key below `all_transaction_acks`."""
    most, least, _ = key.removeprefix(prefix).split("/")
    return TransactionId(int(most, 16), int(least, 16))


def cursor_of_acks(key: str) -> int:
    """Return the cursor of a key below `TRANSACTION_ACKS`."""
    return int(key.removeprefix(TRANSACTION_ACKS).split("/", 1)[0], 16)


def schema(topic: TopicName) -> str:
    """Return the key that says which versions of its schema a topic has."""
    return f"schemas/{topic.tenant}/{topic.namespace}/{topic.base.local}"


def definitions(topic: TopicName) -> str:
    """Return the prefix of the versions of a topic's schema."""
    return f"definitions/{topic.tenant}/{topic.namespace}/{topic.base.local}/"


def schemas_in(name: NamespaceName) -> tuple[str, str]:
    """Return the prefixes of all schemas of a namespace, and of their versions."""
    return f"schemas/{name}/", f"definitions/{name}/"


def in_namespace(kind: str, name: NamespaceName, domain: str) -> str:
    """Return the prefix of what a kind (`TOPICS`, `POLICIES`...) has of a namespace."""
    return f"{kind}{domain}/{name.tenant}/{name.namespace}/"


def topic_name(kind: str, key: str) -> TopicName:
    """Return the topic that a key under `kind` stands for."""
    domain, rest = key.removeprefix(kind).split("/", 1)
    return TopicName.parse(f"{domain}://{rest}")


def _topic(name: TopicName) -> str:
    return f"{name.domain.value}/{name.tenant}/{name.namespace}/{name.local}"
