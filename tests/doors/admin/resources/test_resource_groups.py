"""Resource groups: rates that several namespaces have in common."""

from typing import Any

from magnetar.broker.topics.limits.rates import Limit
from tests.doors.admin.processes import Processes
from tests.waiting import until

GROUPS = "/admin/v2/resourcegroups"
NS = "/admin/v2/namespaces/public/default"


async def test_a_group_is_made_changed_shown_and_removed(ask: Any, one: Processes) -> None:
    assert (await ask(one.front, "GET", GROUPS)).json == []
    assert (await ask(one.front, "GET", f"{GROUPS}/gold")).status == 404
    assert (await ask(one.front, "PUT", f"{GROUPS}/gold", {"publishRateInMsgs": 5})).status == 204
    assert (await ask(one.front, "PUT", f"{GROUPS}/gold", {"dispatchRateInBytes": 7})).status == 204
    assert (await ask(one.front, "GET", GROUPS)).json == ["gold"]
    shown = (await ask(one.front, "GET", f"{GROUPS}/gold")).json
    assert shown == {"publishRateInMsgs": 5, "dispatchRateInBytes": 7}
    assert (await ask(one.front, "DELETE", f"{GROUPS}/gold")).status == 204
    assert (await ask(one.front, "DELETE", f"{GROUPS}/gold")).status == 404


async def test_a_group_that_cannot_be_is_refused(ask: Any, one: Processes) -> None:
    for body, status in (({"publishRateInMsgs": -2}, 412), ({"publishRateInMsgs": "x"}, 400)):
        assert (await ask(one.front, "PUT", f"{GROUPS}/gold", body)).status == status
    assert (await ask(one.front, "PUT", f"{GROUPS}/a%2Fb", {})).status == 412
    assert (await ask(one.front, "GET", GROUPS)).json == []


async def test_a_namespace_belongs_to_one_group_which_stays_while_it_does(
    ask: Any, one: Processes
) -> None:
    path = f"{NS}/resourcegroup"
    assert (await ask(one.front, "POST", f"{path}/gold")).status == 412
    await ask(one.front, "PUT", f"{GROUPS}/gold", {"publishRateInMsgs": 5})
    assert (await ask(one.front, "GET", path)).status == 204
    assert (await ask(one.front, "POST", f"{path}/gold")).status == 204
    assert (await ask(one.front, "GET", path)).json == "gold"
    assert (await ask(one.front, "DELETE", f"{GROUPS}/gold")).status == 412
    assert (await ask(one.front, "DELETE", path)).status == 204
    assert (await ask(one.front, "DELETE", f"{GROUPS}/gold")).status == 204


async def test_each_process_takes_its_part_of_a_rate_and_follows_changes(
    ask: Any, two: Processes
) -> None:
    def limits() -> list[Limit]:
        return [process.catalog.shared.group_limits("gold")[0] for process in two.all]

    await ask(two.front, "PUT", f"{GROUPS}/gold", {"publishRateInMsgs": 100})
    await until(lambda: [each.messages for each in limits()] == [50, 50])
    await ask(two.front, "PUT", f"{GROUPS}/gold", {"publishRateInMsgs": -1})
    await until(lambda: not any(each.any for each in limits()))
