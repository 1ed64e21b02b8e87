"""Resource quotas are kept and shown."""

from typing import Any

import pytest

from tests.doors.admin.processes import Processes

QUOTAS = "/admin/v2/resource-quotas"
BUNDLE = f"{QUOTAS}/public/default/0x00000000_0x40000000"


async def test_a_bundle_needs_what_any_does_until_somebody_says_otherwise(
    ask: Any, any_number: Processes
) -> None:
    front = any_number.front
    default = (await ask(front, "GET", QUOTAS)).json
    assert default["msgRateIn"] == 40
    assert (await ask(front, "GET", BUNDLE)).json == default
    assert (await ask(front, "POST", BUNDLE, {"msgRateIn": 7, "dynamic": False})).status == 204
    mine = (await ask(front, "GET", BUNDLE)).json
    assert (mine["msgRateIn"], mine["dynamic"], mine["memory"]) == (7, False, 80)
    assert (await ask(front, "POST", QUOTAS, {"memory": 1})).status == 204
    assert (await ask(front, "GET", QUOTAS)).json["memory"] == 1
    assert (await ask(front, "DELETE", BUNDLE)).status == 204
    assert (await ask(front, "GET", BUNDLE)).json["memory"] == 1


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (QUOTAS, b"", 400),
        (QUOTAS, {"memory": -1}, 412),
        (QUOTAS, {"memory": "much"}, 400),
        (f"{QUOTAS}/public/default/0x00000000_0x00000001", {}, 412),
        (f"{QUOTAS}/public/nothing/0x00000000_0x40000000", {}, 404),
    ],
)
async def test_a_quota_that_makes_no_sense_is_refused(
    ask: Any, one: Processes, path: str, body: Any, status: int
) -> None:
    assert (await ask(one.front, "POST", path, body)).status == status
