"""The source as the rules see it: every module with its syntax tree, every tracked file."""

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"
TESTS = ROOT / "tests"


class Module(NamedTuple):
    """One Python file. `name` is how it is imported; a package has the name of its folder."""

    name: str
    path: str
    tree: ast.Module

    @property
    def last(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]

    @property
    def is_package(self) -> bool:
        """Whether this is the `__init__` of a folder."""
        return self.path.endswith("__init__.py")


def parse(source: str, name: str = "magnetar.broker.planted", path: str = "") -> Module:
    """Return a module as if it lay in the tree; for planting."""
    return Module(name, path or f"src/{name.replace('.', '/')}.py", ast.parse(source))


@cache
def modules() -> tuple[Module, ...]:
    """Return every hand-written module of the package."""
    return tuple(_read(SRC, "generated"))


@cache
def modules_of_tests() -> tuple[Module, ...]:
    """Return every module below tests/."""
    return tuple(_read(TESTS, "__pycache__"))


@cache
def benchmark_modules() -> tuple[Module, ...]:
    """Return every module of the benchmarks."""
    return tuple(_read(ROOT / "benchmarks", "__pycache__"))


def _read(top: Path, without: str) -> Iterator[Module]:
    for path in sorted(top.rglob("*.py")):
        parts = path.relative_to(top).with_suffix("").parts
        if without in parts:
            continue
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield Module(name, str(path.relative_to(ROOT)), ast.parse(path.read_bytes()))


def imports_of(module: Module) -> set[str]:
    """Return every dotted name a module imports, as `package.module` and `package.module.name`."""
    names: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def tracked_files() -> list[Path]:
    """Return the files under version control; in an unpacked archive, all that would be."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0:
        return [
            ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()
        ]
    tops = ["src", "tests", "docs", "benchmarks", "examples", ".ci"]
    found = [path for top in tops for path in (ROOT / top).rglob("*") if path.is_file()]
    return [path for path in found if "__pycache__" not in path.parts]
