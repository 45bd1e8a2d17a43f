# SPDX-License-Identifier: Apache-2.0
"""The varlink description: what other programs read of zoned."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from typing import TYPE_CHECKING, Any

import pytest

from zoned.api import types
from zoned.api.interfaces import INTERFACES, Failed, Jobs, Memory, Zones
from zoned.model.job import JobKind

if TYPE_CHECKING:
    from asyncvarlink import VarlinkInterface

# The grammar of https://varlink.org/Interface-Definition, as far as zoned uses it.
_INTERFACE = re.compile(r"[a-z](-*[a-z0-9])*(\.[A-Za-z0-9](-*[A-Za-z0-9])*)+")
_MEMBER = re.compile(r"[A-Z][A-Za-z0-9]*")
_FIELD = re.compile(r"[A-Za-z](_?[A-Za-z0-9])*")
_TYPE = re.compile(r"\??(?:\[(?:string)?\])?(\w+)")
_STRUCT = r"\(([^()]*)\)"
_LINES = {
    "type": re.compile(rf"type (\w+) {_STRUCT}"),
    "method": re.compile(rf"method (\w+){_STRUCT} -> {_STRUCT}"),
    "error": re.compile(rf"error (\w+) {_STRUCT}"),
}
_SIMPLE = {"bool", "int", "float", "string", "object"}

NAMES = {
    "io.zoned": {"Status", "Reset"},
    "io.zoned.Policy": {"Reload"},
    "io.zoned.Zones": {
        "List",
        "Show",
        "Create",
        "StartCreate",
        "Resize",
        "StartResize",
        "Destroy",
        "Move",
        "Attach",
        "Detach",
        "Enter",
    },
    "io.zoned.Memory": {
        "Migrate",
        "Survey",
        "Blocks",
        "Park",
        "Unpark",
        "Offline",
        "Online",
        "BaseList",
        "BaseAdd",
        "BaseRemove",
    },
    "io.zoned.Dma": {"List", "Reserve", "Release", "Check", "Prepare"},
    "io.zoned.DmaBuffers": {"Alloc", "Free", "Leases"},
    "io.zoned.Jobs": {"List", "Show", "Pause", "Resume", "Cancel", "Watch"},
}


def described(interface: type[VarlinkInterface]) -> list[re.Match[str]]:
    """Return the members of a description, each matched against the grammar."""
    found = []
    for line in interface.render_interface_description().splitlines():
        word = line.split(" ")[0]
        if word in _LINES:
            match = _LINES[word].fullmatch(line)
            assert match, line
            found.append(match)
        else:
            assert word in {"", "#", "interface"}, line
    return found


def test_every_interface_is_there() -> None:
    assert {interface.name for interface in INTERFACES} == set(NAMES)


@pytest.mark.parametrize("interface", INTERFACES, ids=lambda interface: interface.name)
def test_the_description_is_valid(interface: type[VarlinkInterface]) -> None:
    text = interface.render_interface_description()
    assert re.findall(r"^interface (\S+)$", text, re.MULTILINE) == [interface.name]
    assert _INTERFACE.fullmatch(interface.name)
    members = described(interface)
    names = [match[1] for match in members]
    assert len(set(names)) == len(names)
    assert all(_MEMBER.fullmatch(name) for name in names)
    known = _SIMPLE | {match[1] for match in members if match[0].startswith("type")}
    for match in members:
        for struct in match.groups()[1:]:
            for pair in filter(None, struct.split(", ")):
                field, _, kind = pair.partition(": ")
                assert _FIELD.fullmatch(field), pair
                form = _TYPE.fullmatch(kind)
                assert form is not None, pair
                assert form[1] in known, pair


@pytest.mark.parametrize("interface", INTERFACES, ids=lambda interface: interface.name)
def test_methods_are_these_and_documented(interface: type[VarlinkInterface]) -> None:
    text = interface.render_interface_description()
    assert set(re.findall(r"^method (\w+)", text, re.MULTILINE)) == NAMES[interface.name]
    documented = re.findall(r"^# .+\nmethod (\w+)", text, re.MULTILINE)
    assert set(documented) == NAMES[interface.name]


def test_the_error_belongs_to_the_service() -> None:
    assert Failed.name == "io.zoned.Failed"
    assert all(Failed in interface.errors for interface in INTERFACES)
    text = next(each for each in INTERFACES if each.name == "io.zoned")
    assert "error Failed (code: string, message: string, hint: string)" in (
        text.render_interface_description()
    )


def test_a_line_of_list_has_the_promised_fields() -> None:
    line = ["name", "size", "backing", "nodes", "cpus", "state", "used", "foreign", "members"]
    assert [field.name for field in dataclasses.fields(types.ZoneInfo)] == line
    detail = [field.name for field in dataclasses.fields(types.ZoneDetail)]
    assert detail[: len(line)] == line
    assert set(detail[len(line) :]) >= {"by_node", "limits", "peak", "pressure", "events", "alerts"}
    assert {field.name for field in dataclasses.fields(types.EventsInfo)} >= {"oom", "max", "high"}


class Recorder:
    """A backend that notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def start_job(self, kind: JobKind, **parameters: Any) -> None:
        given = {name: value for name, value in parameters.items() if value is not None}
        self.asked.append((kind, given))

    async def survey(self, kind: str, **parameters: Any) -> None:
        given = {name: value for name, value in parameters.items() if value is not None}
        self.asked.append((kind, given))


HOW = {"stall": 5.0, "rate": 100.0}
MANY = {**HOW, "movers": 3}


@pytest.mark.parametrize(
    ("interface", "method", "kind", "given"),
    [
        (Zones, "Destroy", JobKind.DESTROY, {"name": "db", "drain": "root", "kill": True, **HOW}),
        (Zones, "Destroy", JobKind.DESTROY, {"name": "db"}),
        (Zones, "Move", JobKind.MOVE, {"name": "db", "nodes": "1", **MANY}),
        (Zones, "Attach", JobKind.ATTACH, {"name": "db", "pid": 7, **MANY}),
        (Zones, "Attach", JobKind.ATTACH, {"name": "db", "unit": "x"}),
        (Zones, "Detach", JobKind.DETACH, {"name": "db", "cgroup": "/x", **MANY}),
        (Memory, "Migrate", JobKind.MIGRATE, {"target": "1", "pid": 7}),
        (
            Memory,
            "Migrate",
            JobKind.MIGRATE,
            {"target": "1", "source": "0", "unit": "x", "shared": True, **MANY},
        ),
        (Memory, "Migrate", JobKind.MIGRATE, {"target": "1", "zone": "db"}),
        (Memory, "Migrate", JobKind.MIGRATE, {"target": "1", "cgroup": "/x"}),
        (Memory, "BaseAdd", JobKind.BASE_ADD, {"base": "4"}),
        (Memory, "BaseAdd", JobKind.BASE_ADD, {"base": "dax0.0", "movable_only": True}),
        (Memory, "Survey", "move", {"name": "db", "nodes": "1"}),
        (Memory, "Survey", "migrate", {"target": "1", "source": "0", "shared": True, **MANY}),
        (Memory, "Survey", "attach", {"pid": 7, "unit": "x", "cgroup": "/x", "zone": "db"}),
    ],
)
def test_what_is_given_is_handed_on(
    interface: Any, method: str, kind: object, given: dict[str, Any]
) -> None:
    backend = Recorder()
    more = {"kind": kind} if method == "Survey" else {}
    asyncio.run(getattr(interface(backend), method)(**more, **given))
    assert backend.asked == [(kind, given)]


def test_a_job_has_the_promised_fields() -> None:
    fields = [field.name for field in dataclasses.fields(types.JobInfo)]
    assert fields[:7] == ["id", "kind", "what", "state", "phase", "total", "done"]
    assert {"rate", "eta", "outcomes", "left_behind", "error"} <= set(fields)
    assert "method Watch(id: int) -> (job: JobInfo)" in Jobs.render_interface_description()
