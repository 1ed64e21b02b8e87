"""The process that makes the load: `python -m magnetar.bench.generator`, a `Load` on its input.

    {"measuring": true}                     what happens from now on counts
    {"messages": ..., "seconds": ..., ...}  the end
    {"error": ..., "advice": ..., ...}      or that

It is a process of its own so that its work is not the measuring one's, and can be told apart.
"""

import sys

import msgspec

from magnetar.bench.consuming import consume
from magnetar.bench.latency import latency
from magnetar.bench.load import Load, RunError
from magnetar.bench.pipeline import say
from magnetar.bench.publishing import publish
from magnetar.client.credentials import CredentialsError

MODES = {"publish": publish, "consume": consume, "latency": latency}


def main() -> int:
    """Do what standard input says; return the exit code."""
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    try:
        say(MODES[load.mode](load))
    except RunError as error:
        say({"error": str(error), "advice": error.advice, "nobody_answers": error.nobody_answers})
    except TimeoutError:
        say({"error": f"the broker took nothing for {load.silence_s:g} s", "advice": "see its log"})
    except (OSError, CredentialsError) as error:
        say({"error": str(error), "advice": ""})
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
