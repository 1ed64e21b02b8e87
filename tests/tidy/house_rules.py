"""House rules that no linter knows. Each takes modules and returns what breaks it, in words."""

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath

from tests.tidy.source import Module, imports_of

VAGUE_NAMES = frozenset(
    {
        "base",
        "common",
        "core",
        "general",
        "generic",
        "helper",
        "helpers",
        "lib",
        "manager",
        "misc",
        "shared",
        "stuff",
        "tools",
        "util",
        "utils",
    }
)
"""Nouns for "I did not decide"."""

FILE_MODULES = frozenset({"magnetar.broker.files"})
"""The only module of the broker that opens, writes, syncs or removes a file."""

SQLITE_MODULES = frozenset({"magnetar.broker.metadata.database"})
"""SQLite writes its files itself; only here."""

FILE_LIBRARIES = frozenset({"shutil", "tempfile", "fcntl", "io", "aiofiles", "sqlite3"})

OS_FILE_CALLS = frozenset(
    {
        "chmod",
        "copy_file_range",
        "fdatasync",
        "fdopen",
        "fsync",
        "ftruncate",
        "link",
        "makedirs",
        "mkdir",
        "open",
        "posix_fallocate",
        "pwrite",
        "pwritev",
        "remove",
        "removedirs",
        "rename",
        "renames",
        "replace",
        "rmdir",
        "sendfile",
        "symlink",
        "sync",
        "truncate",
        "unlink",
        "write",
        "writev",
    }
)

PATH_FILE_METHODS = frozenset(
    {
        "chmod",
        "hardlink_to",
        "mkdir",
        "read_bytes",
        "read_text",
        "rmdir",
        "symlink_to",
        "touch",
        "unlink",
        "write_bytes",
        "write_text",
    }
)
"""Methods that only a `Path` has. `open`, `rename` and `replace` have namesakes; see below."""

OPEN_MODE = re.compile(r"[rwxa][bt]?\+?[bt]?")

MACHINE_BOUND = re.compile(
    r"(?<![\w.])/[w]ork/|(?<![\w.])/[r]oot/|(?<![\w.])/[f]arm/|/[h]ome/\w+/|/[U]sers/\w+/|\.\./[s]hared"
    r"|[p]ypi\.org|[p]ythonhosted\.org|registry\.[n]pmjs|[c]rates\.io|[p]roxy\.golang|[i]ndex-url"
)
"""Paths of one machine, and hosts that packages come from. Written so as not to find itself."""

ABOUT_A_ROOM = frozenset(
    {
        "storage.test_crash",
        "storage.test_damage",
        "topics.test_core_end_to_end",
        "topics.test_core_failures",
        "topics.test_model",
        "topics.test_order",
    }
)
"""Test files that describe all modules of a folder together."""

ENTRY_POINTS = frozenset({"magnetar", "magnetar.__main__", "magnetar.broker.metadata.memory"})
"""Modules that nobody in the package needs to import. The last is there for everybody's tests."""


def without_docstring(modules: Iterable[Module]) -> list[str]:
    """Every module says what it is for."""
    return [f"{m.path}: no docstring" for m in modules if not ast.get_docstring(m.tree)]


def with_vague_name(modules: Iterable[Module]) -> list[str]:
    """A module is a noun of the field."""
    return [f"{m.path}: {m.last} says nothing" for m in modules if m.last in VAGUE_NAMES]


def code_in_package(modules: Iterable[Module]) -> list[str]:
    """A package's `__init__` is a docstring: you import from where the thing lives."""
    return [
        f"{m.path}: code in a package"
        for m in modules
        if m.is_package and m.name != "magnetar" and len(m.tree.body) > 1
    ]


def touching_files(modules: Iterable[Module]) -> list[str]:
    """In the broker, one module touches files, and one lets SQLite do so."""
    return [
        f"{module.path}:{line}: {what}"
        for module in modules
        if module.name.startswith("magnetar.broker") and module.name not in FILE_MODULES
        for line, what in _file_uses(module)
    ]


def _file_uses(module: Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and (what := _file_call(node)):
            yield node.lineno, what
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for what in _file_imports(module, node):
                yield node.lineno, what


def _file_call(call: ast.Call) -> str | None:
    match call.func:
        case ast.Name(id="open"):
            return "open(...)"
        case ast.Attribute(value=ast.Name(id="os"), attr=name) if name in OS_FILE_CALLS:
            return f"os.{name}(...)"
        case ast.Attribute(value=ast.Name(id="mmap"), attr="mmap") if not _is_anonymous(call):
            return "mmap of a file"
        case ast.Attribute(attr=name) if name in PATH_FILE_METHODS:
            return f".{name}(...)"
        case ast.Attribute(attr="open") if _has_mode(call):
            return ".open(mode)"
        case _:
            return None


def _has_mode(call: ast.Call) -> bool:
    if any(keyword.arg == "mode" for keyword in call.keywords):
        return True
    first = call.args[0] if call.args else None
    text = first.value if isinstance(first, ast.Constant) else None
    return isinstance(text, str) and OPEN_MODE.fullmatch(text) is not None


def _is_anonymous(call: ast.Call) -> bool:
    return bool(call.args) and ast.unparse(call.args[0]) == "-1"


def _file_imports(module: Module, node: ast.Import | ast.ImportFrom) -> list[str]:
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module in {"os", "posix"}:
        return [f"from os import {name}" for name in names if name in OS_FILE_CALLS]
    sources = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
    allowed = {"sqlite3"} if module.name in SQLITE_MODULES else set()
    tops = {source.partition(".")[0] for source in sources}
    return [f"import {top}" for top in sorted(tops & FILE_LIBRARIES - allowed)]


def unused(modules: Sequence[Module], users: Iterable[Module] = ()) -> list[str]:
    """Every module is imported by another, or named in a string that loads it later."""
    used = set(ENTRY_POINTS)
    for module in (*modules, *users):
        used |= (imports_of(module) | _loaded_later(module)) - {module.name}
    return [
        f"{module.path}: nobody imports it"
        for module in modules
        if not module.is_package and module.name not in used
    ]


def _loaded_later(module: Module) -> set[str]:
    texts = {
        node.value.partition(":")[0]
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    if "importlib" not in imports_of(module):
        return texts
    package = module.name.rpartition(".")[0]
    return texts | {f"{package}.{text}" for text in texts}


def named_after_nothing(tests: Iterable[Module], modules: Sequence[Module]) -> list[str]:
    """A test file has the name of the module it describes, and lies where that lies.

    `tests/wire/pulsar/test_walker.py`, or `test_walker_on_damage.py`, describes a module
    `walker` in a folder `wire/pulsar`.
    """
    known = [PurePath(module.name.replace(".", "/")) for module in modules]
    return [
        f"{test.path}: there is no such module"
        for test in tests
        if test.last.startswith("test_") and test.name not in ABOUT_A_ROOM
        if not any(_describes(test, path) for path in known)
    ]


def _describes(test: Module, path: PurePath) -> bool:
    folder = tuple(test.name.split(".")[:-1])
    stem = test.last.removeprefix("test_")
    in_place = path.parts[:-1][-len(folder) :] == folder if folder else len(path.parts) <= 2
    return in_place and (stem == path.name or stem.startswith(path.name + "_"))


def not_a_sentence(tests: Iterable[Module]) -> list[str]:
    """The name of a test is a sentence: at least three words after `test`."""
    return [
        f"{module.path}:{node.lineno}: {node.name}"
        for module in tests
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.name.startswith("test_") and node.name.count("_") < 3
    ]


def machine_bound(text: str) -> list[str]:
    """Return every line that only makes sense on one machine, or names a package registry."""
    return [
        f"{number}: {line.strip()[:100]}"
        for number, line in enumerate(text.splitlines(), 1)
        if MACHINE_BOUND.search(line)
    ]
