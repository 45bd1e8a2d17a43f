# SPDX-License-Identifier: Apache-2.0
"""What zonectl takes the daemon's results for is what the daemon declares them to be."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import zoned.cli
from tests.unit.api.declared import METHODS
from zoned.api.types import JobInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCES = sorted(Path(zoned.cli.__file__).parent.glob("*.py"))
_METHOD = re.compile(r"(Policy|Zones|Memory|Dma|DmaBuffers|Jobs)\.\w+|Status|Reset")


def asked(tree: ast.Module) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield the methods that a module calls, each with the type that it takes the result for."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name("call"), args=[_, method, result]):
                yield method, result
            case ast.Call(func=ast.Attribute(attr="call" | "stream"), args=[method, result]):
                yield method, result
            case ast.Call(func=ast.Name("call") | ast.Attribute(attr="call" | "stream")):
                raise AssertionError(ast.unparse(node))


def calls() -> Iterator[tuple[str, str | None, Any]]:
    """Yield module, method and type; the method is None where only the running code knows it."""
    for path in SOURCES:
        module = import_module(f"zoned.cli.{path.stem}")
        for method, result in asked(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(result, ast.Name) and result.id == "result":
                continue  # It is handed on.
            kind = eval(ast.unparse(result), vars(module))
            yield path.stem, str(method.value) if isinstance(method, ast.Constant) else None, kind


CALLS = list(calls())


@pytest.mark.parametrize(("module", "method", "kind"), CALLS)
def test_results_are_taken_for_what_they_are(module: str, method: str | None, kind: Any) -> None:
    # Whatever is called by way of a variable starts or steers a job.
    assert kind == (METHODS[method].result if method else JobInfo)


def test_methods_that_are_handed_about_give_jobs() -> None:
    called = {method for _, method, _ in CALLS}
    named = {
        node.value
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and _METHOD.fullmatch(node.value)
    }
    assert {name for name in named - called if METHODS[name].result is not JobInfo} == set()
    # zonectl has zoned.client do these.
    others = {"DmaBuffers.Alloc", "DmaBuffers.Free"}
    assert named | others == METHODS.keys(), "zonectl can do all that the daemon can"
