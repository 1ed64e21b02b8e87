"""The house rules hold, and each notices what it is there to notice."""

import re

import pytest

from tests.tidy import house_rules as rules
from tests.tidy.source import (
    ROOT,
    Module,
    benchmark_modules,
    modules,
    modules_of_tests,
    parse,
    tracked_files,
)

TEXT_SUFFIXES = {
    ".py",
    ".pyi",
    ".md",
    ".toml",
    ".cfg",
    ".txt",
    ".yaml",
    ".yml",
    ".proto",
    ".sh",
    "",
}

ROOMS = ("wire", "storage", "topics", "doors", "metadata", "broker", "cli", "client")
"""Folders whose tests describe one module each; the others describe the whole."""


def rooms() -> list[Module]:
    return [
        test
        for test in modules_of_tests()
        if test.name.split(".")[0] in ROOMS or test.name.count(".") == 0
    ]


def test_every_module_says_what_it_is_for() -> None:
    assert rules.without_docstring([*modules(), *modules_of_tests()]) == []
    assert rules.without_docstring([parse("x = 1")])


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert rules.with_vague_name([*modules(), *modules_of_tests()]) == []
    assert rules.with_vague_name([parse("", "magnetar.broker.utils")])


def test_packages_hold_no_code() -> None:
    assert rules.code_in_package(modules()) == []
    planted = parse('"""Doc."""\nx = 1', "magnetar.broker", "src/magnetar/broker/__init__.py")
    assert rules.code_in_package([planted])


def test_one_module_of_the_broker_touches_files() -> None:
    assert rules.touching_files(modules()) == []


@pytest.mark.parametrize(
    "source",
    [
        "open('x')",
        "import os\nos.fsync(3)",
        "import os\nos.open('x', 0)",
        "from os import unlink",
        "import shutil",
        "from tempfile import mkdtemp",
        "import mmap\nmmap.mmap(file.fileno(), 0)",
        "import sqlite3",
        "path.write_bytes(b'')",
        "path.unlink()",
        "path.open('rb')",
        "path.open(mode='w')",
        "def f():\n    import shutil.x",
    ],
)
def test_a_planted_file_access_is_noticed(source: str) -> None:
    assert rules.touching_files([parse(source)])
    assert not rules.touching_files([parse(source, "magnetar.broker.files")])
    assert not rules.touching_files([parse(source, "magnetar.cli.produce")])


@pytest.mark.parametrize(
    "source",
    [
        "self.files.open(path, write=True)",
        "catalog.open(topic)",
        "'a'.replace('b', 'c')",
        "mmap.mmap(-1, size)",
    ],
)
def test_what_only_looks_like_a_file_access_is_not(source: str) -> None:
    assert not rules.touching_files([parse(source)])


def test_every_module_is_used() -> None:
    assert rules.unused(modules(), benchmark_modules()) == []
    alone = parse("x = 1", "magnetar.broker.alone")
    user = parse("from magnetar.broker import alone", "magnetar.broker.user")
    lazy = parse("from importlib import import_module\nX = ['alone']", "magnetar.broker.lazy")
    later = parse("LOAD = 'magnetar.broker.alone:main'", "magnetar.broker.later")
    assert len(rules.unused([alone])) == 1
    assert not any("alone" in finding for finding in rules.unused([alone, user]))
    assert not any("alone" in finding for finding in rules.unused([alone, later]))
    assert not any("alone" in finding for finding in rules.unused([alone, lazy]))
    assert not rules.unused([alone], [user])


def test_every_test_file_is_named_after_the_module_it_describes() -> None:
    assert rules.named_after_nothing(rooms(), modules()) == []


@pytest.mark.parametrize(
    ("test", "described"),
    [
        ("storage.test_planted", True),
        ("storage.test_planted_on_damage", True),
        ("storage.test_plant", False),
        ("topics.test_planted", False),
        ("test_planted", False),
    ],
)
def test_a_test_file_is_judged_by_name_and_place(test: str, described: bool) -> None:
    module = parse("", "magnetar.broker.storage.planted")
    found = rules.named_after_nothing([parse("", test)], [module])
    assert bool(found) is not described


def test_the_name_of_a_test_is_a_sentence() -> None:
    assert rules.not_a_sentence(modules_of_tests()) == []
    assert rules.not_a_sentence([parse("def test_cursor_1(): pass")])


def test_nothing_is_bound_to_one_machine_or_names_a_registry() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in tracked_files()
        if path.suffix in TEXT_SUFFIXES and path.name != "LICENSE"
        for line in rules.machine_bound(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "cat /{}/main/x",
        "see ../{}/design",
        "open('/{}/.ssh')",
        "https://{}.org/simple",
        "/home/{}/x",
    ],
)
def test_a_planted_machine_path_is_noticed(line: str) -> None:
    words = ["work", "shared", "root", "pypi", "anna"]
    assert any(rules.machine_bound(line.format(word)) for word in words)


def test_the_architecture_page_names_every_module_and_none_that_is_not_there() -> None:
    drawing = (ROOT / "docs" / "architecture.md").read_text().split("## The rooms")[1]
    words = set(re.findall(r"[a-z_]+", drawing))
    missing = [
        module.path for module in modules() if not module.is_package and module.last not in words
    ]
    assert missing == []
    drawn = set(re.findall(r"([a-z_]+)\.py\b", drawing))
    assert drawn - {module.last for module in modules()} == {"__init__"}
