"""What holds for every test."""

import os
import signal

from hypothesis import HealthCheck, settings

from magnetar.cli.demo import broker

# How long an example takes says more about the machine than about the code: a test that hangs
# is stopped by pytest-timeout, and what must be fast is measured, not timed by the way.
settings.register_profile(
    "house", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
# A build server draws the same examples every time, so that a change fails by its own fault.
settings.register_profile("repeat", settings.get_profile("house"), derandomize=True)
settings.load_profile(os.environ.get("TESTS_EXAMPLES", "house"))

# A job in the background is started with Ctrl-C ignored, and so would be what tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests run in several processes at once (pytest-xdist). Each picks its brokers' ports from a range
# of its own: a port that one process has found free, and not taken yet, is no other's to find.
FARTHEST_PORT = 2_000
"""The highest port of a broker is so far above its Pulsar port."""
PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if PROCESSES > 1:
    span = broker.PORTS // PROCESSES
    broker.FIRST_PORT += span * int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    broker.PORTS = span - FARTHEST_PORT
