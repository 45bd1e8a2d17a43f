# SPDX-License-Identifier: Apache-2.0
"""migrate and move, what all commands that start jobs pass on, and dry runs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.cli.fake_client import DONE, MIB
from zoned.api.types import NodeSurvey, RoomInfo, SurveyInfo
from zoned.cli.migrate import _WHY
from zoned.errors import NoCapacity
from zoned.model.migration import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.cli.conftest import Ran
    from tests.unit.cli.fake_client import FakeDaemon

PACE = ("--stall", "5", "--rate", "250.5", "--movers", "2")
PACED = {"stall": 5.0, "rate": 250.5, "movers": 2}
SURVEY = SurveyInfo(
    what="migrate pid 4711 to nodes 2",
    processes=1,
    by_node=[NodeSurvey(node=0, anonymous=300 * MIB, file=12 * MIB, thp=200 * MIB, hugetlb=0)],
    shared=12 * MIB,
    locked=MIB,
    to_move=500 * MIB,
    stays={"shared": 12 * MIB, "pinned": 0},
    rooms=[
        RoomInfo(node=2, free=1024 * MIB, reclaimable=64 * MIB, promised=0, pool=0, room=1088 * MIB)
    ],
    fits=True,
    seconds=2.04,
)


@pytest.mark.parametrize(
    ("arguments", "method", "parameters"),
    [
        (("migrate", "--pid", "7", "--to", "2"), "Memory.Migrate", {"pid": 7, "target": "2"}),
        (
            ("migrate", "--unit", "x", "--from", "0-1", "--to", "2", "--shared", *PACE),
            "Memory.Migrate",
            {"unit": "x", "source": "0-1", "target": "2", "shared": True, **PACED},
        ),
        (
            ("migrate", "--cgroup", "/x", "--to", "!0"),
            "Memory.Migrate",
            {"cgroup": "/x", "target": "!0"},
        ),
        (("move", "db", "--nodes", "1,2"), "Zones.Move", {"name": "db", "nodes": "1,2"}),
        (
            ("move", "db", "--nodes", "1", *PACE),
            "Zones.Move",
            {"name": "db", "nodes": "1", **PACED},
        ),
        (("attach", "db", "--pid", "7"), "Zones.Attach", {"name": "db", "pid": 7}),
        (
            ("attach", "db", "--unit", "x", *PACE),
            "Zones.Attach",
            {"name": "db", "unit": "x", **PACED},
        ),
        (("detach", "db", "--cgroup", "/x"), "Zones.Detach", {"name": "db", "cgroup": "/x"}),
        (("detach", "db", "--pid", "7", *PACE), "Zones.Detach", {"name": "db", "pid": 7, **PACED}),
        (("destroy", "db"), "Zones.Destroy", {"name": "db"}),
        (("destroy", "db", "--kill"), "Zones.Destroy", {"name": "db", "kill": True}),
        (
            ("destroy", "db", "--drain", "root", "--stall", "5", "--rate", "9"),
            "Zones.Destroy",
            {"name": "db", "drain": "root", "stall": 5.0, "rate": 9.0},
        ),
    ],
)
def test_what_the_daemon_is_asked(
    fake: FakeDaemon,
    zonectl: Callable[..., Ran],
    arguments: tuple[str, ...],
    method: str,
    parameters: dict[str, Any],
) -> None:
    fake.answers[method] = replace(DONE, what="all of it")
    found = zonectl(*arguments)
    assert (found.status, found.err) == (0, "")
    assert "job 7 is done: all of it" in found.out
    assert fake.calls == [(method, parameters)]
    assert zonectl(*arguments, "--no-wait").out == "7\n"
    assert fake.calls[1:] == [(method, parameters)]


@pytest.mark.parametrize(
    "arguments",
    [
        ("migrate", "--to", "2"),
        ("migrate", "--pid", "7", "--unit", "x", "--to", "2"),
        ("migrate", "--pid", "7"),
        ("migrate", "--pid", "0", "--to", "2"),
        ("move", "db"),
        ("move", "--nodes", "2"),
        ("attach", "db", "--dry-run"),
        ("attach", "db", "--pid", "7", "--dry-run", "--no-wait"),
        ("move", "db", "--nodes", "2", "--dry-run", "--no-wait"),
        ("migrate", "--pid", "7", "--to", "2", "--dry-run", "--no-wait"),
        ("detach", "db", "--pid", "7", "--dry-run"),
        ("destroy", "db", "--dry-run"),
        ("destroy", "db", "--movers", "2"),
    ],
)
def test_usage(fake: FakeDaemon, zonectl: Callable[..., Ran], arguments: tuple[str, ...]) -> None:
    found = zonectl(*arguments)
    assert (found.status, found.out) == (2, "")
    assert not fake.calls


@pytest.mark.parametrize("option", ["--stall", "--rate", "--movers"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "x", ""])
def test_what_is_no_pace(
    fake: FakeDaemon, zonectl: Callable[..., Ran], option: str, value: str
) -> None:
    found = zonectl("migrate", "--pid", "7", "--to", "2", option, value)
    assert found.status == 2
    assert option in found.err
    assert not fake.calls


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        (
            ("migrate", "--pid", "7", "--from", "0", "--to", "2", "--shared"),
            {"kind": "migrate", "pid": 7, "source": "0", "target": "2", "shared": True},
        ),
        (("move", "db", "--nodes", "2"), {"kind": "move", "name": "db", "nodes": "2"}),
        (
            ("attach", "db", "--unit", "x", *PACE),
            {"kind": "attach", "name": "db", "unit": "x", **PACED},
        ),
    ],
)
def test_a_dry_run(
    fake: FakeDaemon,
    zonectl: Callable[..., Ran],
    arguments: tuple[str, ...],
    parameters: dict[str, Any],
) -> None:
    fake.answers["Memory.Survey"] = SURVEY
    found = zonectl(*arguments, "--dry-run")
    assert (found.status, found.err) == (0, "")
    assert found.out == (
        "NODE  ANONYMOUS   FILE     THP  HUGETLB   TOTAL\n"
        "   0     300MiB  12MiB  200MiB       0B  512MiB\n"
        "\n"
        "TARGET  FREE  RECLAIMABLE  PROMISED    ROOM  HUGETLB POOL\n"
        "     2  1GiB        64MiB        0B  1.1GiB            0B\n"
        "\n"
        "STAYS    SIZE  WHY\n"
        "shared  12MiB  mapped by processes that are not to be moved, too\n"
        "\n"
        "migrate pid 4711 to nodes 2: 1 process, 500MiB to move\n"
        "of all, 12MiB are mapped more than once and 1MiB locked into memory"
        " (they move all the same)\n"
        "it should take about 2.0 s\n"
    )
    assert fake.calls == [("Memory.Survey", parameters)]
    shown = json.loads(zonectl(*arguments, "--dry-run", "-o", "json").out)
    assert (shown["to_move"], shown["stays"]) == (500 * MIB, {"shared": 12 * MIB, "pinned": 0})
    assert shown["by_node"][0]["thp"] == 200 * MIB


def test_a_dry_run_of_what_does_not_fit(fake: FakeDaemon, zonectl: Callable[..., Ran]) -> None:
    fake.answers["Memory.Survey"] = replace(
        SURVEY, fits=False, stays={}, processes=3, to_move=2048 * MIB
    )
    found = zonectl("move", "db", "--nodes", "2", "--dry-run")
    assert found.status == 1
    assert "STAYS" not in found.out
    assert found.out.splitlines()[-3].endswith(": 3 processes, 2GiB to move")
    assert found.out.splitlines()[-1] == ("it would be refused: the target has room for 1.1GiB")
    assert json.loads(zonectl("move", "db", "--nodes", "2", "--dry-run", "--json").out)["fits"] is (
        False
    )


def test_a_dry_run_that_cannot_tell_the_time_and_meets_what_is_new(
    fake: FakeDaemon, zonectl: Callable[..., Ran]
) -> None:
    fake.answers["Memory.Survey"] = replace(SURVEY, seconds=None, stays={"newish": MIB})
    out = zonectl("move", "db", "--nodes", "2", "--dry-run").out
    assert "newish  1MiB  -" in out
    assert "it should take" not in out


def test_a_dry_run_that_is_refused(fake: FakeDaemon, zonectl: Callable[..., Ran]) -> None:
    fake.answers["Memory.Survey"] = NoCapacity("node 2 is full")
    found = zonectl("move", "db", "--nodes", "2", "--dry-run")
    assert (found.status, found.out) == (1, "")
    assert found.err == "zonectl: [no-capacity] node 2 is full\n"


def test_each_reason_to_stay_is_explained() -> None:
    assert {outcome for outcome in Outcome if outcome.is_left} <= set(_WHY)
