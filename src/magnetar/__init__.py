"""Magnetar: a durable messaging broker that speaks the Apache Pulsar protocol.

    import magnetar as mag

    with mag.Cluster("pulsar://127.0.0.1:6650") as cluster:
        cluster.producer("readings").send(b"73.9")

`import magnetar` costs next to nothing: the public names are loaded when they are first used
(PEP 562), so that `magnetar --version` imports no client and no server.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from magnetar.client.cluster import Cluster

__version__ = "0.1.0"

__all__ = ["Cluster", "__version__"]

_HOMES = {"Cluster": "magnetar.client.cluster"}


def __getattr__(name: str) -> object:
    """Load a public name from where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
