"""The draft against a plain model: commits one after the other, each on a copy of the state."""

from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.metadata.draft import Draft
from magnetar.broker.metadata.store import (
    PRESENT,
    Append,
    Change,
    Check,
    CheckEmpty,
    ConflictError,
    Delete,
    DeleteAll,
    Increment,
    Put,
    Versioned,
    numbered,
)

State = dict[str, Versioned]

KEYS = st.sampled_from(["a/1", "a/2", "b/1", "c"])
PREFIXES = st.sampled_from(["a/", "b/", "x/", ""])
VALUES = st.binary(max_size=2)
VERSIONS = st.sampled_from([None, PRESENT, 1, 2, 3, 4, 5])
CHANGES = st.one_of(
    st.builds(Put, KEYS, VALUES),
    st.builds(Put, KEYS, VALUES, st.integers(1, 6)),
    st.builds(Delete, KEYS),
    st.builds(DeleteAll, st.sampled_from(["a/", "b/", "x/"])),
    st.builds(Increment, st.just("n"), st.integers(1, 3)),
    st.builds(Append, st.just("n"), st.just("x/"), VALUES),
    st.builds(Check, KEYS, VERSIONS),
    st.builds(CheckEmpty, PREFIXES),
)
COMMITS = st.lists(st.lists(CHANGES, max_size=4), max_size=6)


class Model:
    """The rules of `Store.commit` in the plainest words."""

    def __init__(self) -> None:
        self.state: State = {}
        self.last_change = 0

    def commit(self, changes: list[Change]) -> list[int | None] | None:
        """Return the results; None: refused."""
        if not all(self._holds(change) for change in changes):
            return None
        return [self._write(change) for change in changes]

    def _holds(self, change: Change) -> bool:
        if isinstance(change, CheckEmpty):
            return not any(key.startswith(change.prefix) for key in self.state)
        if isinstance(change, Check) or (isinstance(change, Put) and change.version is not None):
            if change.version is None:
                return change.key not in self.state
            if change.key not in self.state:
                return False
            return change.version in {PRESENT, self.state[change.key].version}
        return True

    def _write(self, change: Change) -> int | None:
        match change:
            case Put(key, value):
                return self._set(key, value)
            case Delete(key):
                self._remove(key)
            case DeleteAll(prefix):
                for key in [key for key in self.state if key.startswith(prefix)]:
                    self._remove(key)
            case Increment(key, by):
                return self._count(key, by)
            case Append(counter, prefix, value):
                number = self._count(counter, 1)
                self._set(numbered(prefix, number), value)
                return number
            case _:
                pass
        return None

    def _count(self, key: str, by: int) -> int:
        number = by + (int(self.state[key].value) if key in self.state else 0)
        self._set(key, str(number).encode())
        return number

    def _set(self, key: str, value: bytes) -> int:
        self.last_change += 1
        self.state[key] = Versioned(value, self.last_change)
        return self.last_change

    def _remove(self, key: str) -> None:
        if key in self.state:
            self.last_change += 1
            del self.state[key]


def drafted(
    base: State, last_change: int, commits: list[list[Change]]
) -> tuple[Draft, list[object]]:
    draft = Draft(
        base.get, lambda prefix: [key for key in base if key.startswith(prefix)], last_change
    )
    outcomes: list[object] = []
    for commit in commits:
        try:
            outcomes.append(draft.add(commit))
        except ConflictError:
            outcomes.append(None)
    return draft, outcomes


def applied(base: State, draft: Draft) -> State:
    state = dict(base)
    for key, (version, value) in draft.writes.items():
        if value is None:
            state.pop(key, None)
        else:
            state[key] = Versioned(value, version)
    return state


@given(before=COMMITS, group=COMMITS)
def test_a_group_of_commits_is_as_good_as_one_commit_after_the_other(
    before: list[list[Change]], group: list[list[Change]]
) -> None:
    model = Model()
    for commit in before:
        model.commit(commit)
    base = dict(model.state)

    draft, outcomes = drafted(base, model.last_change, group)

    assert outcomes == [model.commit(commit) for commit in group]
    assert applied(base, draft) == model.state
    assert draft.last_change == model.last_change


@given(group=COMMITS)
def test_the_last_change_is_always_among_the_writes(group: list[list[Change]]) -> None:
    draft, _ = drafted({}, 7, group)
    assert draft.last_change == max((number for number, _ in draft.writes.values()), default=7)


def test_a_counter_raised_often_is_written_once() -> None:
    draft, outcomes = drafted({}, 0, [[Increment("n")] for _ in range(100)])
    assert outcomes == [[number] for number in range(1, 101)]
    assert draft.writes == {"n": (100, b"100")}
