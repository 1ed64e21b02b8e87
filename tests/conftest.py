"""What holds for every test."""

import os

from hypothesis import HealthCheck, settings

# How long an example takes says more about the machine than about the code: a test that hangs
# is stopped by pytest-timeout, and what must be fast is measured, not timed by the way.
settings.register_profile(
    "house", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
# A build server draws the same examples every time, so that a change fails by its own fault.
settings.register_profile("repeat", settings.get_profile("house"), derandomize=True)
settings.load_profile(os.environ.get("TESTS_EXAMPLES", "house"))
