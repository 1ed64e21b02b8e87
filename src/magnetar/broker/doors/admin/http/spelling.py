"""Names of headers that keep their capital letters on the wire.

    Spelled(b"X-Pulsar-PROPERTY").lower()  ──▶  b"X-Pulsar-PROPERTY"

HTTP does not care, but Pulsar's Java client compares one name letter by letter. uvicorn lowers
every name before it writes it; a name of this kind stays as it is.
"""


class Spelled(bytes):
    """The name of a header, which `lower` leaves alone."""

    __slots__ = ()

    def lower(self) -> bytes:
        """Return the name as it is."""
        return bytes(self)
