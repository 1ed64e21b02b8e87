"""Magnetar: a durable messaging broker that speaks the Apache Pulsar protocol.

`import magnetar as mag` costs next to nothing: the public names below are loaded when they
are first used (PEP 562), so that `magnetar --version` imports no client and no server.
"""

__version__ = "0.1.0"
