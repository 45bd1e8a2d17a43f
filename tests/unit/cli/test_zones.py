# SPDX-License-Identifier: Apache-2.0
"""list, show, create, resize, destroy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.unit.fakes import GIB, MIB
from zoned.cli import zones as zones_module
from zoned.model.zone import Backing

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Daemon


def test_nothing_yet(daemon: Daemon) -> None:
    assert "no zones yet: zonectl create" in daemon.well("list")
    assert json.loads(daemon.well("list", "-o", "json")) == []


def test_create_with_every_option(daemon: Daemon) -> None:
    out = daemon.well(
        *("create", "db", "--size", "1.5GiB", "--nodes", "0-1", "--backing", "limit"),
        *("--cpus", "2", "--exclusive-cpus", "--swap", "1GiB", "--user", "jo", "--user", "mo"),
    )
    assert out == "zone db is created: 1.5GiB on node 0-1, limit\n"
    zone = daemon.engine.machine.store.zones["db"]
    spec = zone.spec
    assert (spec.size, spec.nodes, spec.backing) == (3 * GIB // 2, "0-1", Backing.LIMIT)
    assert (spec.cpus, spec.exclusive_cpus, spec.swap) == ("2", True, GIB)
    assert spec.users == ("jo", "mo")


def test_create_with_none(daemon: Daemon) -> None:
    daemon.well("create", "db", "--size", "1GiB")
    zone = daemon.engine.machine.store.zones["db"]
    spec = zone.spec
    assert (spec.nodes, spec.near, spec.backing, spec.cpus) == (
        None,
        None,
        Backing.RESERVE,
        "local",
    )
    assert (spec.exclusive_cpus, spec.swap, spec.users) == (False, 0, ())
    daemon.well("create", "net", "--size", "1GiB", "--near", "zone:db", "--swap", "max")
    assert daemon.engine.machine.store.zones["net"].nodes == zone.nodes


def test_list_in_json_has_exactly_the_promised_fields(daemon: Daemon) -> None:
    daemon.well("create", "db", "--size", "1GiB", "--nodes", "1")
    daemon.world.groups.made["db"].used = 5 * MIB
    daemon.world.add_process(7, "/zone/db")
    lines = json.loads(daemon.well("list", "-o", "json"))
    assert lines == [
        {
            "name": "db",
            "size": GIB,
            "backing": "reserve",
            "nodes": [1],
            "cpus": "2-3",
            "state": "active",
            "used": 5 * MIB,
            "foreign": 0,
            "members": 1,
        }
    ]
    assert json.loads(daemon.well("list", "--json")) == lines
    assert yaml.safe_load(daemon.well("list", "-o", "yaml")) == lines
    assert daemon.well("list") == (
        "NAME  STATE   SIZE  USED  FOREIGN  NODES  BACKING  MEMBERS\n"
        "db    active  1GiB  5MiB       0B  1      reserve        1\n"
    )


def test_show(daemon: Daemon) -> None:
    daemon.well("create", "db", "--size", "1GiB", "--user", "jo", "--cpus", "none")
    daemon.world.add_process(7, "/zone/db")
    daemon.world.groups.made["db"].by_node = {0: MIB, 1: 32 * MIB}
    daemon.engine.tick()
    shown: dict[str, Any] = json.loads(daemon.well("show", "db", "-o", "json"))
    assert shown["by_node"] == [
        {"node": 0, "share": GIB, "used": MIB},
        {"node": 1, "share": 0, "used": 32 * MIB},
    ]
    assert shown["limits"] == shown["wanted"]
    assert set(shown["events"]) == {"oom", "oom_kill", "max", "high"}
    assert [alert["code"] for alert in shown["alerts"]] == ["off-node"]
    assert shown["processes"] == [{"pid": 7, "name": "work", "anonymous": MIB}]
    text = daemon.well("show", "db")
    for expected in ("jo", "request", "/zone/db", "work", "off-node", "any", "32MiB"):
        assert expected in text


def test_show_of_a_zone_that_the_kernel_has_not(daemon: Daemon) -> None:
    daemon.well("create", "db", "--size", "1GiB", "--swap", "max")
    daemon.world.groups.made.clear()
    lines = [line.split() for line in daemon.well("show", "db").splitlines()]
    assert ["state", "missing"] in lines
    assert ["max", "1GiB", "-"] in lines
    assert ["swap", "unlimited", "-"] in lines
    assert ["users", "root", "only"] in lines


def test_pressure_is_shown_where_there_is_some() -> None:
    from zoned.api.types import PressureInfo

    pressure = PressureInfo(some_10s=1.5, some_60s=1.0, full_10s=0.5, full_60s=0.0)
    assert zones_module._pressure(pressure) == "some 1.5% full 0.5% (last 10 s)"
    assert zones_module._pressure(None) is None
    assert (zones_module._count(None), zones_module._count(3)) == ("-", "3")


def test_limits_that_are_none() -> None:
    from zoned.api.types import LimitsInfo

    free = LimitsInfo(
        max=None, high=None, min=0, swap=None, nodes=None, cpus=None, exclusive_cpus=False
    )
    rows = zones_module._limits(free, free).rows
    assert list(rows[0]) == ["max", "unlimited", "unlimited"]
    assert list(rows[3]) == ["nodes", None, None]


def test_resize_and_destroy(daemon: Daemon) -> None:
    daemon.well("create", "db", "--size", "1GiB", "--nodes", "0")
    assert daemon.well("resize", "db", "2GiB") == "zone db is resized: 2GiB on node 0, reserve\n"
    shown = json.loads(daemon.well("resize", "db", "1GiB", "-o", "json"))
    assert (shown["size"], shown["limits"]["max"]) == (GIB, GIB)
    daemon.well("destroy", "db")
    assert not daemon.world.groups.made


def test_create_tells_of_alerts(daemon: Daemon) -> None:
    daemon.world.groups.protects = False
    out = daemon.well("create", "db", "--size", "1GiB")
    assert "note: [weak-protection] the kernel may reclaim" in out


def test_a_zone_with_members(daemon: Daemon) -> None:
    daemon.well("create", "db", "--size", "1GiB")
    daemon.world.add_process(7, "/zone/db")
    refused = daemon.zonectl("destroy", "db")
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.startswith("zonectl: [has-members] zone db has 1 members (pid 7)\n  hint: ")
    daemon.well("destroy", "db", "--drain", "root")
    assert daemon.world.groups.where[7] == "/"
    daemon.well("create", "db", "--size", "1GiB")
    daemon.world.add_process(7, "/zone/db")
    assert daemon.zonectl("destroy", "db", "--kill", "--drain", "root").status == 2
    daemon.well("destroy", "db", "--kill")
    assert 7 not in daemon.world.groups.where


@pytest.mark.parametrize(
    ("arguments", "code", "status"),
    [
        (("create", "db", "--size", "1GiB", "--nodes", "9"), "unknown-node", 1),
        (("create", "db", "--size", "0"), "bad-size", 1),
        (("create", "db", "--size", "much"), "bad-size", 1),
        (("create", "db", "--size", "99TiB"), "bad-size", 1),
        (("create", "db", "--size", "1GiB", "--nodes", "x"), "bad-list", 1),
        (("create", "db", "--size", "1GiB", "--cpus", "99"), "bad-list", 1),
        (("create", "Db", "--size", "1GiB"), "bad-name", 1),
        (("create", "taken", "--size", "1GiB"), "name-taken", 1),
        (("create", "db", "--size", "4GiB", "--nodes", "0"), "no-capacity", 1),
        (("create", "db", "--size", "1GiB", "--nodes", "0", "--near", "node:0"), "usage", 2),
        (("create", "db", "--size", "1GiB", "--near", "moon"), "bad-input", 1),
        (("create", "db", "--size", "1GiB", "--swap", "lots"), "bad-size", 1),
        (("create", "db", "--size", "1GiB", "--user", "a b"), "bad-name", 1),
        (("resize", "ghost", "1GiB"), "no-such-zone", 1),
        (("resize", "taken", "99GiB"), "bad-size", 1),
        (("show", "ghost"), "no-such-zone", 1),
        (("show", "\udcff\x00"), "no-such-zone", 1),
        (("destroy", "ghost"), "no-such-zone", 1),
        (("destroy", "taken", "--drain", "ghost"), "no-such-zone", 1),
    ],
)
def test_mistakes_get_one_error_and_change_nothing(
    daemon: Daemon, arguments: tuple[str, ...], code: str, status: int
) -> None:
    daemon.well("create", "taken", "--size", "1GiB", "--nodes", "0")
    before = dict(daemon.engine.machine.store.zones)
    found = daemon.zonectl(*arguments)
    assert (found.status, found.out) == (status, "")
    assert found.err.startswith(f"zonectl: [{code}] ")
    assert len(found.err.splitlines()) <= 2
    assert dict(daemon.engine.machine.store.zones) == before
    assert daemon.world.groups.made.keys() == {"taken"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "db"),
        ("create", "--size", "1GiB"),
        ("create", "db", "--size", "1GiB", "--backing", "paper"),
        ("list", "-o", "xml"),
        ("resize", "db"),
    ],
)
def test_usage(daemon: Daemon, arguments: tuple[str, ...]) -> None:
    found = daemon.zonectl(*arguments)
    assert found.status == 2
    assert "Usage:" in found.err
