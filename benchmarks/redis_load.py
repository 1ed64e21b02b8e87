r"""Publish to a Redis stream over raw sockets.

Redis answers XADD with the new id, `$<length>\r\n<id>\r\n`: two line ends. With
`appendfsync always` the answer leaves after the sync of everything that arrived in the same
turn of its event loop. Source: the description of the RESP2 protocol.

`python -m benchmarks.redis_load '<json>'` prints one JSON object, as pulsar_load does.
"""

import json
import socket
import sys
from typing import Any

from benchmarks.pipeline import Pipeline, keep_full, pieces_of


def xadd(key: str, size_bytes: int) -> bytes:
    """Return one XADD with a single field of `size_bytes`."""
    parts = [b"XADD", key.encode(), b"*", b"m", b"x" * size_bytes]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)


class RedisPipeline(Pipeline):
    """Counts bulk string answers."""

    def count(self, data: bytes) -> tuple[int, int]:
        """Return how many answers are whole."""
        if data.startswith(b"-"):
            raise SystemExit(f"Redis answered {data[:200]!r}")
        lines = data.count(b"\n")
        if lines % 2 == 0 and data.endswith(b"\n"):
            return lines // 2, len(data)
        end = data.rfind(b"\r\n$") + 2  # up to the answer that is not whole yet
        return data.count(b"\n", 0, end) // 2, end


def publish(load: dict[str, Any]) -> dict[str, Any]:
    """Keep a window of XADDs in flight on every connection."""
    window = max(1, min(load["window_entries"], load["window_bytes"] // load["size_bytes"]))
    pieces = pieces_of([xadd("bench", load["size_bytes"])], window)
    pipelines = [
        RedisPipeline(socket.create_connection(("127.0.0.1", load["port"])), pieces, window)
        for _ in range(load["connections"])
    ]
    result = keep_full(pipelines, load["warm_up_s"], load["seconds"])
    return result | {"messages": result["requests"]}


if __name__ == "__main__":
    print(json.dumps(publish(json.loads(sys.argv[1]))), flush=True)
