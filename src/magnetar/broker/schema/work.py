"""How much one judgement may cost: counted in steps, not in seconds, so that it is repeatable.

A definition comes from a client. Small ones can describe enormous amounts of comparing (two
unions of a thousand branches each are a million pairs), so every node read and every pair
compared takes steps from a budget that all versions of a judgement share. A step is about 5 us.
"""

from magnetar.broker.port import InvalidSchemaError

STEPS_MAX = 500_000
"""The price of one judgement: some two and a half seconds of a schema thread. A record of fifty
fields costs some two thousand to be compared with one other, both ways."""

DEPTH_MAX = 100
"""Nested JSON values in one definition: some thirty records within each other. Deeper ones would
exhaust the stack of whoever reads them."""


class Budget:
    """The steps that are left."""

    __slots__ = ("left",)

    def __init__(self, steps: int = STEPS_MAX) -> None:
        self.left = steps

    def spend(self, steps: int = 1) -> None:
        """Take steps.

        Raises:
            InvalidSchemaError: none are left.
        """
        self.left -= steps
        if self.left < 0:
            raise InvalidSchemaError("the schema is too complex to be compared with the topic's")
