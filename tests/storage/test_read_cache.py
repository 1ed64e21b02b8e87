"""The read cache hands out what was put in, within its bounds, and nothing that is gone."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from magnetar.broker.storage.block import Block
from magnetar.broker.storage.read_buffers import ReadBuffers
from magnetar.broker.storage.read_cache import Brought, CacheFigures, Key, ReadCache
from tests.storage.rig import run_of

LOGS = ("a", "b", "c")
LEDGERS = 4
KEYS = st.tuples(st.sampled_from(LOGS), st.integers(0, 5))


def brought(buffers: ReadBuffers, ledger: int, text: bytes, size: int) -> Brought:
    """Return a block with one entry, as if it was read into pooled memory."""
    slab = buffers.take(size)
    slab.view[: len(text)] = text
    run = run_of([text])
    run.buffer = slab.view[: len(text)]
    run.base = run.u32(0)[0]
    return Brought(ledger, Block(0, run), slab)


class CacheModel(RuleBasedStateMachine):
    """The cache beside a plain dict of what was put in, and when each was used last."""

    def __init__(self) -> None:
        super().__init__()
        self.buffers = ReadBuffers()
        self.bytes_max = 1_000_000
        self.cache = ReadCache(self.bytes_max, self.buffers, CacheFigures())
        self.model: dict[Key, tuple[int, bytes, float]] = {}
        self.now_s = 0.0
        self.puts = 0
        self.held: list[tuple[Block, bytes]] = []

    @rule(key=KEYS, ledger=st.integers(1, LEDGERS), size=st.integers(100, 300_000))
    def keep(self, key: Key, ledger: int, size: int) -> None:
        self.puts += 1
        text = b"put %d" % self.puts
        self.cache.keep(key, brought(self.buffers, ledger, text, size), self.now_s)
        self.model[key] = ledger, text, self.now_s
        assert key in self.cache, "the newest always stays"

    @rule(key=KEYS, hold=st.booleans())
    def get(self, key: Key, hold: bool) -> None:
        found = self.cache.get(key, self.now_s)
        if found is None:
            return
        ledger, text, _ = self.model[key]
        assert bytes(found.run.body(0)) == text
        self.model[key] = ledger, text, self.now_s
        if hold:
            self.held.append((found, text))

    @precondition(lambda self: self.held)
    @rule()
    def let_go(self) -> None:
        self.held.pop()

    @rule(seconds=st.floats(0, 3))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(ttl_s=st.floats(0.1, 5))
    def expire(self, ttl_s: float) -> None:
        oldest_s = self.cache.expire(self.now_s - ttl_s)
        for key in self.cache:
            used_s = self.model[key][2]
            assert used_s > self.now_s - ttl_s
            assert oldest_s is not None
            assert oldest_s <= used_s
        assert (oldest_s is None) == (not len(self.cache))

    @rule(bytes_max=st.integers(10_000, 1_000_000))
    def limit(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.cache.limit(bytes_max)

    @rule(name=st.sampled_from(LOGS))
    def drop_log(self, name: str) -> None:
        self.cache.drop_log(name)
        assert all(key[0] != name for key in self.cache)

    @rule(ledger=st.integers(1, LEDGERS))
    def drop_ledger(self, ledger: int) -> None:
        self.cache.drop_ledgers(ledger.__eq__)
        assert all(self.model[key][0] != ledger for key in self.cache)

    @invariant()
    def bounds_hold(self) -> None:
        assert self.cache.bytes <= self.bytes_max or len(self.cache) == 1
        assert self.cache.entries == len(self.cache)
        figures = self.cache.figures
        assert figures.inserted_entries - figures.evicted_entries == len(self.cache)
        assert figures.evictions == figures.evicted_entries

    @invariant()
    def what_readers_hold_does_not_change(self) -> None:
        for found, text in self.held:
            assert bytes(found.run.body(0)) == text


CacheModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestCacheModel = CacheModel.TestCase


def test_what_was_used_longest_ago_goes_first() -> None:
    buffers = ReadBuffers()
    cache = ReadCache(250_000, buffers, CacheFigures())
    for at in range(3):
        cache.keep(("a", at), brought(buffers, 1, b"x", 98_304), float(at))
        assert cache.get(("a", 0), float(at)) is not None
    assert list(cache) == [("a", 2), ("a", 0)]
    assert cache.expire(1.9) == 2.0, "both were used a moment ago"
    assert cache.expire(2.0) is None


def test_a_model_that_forgets_to_look_would_fail() -> None:
    buffers = ReadBuffers()
    cache = ReadCache(1, buffers, CacheFigures())
    cache.keep(("a", 0), brought(buffers, 1, b"x", 98_304), 0.0)
    cache.keep(("a", 1), brought(buffers, 1, b"y", 98_304), 0.0)
    assert ("a", 0) not in cache, "the bound holds even where one block is more than it"
    assert len(cache) == 1
