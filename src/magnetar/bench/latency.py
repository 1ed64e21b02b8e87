"""One message each 1/rate seconds, and how long its receipt took.

The time counts from when a message should have left, so that a stall of the broker shows in every
message that it held up, not in one. `select` waits to the microsecond; epoll, which waits in whole
milliseconds, would add its own half to every time.
"""

import selectors
import time
from typing import Any

from magnetar.bench.dial import Lines
from magnetar.bench.histogram import Histogram
from magnetar.bench.load import Load, RunError
from magnetar.bench.pipeline import Pipeline, say_measuring
from magnetar.bench.publishing import producers
from magnetar.bench.sockets import cpu_s


def latency(load: Load) -> dict[str, Any]:
    """Publish at a steady rate over one connection."""
    lines = Lines(load)
    (pipeline,) = producers(lines, load)
    result = at_rate(pipeline, load.rate, load.warm_up_s, load.seconds, load.silence_s)
    lines.close()
    return result


def at_rate(
    pipeline: Pipeline, rate: float, warm_up_s: float, seconds: float, silence_s: float
) -> dict[str, Any]:
    """Send one request at a time, when it is due.

    Raises:
        RunError: nobody answered any more.
    """
    selector = selectors.SelectSelector()
    selector.register(pipeline.sock, selectors.EVENT_READ)
    count, interval, warm = int((seconds + warm_up_s) * rate), 1 / rate, int(warm_up_s * rate)
    times, sent, answered = Histogram(), 0, 0
    cpu, start = cpu_s(), time.perf_counter()
    heard = start
    say_measuring()
    while answered < count:
        now, due = time.perf_counter(), start + sent * interval
        if sent < count and now >= due:
            pipeline.send_one()
            sent += 1
        elif selector.select(max(0.0, due - now) if sent < count else 0.5):
            heard = time.perf_counter()
            for number in range(answered, answered + pipeline.receive()):
                if number >= warm:
                    times.add(heard - start - number * interval)
                answered = number + 1
        if sent > answered and now - heard > silence_s:
            raise RunError(f"the broker has said nothing for {silence_s:g} s", "see its log")
    return {
        "messages": count,
        "seconds": time.perf_counter() - start,
        "generator_cpu_s": cpu_s() - cpu,
        "times": dict(times.counts),
    }
