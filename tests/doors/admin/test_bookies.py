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


async def test_no_bookies_are_preferred(ask: Any, one: Processes) -> None:
    path = "/admin/v2/namespaces/public/default/persistence/bookieAffinity"
    assert (await ask(one.front, "GET", path)).status == 404
    group = {"bookkeeperAffinityGroupPrimary": "a"}
    assert (await ask(one.front, "POST", path, group)).status == 412
    assert (await ask(one.front, "DELETE", path)).status == 204
