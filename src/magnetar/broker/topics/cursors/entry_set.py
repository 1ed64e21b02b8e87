"""Sets of entries, and small numbers about entries, packed by page.

    a page = 4,096 neighbouring entries of one ledger, found by (ledger, entry >> 12)

    EntrySet   page ──▶ one whole number whose bit i says whether entry (page << 12) + i is in
               the set; pages without a bit are not there, whole pages share one object
    EntryMap   page ──▶ a small dict while few of its entries have a number, an array of 4,096
               numbers once many do; 0 and absent are the same

A bitmap is a Python integer rather than a bytearray, because a run of neighbouring entries
is then set, cleared, counted or searched with one operation in C. It is as long as its
highest bit: 576 bytes at most for 4,096 entries. So is Roaring's bitmap container, which
this follows; its array and run containers are left out, since what is acknowledged out of
order lies close together.

Knows nothing of what lies between ledgers: a range never crosses from one to the next.
"""

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from magnetar.broker.entry import EntryId

PAGE_BITS = 12
PAGE_ENTRIES = 1 << PAGE_BITS
PAGE_MASK = PAGE_ENTRIES - 1
FULL = (1 << PAGE_ENTRIES) - 1
"""The bitmap of a whole page: one object, however many pages are whole."""

PageKey = tuple[int, int]
"""(ledger, entry >> 12). Sorts in log order."""

SPARSE_MAX = 256
"""Numbers in a page of an `EntryMap` above which it becomes an array."""
SPARSE_AGAIN = 64
"""... and down to which an array becomes a dict again. Far apart, so that it does not flap."""


class Range(NamedTuple):
    """Neighbouring entries of one ledger."""

    ledger: int
    first: int
    length: int


def trailing_ones(bits: int) -> int:
    """Count the ones below the lowest zero."""
    return (~bits & (bits + 1)).bit_length() - 1


def trailing_zeros(bits: int) -> int:
    """Count the zeros below the lowest one. `bits` must not be 0."""
    return (bits & -bits).bit_length() - 1


def runs_of_ones(bits: int) -> Iterator[tuple[int, int]]:
    """Yield (first bit, how many) for each run of ones, lowest first."""
    at = 0
    while bits:
        zeros = trailing_zeros(bits)
        at += zeros
        bits >>= zeros
        ones = trailing_ones(bits)
        yield at, ones
        at += ones
        bits >>= ones


def runs_of_zeros(bits: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield (first bit, how many) for each run of zeros within the lowest `count` bits."""
    return runs_of_ones(~bits & ((1 << count) - 1))


class EntrySet:
    """A set of entries that is small when its members are neighbours."""

    __slots__ = ("_keys", "count", "pages")

    def __init__(self) -> None:
        self.pages: dict[PageKey, int] = {}
        self.count = 0
        self._keys: list[PageKey] | None = None

    def __contains__(self, position: tuple[int, int]) -> bool:
        ledger, entry = position
        page = self.pages.get((ledger, entry >> PAGE_BITS))
        return page is not None and bool(page >> (entry & PAGE_MASK) & 1)

    def __len__(self) -> int:
        return self.count

    def add(self, ledger: int, first: int, count: int = 1) -> int:
        """Add neighbouring entries; return how many were not in the set before."""
        added = 0
        pages = self.pages
        while count > 0:
            key = (ledger, first >> PAGE_BITS)
            low = first & PAGE_MASK
            here = min(count, PAGE_ENTRIES - low)
            new = ((1 << here) - 1) << low
            old = pages.get(key)
            if old is None:
                self._keys = None
                pages[key] = FULL if here == PAGE_ENTRIES else new
                added += here
            else:
                overlap = old & new
                added += here - overlap.bit_count()
                bits = old | new
                pages[key] = FULL if bits == FULL else bits
            first += here
            count -= here
        self.count += added
        return added

    def discard(self, ledger: int, first: int, count: int = 1) -> int:
        """Remove neighbouring entries; return how many were in the set."""
        removed = 0
        pages = self.pages
        while count > 0:
            key = (ledger, first >> PAGE_BITS)
            low = first & PAGE_MASK
            here = min(count, PAGE_ENTRIES - low)
            old = pages.get(key)
            if old is not None:
                gone = old & (((1 << here) - 1) << low)
                if gone:
                    removed += gone.bit_count()
                    bits = old ^ gone
                    if bits:
                        pages[key] = bits
                    else:
                        del pages[key]
                        self._keys = None
            first += here
            count -= here
        self.count -= removed
        return removed

    def bits(self, ledger: int, first: int, count: int) -> int:
        """Return members of a window as a bitmap: bit `i` stands for entry `first + i`."""
        if not self.pages:
            return 0
        bits = 0
        done = 0
        while done < count:
            low = (first + done) & PAGE_MASK
            here = min(count - done, PAGE_ENTRIES - low)
            page = self.pages.get((ledger, (first + done) >> PAGE_BITS))
            if page is not None:
                bits |= (page >> low & ((1 << here) - 1)) << done
            done += here
        return bits

    def run_at(self, ledger: int, entry: int) -> int:
        """Return how many neighbouring members start at `entry`; looks no further than its page."""
        page = self.pages.get((ledger, entry >> PAGE_BITS))
        return 0 if page is None else trailing_ones(page >> (entry & PAGE_MASK))

    def sorted_pages(self) -> list[PageKey]:
        """Return the keys of all pages in log order. Do not change the list."""
        if self._keys is None:
            self._keys = sorted(self.pages)
        return self._keys

    def first(self) -> Range | None:
        """Return the lowest member and its neighbours within its page; None if empty."""
        if not self.pages:
            return None
        key = self.sorted_pages()[0]
        page = self.pages[key]
        low = trailing_zeros(page)
        return Range(key[0], (key[1] << PAGE_BITS) + low, trailing_ones(page >> low))

    def ranges(self) -> Iterator[Range]:
        """Yield all members in log order as the longest ranges there are."""
        last: Range | None = None
        for key in self.sorted_pages().copy():
            ledger, number = key
            start = number << PAGE_BITS
            for low, ones in runs_of_ones(self.pages.get(key, 0)):
                if (
                    last is not None
                    and last.ledger == ledger
                    and last.first + last.length == start + low
                ):
                    last = Range(ledger, last.first, last.length + ones)
                else:
                    if last is not None:
                        yield last
                    last = Range(ledger, start + low, ones)
        if last is not None:
            yield last

    def range_count(self) -> int:
        """Return how many ranges `ranges` yields, without making them."""
        total = 0
        for (ledger, number), bits in self.pages.items():
            total += (bits & ~(bits << 1)).bit_count()
            if bits & 1:
                # It goes on from the page before if that one ends with a member.
                total -= self.pages.get((ledger, number - 1), 0) >> (PAGE_ENTRIES - 1)
        return total

    def discard_up_to(self, position: EntryId) -> int:
        """Remove everything up to and including `position`; return how many that were."""
        if not self.pages:
            return 0
        ledger, entry = position
        border = (ledger, (entry + 1) >> PAGE_BITS)
        below = [key for key in self.pages if key < border]
        removed = sum(self.pages.pop(key).bit_count() for key in below)
        if below:
            self._keys = None
        self.count -= removed
        low = (entry + 1) & PAGE_MASK
        return removed + (self.discard(ledger, entry + 1 - low, low) if low else 0)

    def update(self, other: "EntrySet") -> None:
        """Add all members of another set."""
        for (ledger, number), bits in other.pages.items():
            for low, ones in runs_of_ones(bits):
                self.add(ledger, (number << PAGE_BITS) + low, ones)

    def clear(self) -> None:
        """Remove everything."""
        self.pages.clear()
        self.count = 0
        self._keys = None

    def load_page(self, key: PageKey, bits: int) -> None:
        """Replace a whole page."""
        self.count += bits.bit_count() - self.pages.pop(key, 0).bit_count()
        self._keys = None
        if bits:
            self.pages[key] = FULL if bits == FULL else bits


class EntryMap:
    """A number above 0 for some entries; an entry without one has 0."""

    __slots__ = ("_max", "_typecode", "pages")

    def __init__(self, typecode: str) -> None:
        self._typecode = typecode
        self._max = (1 << 8 * array(typecode).itemsize) - 1
        # An array has one more item at its end: how many of its numbers are not 0.
        self.pages: dict[PageKey, dict[int, int] | array[int]] = {}

    def get(self, ledger: int, entry: int) -> int:
        """Return the number of an entry."""
        page = self.pages.get((ledger, entry >> PAGE_BITS))
        if page is None:
            return 0
        if isinstance(page, dict):
            return page.get(entry & PAGE_MASK, 0)
        return page[entry & PAGE_MASK]

    def window(self, ledger: int, first: int, count: int) -> list[int] | None:
        """Return the numbers of neighbouring entries; None if all of them are 0."""
        if count == 1:
            value = self.get(ledger, first)
            return [value] if value else None
        found: list[int] | None = None
        done = 0
        while done < count:
            low = (first + done) & PAGE_MASK
            here = min(count - done, PAGE_ENTRIES - low)
            page = self.pages.get((ledger, (first + done) >> PAGE_BITS))
            if page is not None:
                if isinstance(page, dict):
                    values = [page.get(i, 0) for i in range(low, low + here)]
                else:
                    values = page[low : low + here].tolist()
                if any(values):
                    if found is None:
                        found = [0] * count
                    found[done : done + here] = values
            done += here
        return found

    def put(self, ledger: int, entry: int, value: int) -> None:
        """Set the number of an entry; one too large for the map becomes the largest."""
        if value <= 0:
            self.pop(ledger, entry)
            return
        value = min(value, self._max)
        key = (ledger, entry >> PAGE_BITS)
        low = entry & PAGE_MASK
        page = self.pages.get(key)
        if page is None:
            self.pages[key] = {low: value}
        elif isinstance(page, dict):
            page[low] = value
            if len(page) > SPARSE_MAX:
                self.pages[key] = self._dense(page)
        else:
            page[PAGE_ENTRIES] += not page[low]
            page[low] = value

    def put_range(self, ledger: int, first: int, values: Sequence[int]) -> None:
        """Set the numbers of neighbouring entries. None may exceed what the map holds."""
        done = 0
        while done < len(values):
            low = (first + done) & PAGE_MASK
            here = min(len(values) - done, PAGE_ENTRIES - low)
            self._put_in_page(
                (ledger, (first + done) >> PAGE_BITS), low, values[done : done + here]
            )
            done += here

    def pop(self, ledger: int, entry: int) -> int:
        """Forget the number of an entry and return it."""
        return self.pop_range(ledger, entry, 1)

    def pop_range(self, ledger: int, first: int, count: int) -> int:
        """Forget the numbers of neighbouring entries; return their sum."""
        total = 0
        if not self.pages:
            return 0
        while count > 0:
            low = first & PAGE_MASK
            here = min(count, PAGE_ENTRIES - low)
            total += self._pop_in_page((ledger, first >> PAGE_BITS), low, here)
            first += here
            count -= here
        return total

    def pop_up_to(self, position: EntryId) -> int:
        """Forget the numbers up to and including `position`; return their sum."""
        if not self.pages:
            return 0
        ledger, entry = position
        border = (ledger, (entry + 1) >> PAGE_BITS)
        total = 0
        for key in [key for key in self.pages if key < border]:
            total += self._pop_in_page(key, 0, PAGE_ENTRIES)
        low = (entry + 1) & PAGE_MASK
        return total + (self._pop_in_page(border, 0, low) if low else 0)

    def clear(self) -> None:
        """Forget everything."""
        self.pages.clear()

    def _put_in_page(self, key: PageKey, low: int, values: Sequence[int]) -> None:
        page = self.pages.get(key)
        if page is None or isinstance(page, dict):
            nonzero = {low + i: value for i, value in enumerate(values) if value}
            if page is None:
                page = {}
            page.update(nonzero)
            if len(nonzero) < len(values):
                for i, value in enumerate(values):
                    if not value:
                        page.pop(low + i, None)
            self.pages[key] = self._dense(page) if len(page) > SPARSE_MAX else page
            if not page:
                del self.pages[key]
            return
        high = low + len(values)
        before = (high - low) - page[low:high].count(0)
        page[low:high] = array(self._typecode, values)
        page[PAGE_ENTRIES] += len(values) - values.count(0) - before
        self._thin(key, page)

    def _pop_in_page(self, key: PageKey, low: int, count: int) -> int:
        page = self.pages.get(key)
        if page is None:
            return 0
        if count == 1:
            return self._pop_one(key, page, low)
        if isinstance(page, dict):
            if count > len(page):
                entries = [entry for entry in page if low <= entry < low + count]
            else:
                entries = [entry for entry in range(low, low + count) if entry in page]
            total = sum(page.pop(entry) for entry in entries)
            if not page:
                del self.pages[key]
            return total
        values = page[low : low + count]
        total = sum(values)
        if total:
            page[PAGE_ENTRIES] -= count - values.count(0)
            page[low : low + count] = array(self._typecode, bytes(count * page.itemsize))
            self._thin(key, page)
        return total

    def _pop_one(self, key: PageKey, page: "dict[int, int] | array[int]", low: int) -> int:
        if isinstance(page, dict):
            value = page.pop(low, 0)
            if not page:
                del self.pages[key]
            return value
        value = page[low]
        if value:
            page[low] = 0
            page[PAGE_ENTRIES] -= 1
            self._thin(key, page)
        return value

    def _dense(self, page: dict[int, int]) -> "array[int]":
        numbers = array(self._typecode, bytes((PAGE_ENTRIES + 1) * array(self._typecode).itemsize))
        for low, value in page.items():
            numbers[low] = value
        numbers[PAGE_ENTRIES] = len(page)
        return numbers

    def _thin(self, key: PageKey, page: "array[int]") -> None:
        if page[PAGE_ENTRIES] == 0:
            del self.pages[key]
        elif page[PAGE_ENTRIES] <= SPARSE_AGAIN:
            self.pages[key] = {low: value for low, value in enumerate(page[:PAGE_ENTRIES]) if value}
