r"""Topic patterns: regular expressions whose matching takes time in proportion to the name.

    a|b   sequence   x* x+ x? x{2} x{2,} x{2,5}   ( ) (?: )   . [a-z] [^a-z] \d \w \s \. ^ $

Python's `re` tries alternatives one after the other, and a client could send a pattern that
keeps it trying for years, with the event loop standing still. Apache Pulsar uses RE2 for that
reason; this is the same idea, after Thompson: all alternatives are followed at once as a set of
states, and each set is remembered, so that a name costs a dictionary look-up per character.
What such a machine cannot do, back-references and looking around, is refused. `\d`, `\w` and
`\s` mean ASCII, as in RE2.
"""

import asyncio
import re
from collections.abc import Iterable
from typing import NamedTuple

PATTERN_LENGTH_MAX = 1_024
"""Characters of a pattern."""

NESTING_MAX = 50
"""Groups within groups."""

STATES_MAX = 4_096
"""States of the machine: repeats with numbers are written out."""

REMEMBERED_MAX = 10_000
"""Steps remembered at a time; beyond it, remembering starts anew."""


WORK_PER_TURN = 5_000
"""States visited before the event loop gets its turn again: about two milliseconds."""

WORK_PER_NAME = 20
"""What a name costs that visits no new state, in the same measure."""

_PARTITION = re.compile(r"-partition-[0-9]+$")


class PatternError(ValueError):
    """The text is no pattern, or one that is not supported. The message says where."""


class Chars(NamedTuple):
    """One character out of ranges, or out of everything else."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool = False

    def has(self, char: str) -> bool:
        """Report whether a character is meant."""
        return any(low <= char <= high for low, high in self.ranges) is not self.negated


class Split(NamedTuple):
    """Go on at several states at once."""

    to: tuple[int, ...]


class Anchor(NamedTuple):
    """Go on only at the start of the name, or only at its end."""

    at_end: bool
    to: int


class Step(NamedTuple):
    """Take one character and go on."""

    chars: Chars
    to: int


class Here:
    """A set of states the machine may be in, and where each character leads from it."""

    __slots__ = ("accepts", "steps", "to")

    def __init__(self, steps: tuple[Step, ...], *, accepts: bool) -> None:
        self.steps = steps
        self.accepts = accepts
        self.to: dict[str, Here] = {}


_DIGIT = (("0", "9"),)
_WORD = (("0", "9"), ("A", "Z"), ("_", "_"), ("a", "z"))
_SPACE = (("\t", "\r"), (" ", " "))
_CLASSES = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}
_REPEATS: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_ANY = Chars((("\n", "\n"),), negated=True)

_ACCEPT = 0


class Pattern:
    """A compiled pattern. `start` and `step` walk a name; `fits` does it in one go."""

    def __init__(self, text: str) -> None:
        """Compile a pattern.

        Raises:
            PatternError: it is none, or too large.
        """
        if len(text) > PATTERN_LENGTH_MAX:
            raise PatternError(f"{len(text)} characters, the limit is {PATTERN_LENGTH_MAX}")
        program = _Program()
        first = program.add(_Parser(text).parse(), _ACCEPT)
        self._states = program.states
        self._known: dict[frozenset[int], Here] = {}
        self._remembered = 0
        self.work = 0
        """States visited since somebody last set it to 0."""
        self.start = self._closure((first,), at_start=True)

    def fits(self, name: str) -> bool:
        """Report whether the whole name fits."""
        here = self.start
        for char in name:
            here = here.to.get(char) or self.step(here, char)
        return here.accepts

    def step(self, here: Here, char: str) -> Here:
        """Return where a character leads, and remember it."""
        there = self._closure(step.to for step in here.steps if step.chars.has(char))
        self.work += len(here.steps)
        if self._remembered >= REMEMBERED_MAX:
            self._known.clear()
            self._remembered = 0
            self.start.to.clear()
            return there  # what points at the forgotten ones goes when the name is through
        self._remembered += 1
        here.to[char] = there
        return there

    def _closure(self, states: Iterable[int], *, at_start: bool = False) -> Here:
        reached = self._reach(states, at_start=at_start, at_end=False)
        key = frozenset(reached)
        if not at_start and (known := self._known.get(key)) is not None:
            return known
        steps = tuple(s for each in reached if isinstance(s := self._states[each], Step))
        accepts = _ACCEPT in self._reach(reached, at_start=at_start, at_end=True)
        here = Here(steps, accepts=accepts)
        if not at_start:
            self._known[key] = here
        return here

    def _reach(self, states: Iterable[int], *, at_start: bool, at_end: bool) -> dict[int, None]:
        """Return the states that can be reached without taking a character."""
        reached: dict[int, None] = {}
        todo = list(states)
        while todo:
            each = todo.pop()
            if each in reached:
                continue
            reached[each] = None
            self.work += 1
            match self._states[each]:
                case Split(to):
                    todo.extend(to)
                case Anchor(is_end, to) if at_end if is_end else at_start:
                    todo.append(to)
                case _:
                    pass
        return reached


class _Repeat(NamedTuple):
    node: "_Node"
    least: int
    most: int | None


class _Several(NamedTuple):
    """Nodes one after the other, or, as alternatives, any one of them."""

    nodes: "tuple[_Node, ...]"
    alternatives: bool


class _End(NamedTuple):
    """`^` or `$`."""

    at_end: bool


_Node = Chars | _Repeat | _Several | _End


class _Program:
    """The states of a machine, written from the end to the start."""

    def __init__(self) -> None:
        self.states: list[Step | Split | Anchor | None] = [None]

    def add(self, node: _Node, then: int) -> int:
        """Add what a node means; return its first state, given what follows it."""
        match node:
            case Chars():
                return self._state(Step(node, then))
            case _End(at_end):
                return self._state(Anchor(at_end, then))
            case _Several(nodes, alternatives=True):
                return self._state(Split(tuple(self.add(each, then) for each in nodes)))
            case _Several(nodes):
                for each in reversed(nodes):
                    then = self.add(each, then)
                return then
            case _Repeat(repeated, least, most):
                return self._repeat(repeated, least, most, then)

    def _repeat(self, node: _Node, least: int, most: int | None, then: int) -> int:
        first = then
        if most is None:
            first = self._state(Split(()))
            self.states[first] = Split((self.add(node, first), then))
        else:
            for _ in range(most - least):
                first = self._state(Split((self.add(node, first), then)))
        for _ in range(least):
            first = self.add(node, first)
        return first

    def _state(self, state: Step | Split | Anchor) -> int:
        if len(self.states) >= STATES_MAX:
            raise PatternError(f"more than {STATES_MAX} states")
        self.states.append(state)
        return len(self.states) - 1


class _Parser:
    """Reads a pattern from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def parse(self) -> _Node:
        node = self._alternatives(0)
        if self._at < len(self._text):
            raise self._error("unbalanced parenthesis")
        return node

    def _alternatives(self, depth: int) -> _Node:
        if depth > NESTING_MAX:
            raise self._error(f"more than {NESTING_MAX} groups within groups")
        branches = [self._sequence(depth)]
        while self._skip("|"):
            branches.append(self._sequence(depth))
        return branches[0] if len(branches) == 1 else _Several(tuple(branches), alternatives=True)

    def _sequence(self, depth: int) -> _Node:
        nodes: list[_Node] = []
        while self._at < len(self._text) and self._peek() not in "|)":
            nodes.append(self._repeated(depth))
        return _Several(tuple(nodes), alternatives=False)

    def _repeated(self, depth: int) -> _Node:
        node = self._atom(depth)
        bounds = self._bounds()
        if bounds is None:
            return node
        self._skip("?")  # "as few as possible" makes no difference to whether a name fits
        if self._bounds() is not None:
            raise self._error("a repeat of a repeat")
        return _Repeat(node, *bounds)

    def _bounds(self) -> tuple[int, int | None] | None:
        if (bounds := _REPEATS.get(self._peek())) is not None:
            self._at += 1
            return bounds
        end = self._text.find("}", self._at)
        if self._peek() != "{" or end < 0:
            return None
        low, comma, high = self._text[self._at + 1 : end].partition(",")
        if not (low.isdecimal() and (high.isdecimal() or not high)):
            return None  # not a repeat, then, but a brace
        if len(low) + len(high) > 8 or (high and int(low) > int(high)):
            raise self._error("bounds of a repeat")
        self._at = end + 1
        if not comma:
            return int(low), int(low)
        return int(low), int(high) if high else None

    def _atom(self, depth: int) -> _Node:
        char = self._take()
        match char:
            case "(":
                if self._skip("?") and not self._skip(":"):
                    raise self._error("groups with a question mark are not supported, but (?:")
                node = self._alternatives(depth + 1)
                if not self._skip(")"):
                    raise self._error("a parenthesis is not closed")
                return node
            case "[":
                return self._class()
            case ".":
                return _ANY
            case "^" | "$":
                return _End(at_end=char == "$")
            case "\\":
                return self._escape()
            case "*" | "+" | "?":
                raise self._error("nothing to repeat")
            case _:
                return Chars(((char, char),))

    def _escape(self) -> Chars:
        char = self._take()
        if char.lower() in _CLASSES:
            return Chars(_CLASSES[char.lower()], negated=char.isupper())
        char = _CONTROLS.get(char, char)
        if char.isalnum():
            raise self._error(f"\\{char} is not supported")
        return Chars(((char, char),))

    def _class(self) -> Chars:
        negated = self._skip("^")
        ranges: list[tuple[str, str]] = []
        while not ranges or self._peek() != "]":
            low = self._class_part()
            if len(low) > 1:
                ranges += low
            elif self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in {"]", ""}:
                self._at += 1
                high = self._class_part()
                if len(high) > 1 or high[0][1] < low[0][0]:
                    raise self._error("a range that is none")
                ranges.append((low[0][0], high[0][1]))
            else:
                ranges += low
        self._at += 1
        return Chars(tuple(ranges), negated)

    def _class_part(self) -> tuple[tuple[str, str], ...]:
        char = self._take()
        if char != "\\":
            return ((char, char),)
        chars = self._escape()
        if chars.negated:
            raise self._error("a negated class within a class is not supported")
        return chars.ranges

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        if self._at >= len(self._text):
            raise self._error("it ends too early")
        self._at += 1
        return self._text[self._at - 1]

    def _skip(self, char: str) -> bool:
        if self._peek() != char:
            return False
        self._at += 1
        return True

    def _error(self, what: str) -> PatternError:
        return PatternError(f"{what}, at position {self._at}")


async def matching(names: Iterable[str], pattern: Pattern) -> list[str]:
    """Return the topics whose name, without domain and partition suffix, fits a pattern."""
    matched: list[str] = []
    for name in names:
        here = pattern.start
        for char in _PARTITION.sub("", name.partition("://")[2]):
            here = here.to.get(char) or pattern.step(here, char)
            if pattern.work > WORK_PER_TURN:
                pattern.work = 0
                await asyncio.sleep(0)
        pattern.work += WORK_PER_NAME
        if here.accepts:
            matched.append(name)
    return matched
