"""There are no bookies, and tools are told so in a shape they can read."""

from typing import Any

from tests.doors.admin.processes import Processes

BOOKIES = "/admin/v2/bookies"


async def test_there_are_no_bookies(ask: Any, one: Processes) -> None:
    assert (await ask(one.front, "GET", f"{BOOKIES}/all")).json == {"bookies": []}
    assert (await ask(one.front, "GET", f"{BOOKIES}/racks-info")).json == {}
    for method, body in (("GET", b""), ("POST", {}), ("DELETE", b"")):
        answer = await ask(one.front, method, f"{BOOKIES}/racks-info/b%2F1", body)
        assert (answer.status, "b/1" in answer.reason) == (404, True)


async def test_preferred_bookies_are_kept_and_shown(ask: Any, any_number: Processes) -> None:
    path = "/admin/v2/namespaces/public/default/persistence/bookieAffinity"
    front = any_number.front
    assert (await ask(front, "GET", path)).status == 204
    group = {"bookkeeperAffinityGroupPrimary": "a", "bookkeeperAffinityGroupSecondary": "b"}
    assert (await ask(front, "POST", path, group)).status == 204
    assert (await ask(front, "GET", path)).json == group
    for wrong in ({}, {"bookkeeperAffinityGroupSecondary": "b"}):
        assert (await ask(front, "POST", path, wrong)).status == 412
    assert (await ask(front, "GET", path)).json == group
    assert (await ask(front, "DELETE", path)).status == 204
    assert (await ask(front, "GET", path)).status == 204
    nothing = path.replace("default", "nothing")
    assert (await ask(front, "POST", nothing, group)).status == 404
