"""The meters of topics: which rates what passes a topic is measured against.

    published   the topic's own ── its resource group's ── the broker's      `Gate`, at the inlet
    dispatched  the subscription's ── the topic's ── the group's ── the broker's

The broker's and a group's meters are shared by many topics. Processes do not tell each other
how much they use: of a limit for all, each takes an equal part.
"""

from collections.abc import Callable, Iterable

from magnetar.broker.topics.figures import Rate
from magnetar.broker.topics.limits.gate import Gate
from magnetar.broker.topics.limits.policies import Rules
from magnetar.broker.topics.limits.rates import Limit, Meter, Meters, Turnstile
from magnetar.broker.topics.producers.producer import Inlet, OpenProducer

Time = Callable[[], float]
"""Tells the time, in seconds."""


class Shared:
    """The meters that topics of one process share."""

    def __init__(self, clock: Time, workers: int) -> None:
        """Take an equal part of each limit, as one of so many processes."""
        self.clock = clock
        self._workers = workers
        self._broker_publish: Meter | None = None
        self._broker_dispatch: Meter | None = None
        self._groups: dict[str, tuple[Meter, Meter]] = {}

    def meet(self, workers: int) -> None:
        """Take an equal part of each limit from now on, as one of so many. Limits are set again."""
        self._workers = workers

    def limit_broker(self, publish: Limit, dispatch: Limit) -> None:
        """Set what all topics together may do. Topics have to look again then."""
        self._broker_publish = self._changed(self._broker_publish, publish)
        self._broker_dispatch = self._changed(self._broker_dispatch, dispatch)

    def _changed(self, meter: Meter | None, limit: Limit) -> Meter | None:
        if not limit.any:
            return None
        meter = meter or Meter(self.clock())
        meter.set(self._part(limit))
        return meter

    def limit_group(self, name: str, publish: Limit, dispatch: Limit) -> None:
        """Set what the topics of a resource group together may do."""
        for meter, limit in zip(self._group(name), (publish, dispatch), strict=True):
            meter.set(self._part(limit))

    def group_limits(self, name: str) -> tuple[Limit, Limit]:
        """Return what this process takes of the rates of a group: published, and dispatched."""
        publish, dispatch = self._group(name)
        return publish.limit, dispatch.limit

    def _group(self, name: str) -> tuple[Meter, Meter]:
        now_s = self.clock()
        return self._groups.setdefault(name, (Meter(now_s), Meter(now_s)))

    def _part(self, limit: Limit) -> Limit:
        return limit._replace(
            messages=limit.messages / self._workers, bytes=limit.bytes / self._workers
        )

    def publish(self, rules: Rules) -> list[Meter]:
        """Return the meters for what is published to a topic with these rules."""
        group = [self._group(rules.resource_group)[0]] if rules.resource_group else []
        return [*group, *([self._broker_publish] if self._broker_publish is not None else [])]

    def dispatch(self, rules: Rules) -> list[Meter]:
        """Return the meters for what is dispatched from a topic with these rules."""
        group = [self._group(rules.resource_group)[1]] if rules.resource_group else []
        return [*group, *([self._broker_dispatch] if self._broker_dispatch is not None else [])]


class Pacing:
    """The meters of one topic. Made when first there is one."""

    __slots__ = ("_dispatch", "_flow", "_publish", "_shared", "_subscriptions", "turnstile")

    def __init__(self, shared: Shared, inlet: Inlet) -> None:
        self._shared = shared
        rate = Rate(shared.clock(), inlet.messages_in, inlet.bytes_in)
        self._flow = lambda now_s: rate.read(now_s, inlet.messages_in, inlet.bytes_in)
        self._publish: Meter | None = None
        self._dispatch: Meter | None = None
        self._subscriptions: dict[str, Meter] = {}
        self.turnstile = Turnstile()

    def gate(self, rules: Rules) -> Gate | None:
        """Return what is asked of each message; None: nothing."""
        self._publish = self._own(self._publish, rules.publish_rate)
        meters = self._meters([self._publish, *self._shared.publish(rules)])
        if meters is None and not rules.message_bytes_max and not rules.delay_ms_max:
            return None
        return Gate(meters, rules.message_bytes_max, rules.delay_ms_max)

    def dispatch(self, rules: Rules) -> None:
        """Take what all subscriptions together may be sent."""
        self._dispatch = self._own(self._dispatch, rules.dispatch_rate)

    def throttle(self, rules: Rules, subscription: str) -> Meters | None:
        """Return what a subscription's messages are measured against; None: nothing."""
        limit = rules.own_dispatch_rates.get(subscription, rules.subscription_dispatch_rate)
        own = self._own(self._subscriptions.pop(subscription, None), limit)
        if own is not None:
            self._subscriptions[subscription] = own
        return self._meters([own, self._dispatch, *self._shared.dispatch(rules)])

    def forget(self, subscription: str) -> None:
        """Forget a subscription: it is gone."""
        self._subscriptions.pop(subscription, None)

    def _own(self, meter: Meter | None, limit: Limit) -> Meter | None:
        if not limit.any:
            return None
        if meter is None:
            return Meter(self._shared.clock(), limit, self._flow)
        meter.set(limit)
        return meter

    def _meters(self, meters: Iterable[Meter | None]) -> Meters | None:
        found = [meter for meter in meters if meter is not None]
        return Meters(self._shared.clock, found) if found else None


def asks_nothing(rules: Rules, shared: Shared) -> bool:
    """Return whether a topic with these rules needs no meters and no gate."""
    return not (
        rules.publish_rate.any
        or rules.dispatch_rate.any
        or rules.subscription_dispatch_rate.any
        or rules.own_dispatch_rates
        or rules.subscribe_rate.any
        or rules.message_bytes_max
        or rules.delay_ms_max
        or shared.publish(rules)
        or shared.dispatch(rules)
    )


def pace(meters: Meters, producer: OpenProducer, messages: int, size_bytes: int) -> None:
    """Count what was taken, and keep its producer waiting if that was too much."""
    meters.take(messages, size_bytes)
    debt_s = meters.debt_s()
    if debt_s > 0 and producer.throttle is not None:
        producer.inlet.throttled += 1
        producer.throttle(debt_s)
