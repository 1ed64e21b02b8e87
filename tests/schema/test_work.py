"""What a judgement may cost."""

import pytest

from magnetar.broker.port import InvalidSchemaError
from magnetar.broker.schema.work import Budget


def test_a_budget_ends() -> None:
    budget = Budget(3)
    budget.spend(2)
    budget.spend()
    with pytest.raises(InvalidSchemaError):
        budget.spend()
