# SPDX-License-Identifier: Apache-2.0
"""Imports point down only, libraries stay where they belong, and kernel paths in one place."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import zoned

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(zoned.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Everybody may use these: they know nothing of zones.
COMMON = {"__init__", "errors", "idset", "units"}
MAY_USE = {
    "errors": set[str](),
    "idset": {"errors"},
    "units": {"errors"},
    "__init__": set[str](),
    "model": COMMON,
    "kernel": COMMON | {"model"},
    "policy": COMMON | {"model"},
    "engine": COMMON | {"model", "kernel", "policy"},
    "api": COMMON | {"model"},
    "daemon": COMMON | {"model", "kernel", "policy", "engine", "api"},
    "client": COMMON | {"api"},
    "cli": COMMON | {"model", "kernel", "policy", "api", "client"},
}

LIBRARIES = {
    "asyncvarlink": {
        "api/failed.py",
        "api/interfaces_buffers.py",
        "api/interfaces.py",
        "api/interfaces_dma.py",
        "daemon/connection.py",
        "daemon/server.py",
    },
    "click": {"cli/*", "daemon/main.py"},
    "ctypes": {"kernel/syscalls.py"},
    "jeepney": {"kernel/systemd_bus.py"},
    "numpy": {
        "kernel/block_pages.py",
        "kernel/page_flags.py",
        "kernel/page_nodes.py",
        "kernel/pagemap.py",
        "engine/migration/*",
    },
    "psutil": set[str](),
    "pydantic": {"policy/grammar.py", "policy/schema.py", "policy/schema_dma.py"},
    "pydantic_core": {"policy/grammar.py", "policy/schema.py"},
    "pyudev": {"kernel/udev.py"},
    "rich": {"cli/*"},
    "yaml": {"policy/document.py", "cli/output.py"},
}

BROAD = {"daemon/service.py": 1, "engine/jobs/runner.py": 1}
"""Where everything is caught: the daemon's tick, and a job's thread. The request handler gets every
exception from the library as a value, and `main` lets defects end the process with their
traceback."""


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Yield the full names of all modules imported, also inside functions and for types only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_used(tree: ast.AST) -> set[str]:
    used = set()
    for module in imports_of(tree):
        parts = module.split(".")
        if parts[0] != "zoned" or len(parts) == 1:
            continue
        is_room = (PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").exists()
        used.add(parts[1] if is_room else "__init__")
    return used


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@pytest.fixture(params=SOURCES, ids=name_of)
def source(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_every_room_has_its_rule() -> None:
    rooms = {room_of(path) for path in SOURCES}
    assert rooms <= set(MAY_USE)
    assert {"model", "kernel", "policy", "engine", "api", "daemon", "cli"} <= rooms


def test_imports_point_down_only(source: Path) -> None:
    room = room_of(source)
    assert rooms_used(parsed(source)) <= MAY_USE[room] | {room}


def test_libraries_stay_where_they_belong(source: Path) -> None:
    allowed = sys.stdlib_module_names | {"zoned"}
    for module in imports_of(parsed(source)):
        library = module.split(".")[0]
        if library in allowed:
            continue
        assert library in LIBRARIES, f"{library} is new: say where it belongs"
        places = LIBRARIES[library]
        name = name_of(source)
        folder = name.rpartition("/")[0]
        assert name in places or f"{folder}/*" in places, f"{library} in {name}"


def test_ctypes_is_one_files(source: Path) -> None:
    modules = {module.split(".")[0] for module in imports_of(parsed(source))}
    assert "ctypes" not in modules or name_of(source) in LIBRARIES["ctypes"]


def strings_of(tree: ast.AST) -> Iterator[str]:
    """Yield the strings that are data: no docstring is."""
    spoken = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in spoken
        ):
            yield node.value


def test_kernel_paths_are_the_kernel_rooms(source: Path) -> None:
    if room_of(source) == "kernel":
        return
    paths = [text for text in strings_of(parsed(source)) if re.match(r"/(sys|proc|dev)(/|$)", text)]
    assert not paths


def is_broad(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"} for kind in kinds
    )


def test_everything_is_caught_in_few_places() -> None:
    found: dict[str, int] = defaultdict(int)
    for path in SOURCES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ExceptHandler) and is_broad(node):
                found[name_of(path)] += 1
    assert dict(found) == BROAD


@pytest.mark.parametrize("code", ["try: 1\nexcept: 2", "try: 1\nexcept (OSError, Exception): 2"])
def test_what_is_broad(code: str) -> None:
    handlers = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ExceptHandler)]
    assert [is_broad(handler) for handler in handlers] == [True]


def test_only_commands_end_the_process(source: Path) -> None:
    if room_of(source) == "cli" or name_of(source) == "daemon/main.py":
        return
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("sys", "exit"), ("os", "_exit")}
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            called = node.exc.func
            assert not (isinstance(called, ast.Name) and called.id == "SystemExit")


def test_files_and_functions_are_short(source: Path) -> None:
    text = source.read_text(encoding="utf-8")
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
    assert len(text.splitlines()) <= 400
    tree = parsed(source)
    assert ast.get_docstring(tree), "a file says what it is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"


def test_most_functions_are_very_short() -> None:
    lengths = [
        (node.end_lineno or 0) - node.lineno + 1
        for path in SOURCES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert sum(length <= 20 for length in lengths) >= 0.8 * len(lengths)
