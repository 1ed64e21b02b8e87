"""What administrators change is noted, once, with before and after."""

from typing import Any

import pytest

from magnetar.broker.access.caller import Caller
from magnetar.broker.doors.admin.app import AdminApp
from magnetar.broker.doors.admin.http.siblings import CALLER_HEADER
from magnetar.broker.metadata.memory import MemoryStore
from tests.access.conftest import furnish, new_guard, token
from tests.doors.admin.conftest import Ask

WHERE = "/admin/v2/namespaces/here/ns"


class Notes:
    """An audit that remembers."""

    def __init__(self) -> None:
        self.changes: list[Any] = []
        self.denials: list[Any] = []

    def changed(self, *told: Any) -> None:
        self.changes.append(told)

    def denied(self, *told: Any) -> None:
        self.denials.append(told)


@pytest.fixture
async def notes() -> Notes:
    return Notes()


@pytest.fixture
async def app(new_context: Any, notes: Notes) -> AdminApp:
    store = MemoryStore()
    await furnish(store)
    access = new_guard(store).access
    await access.grantor.start()
    access.audit = notes  # type: ignore[assignment]
    return AdminApp(new_context(store, access=access))


def bearer(role: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token(role)}"}


async def test_a_grant_is_noted_with_what_was_before(ask: Ask, app: AdminApp, notes: Notes) -> None:
    where = f"{WHERE}/permissions/anna"
    assert (await ask(app, "POST", where, ["produce"], bearer("admin"))).status == 204
    ((caller, call, status, before, after),) = notes.changes
    assert (caller.role, call, status) == ("admin", f"POST {where}", 204)
    assert "anna" not in before["auth_policies"]["namespace_auth"]
    assert after["auth_policies"]["namespace_auth"]["anna"] == ["produce"]


async def test_grants_on_many_topics_are_noted_with_what_was_asked(
    ask: Ask, app: AdminApp, notes: Notes
) -> None:
    where = "/admin/v2/namespaces/grantPermissionsOnTopics"
    told = [{"topic": "persistent://here/ns/t", "role": "anna", "actions": ["produce"]}]
    assert (await ask(app, "POST", where, told, bearer("admin"))).status == 204
    ((caller, call, status, before, after),) = notes.changes
    assert (caller.role, call, status, before) == ("admin", f"POST {where}", 204, None)
    assert after == {"asked": told}
    assert (await ask(app, "POST", where, told, bearer("producer"))).status == 403
    assert (len(notes.changes), len(notes.denials)) == (1, 1)


async def test_questions_and_mistakes_are_not_noted_as_changes(
    ask: Ask, app: AdminApp, notes: Notes
) -> None:
    await ask(app, "GET", f"{WHERE}/permissions", headers=bearer("admin"))
    await ask(app, "POST", f"{WHERE}/permissions/anna", ["fly"], bearer("admin"))
    assert (notes.changes, notes.denials) == ([], [])
    await ask(app, "POST", f"{WHERE}/permissions/anna", ["produce"], bearer("producer"))
    assert notes.changes == []
    assert len(notes.denials) == 1


async def test_what_a_sibling_passes_on_is_noted_where_it_came_in(
    ask: Ask, app: AdminApp, notes: Notes
) -> None:
    named = {CALLER_HEADER: Caller("admin", "token").to_text()}
    answer = await ask(app, "POST", f"{WHERE}/permissions/anna", ["produce"], named)
    assert (answer.status, notes.changes) == (204, [])
