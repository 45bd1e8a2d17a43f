# SPDX-License-Identifier: Apache-2.0
"""status, reload, reset, explain."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.unit.fakes import GIB
from zoned.errors import PolicyError, by_code
from zoned.model.alert import AlertCode
from zoned.model.policy import Policy
from zoned.model.zone import ZoneSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.cli.conftest import Daemon, Ran


def test_status_of_a_machine_that_is_well(daemon: Daemon) -> None:
    daemon.well("create", "db", "--size", "1GiB", "--nodes", "0")
    text = daemon.well("status")
    assert ": 1 zone, 0 members, cgroups by v2 at /zone; all is well" in text
    shown = json.loads(daemon.well("status", "-o", "json"))
    assert (shown["ok"], shown["zones"], shown["protects"], shown["alerts"]) == (True, 1, True, [])
    assert [node["reserved"] for node in shown["nodes"]] == [GIB, 0]


def test_status_of_a_machine_that_is_not(daemon: Daemon) -> None:
    daemon.world.groups.protects = False
    daemon.well("create", "db", "--size", "1GiB")
    found = daemon.zonectl("status")
    assert found.status == 1
    assert "weak-protection" in found.out
    assert "without hard protection; 1 alert (zonectl explain CODE tells more)" in found.out
    assert json.loads(daemon.zonectl("status", "--json").out)["ok"] is False


def test_reload(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    assert daemon.well("reload") == "the policy is in force\n"

    def mistake() -> None:
        raise PolicyError(("a.yaml:3: zones.db: no", "a.yaml:5: zones.web: no"))

    monkeypatch.setattr(daemon.engine, "_load_policy", mistake)
    found = daemon.zonectl("reload")
    assert found.status == 1
    assert found.err == (
        "zonectl: [bad-policy] a.yaml:3: zones.db: no\na.yaml:5: zones.web: no\n"
        "  hint: nothing of the policy was applied\n"
    )


def test_reload_names_the_zones_that_do_not_fit(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"a": GIB, "huge": 99 * GIB, "lost": GIB}
    zones = (
        ZoneSpec(name=name, size=size, nodes="5" if name == "lost" else None)
        for name, size in sizes.items()
    )
    policy = Policy(zones=tuple(zones), sources={"huge": "a.yaml:2", "lost": "a.yaml:3"})
    monkeypatch.setattr(daemon.engine, "_load_policy", lambda: policy)
    found = daemon.zonectl("reload")
    assert (found.status, found.out) == (64, "the policy is in force\n")
    head, *lines = found.err.splitlines()
    assert head == "zonectl: [partial] these zones are not as wanted:"
    assert [line.split(": ")[:2] for line in lines] == [["huge", "a.yaml:2"], ["lost", "a.yaml:3"]]
    assert list(daemon.engine.machine.store.zones) == ["a"]


def test_reload_names_the_zones_that_stay_for_their_members(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [Policy(zones=(ZoneSpec(name="a", size=GIB),)), Policy()]
    monkeypatch.setattr(daemon.engine, "_load_policy", lambda: wanted.pop(0))
    daemon.well("reload")
    daemon.world.groups.units["a"] = ("web.service",)
    head, line = daemon.well("reload").splitlines()
    assert head == "the policy is in force"
    assert line.startswith("a: ")


def test_reset(daemon: Daemon) -> None:
    daemon.well("create", "a", "--size", "1GiB")
    daemon.well("create", "b", "--size", "1GiB")
    daemon.world.groups.units["b"] = ("x.service",)
    found = daemon.zonectl("reset")
    assert found.status == 64
    assert found.err.startswith("zonectl: [partial] this is left:\nb: x.service runs in")
    daemon.world.groups.units.clear()
    assert daemon.well("reset") == "no zone is left\n"


@pytest.mark.parametrize("code", [*by_code(), *AlertCode])
def test_every_code_is_explained(zonectl: Callable[..., Ran], code: str) -> None:
    found = zonectl("explain", code)
    assert (found.status, found.err) == (0, "")
    assert len(found.out) > 20
    listed = zonectl("explain").out.splitlines()
    assert any(line.split()[0] == str(code) and len(line.split()) > 3 for line in listed)


def test_a_code_that_is_none(zonectl: Callable[..., Ran]) -> None:
    found = zonectl("explain", "nonsense")
    assert (found.status, found.out) == (2, "")
    assert found.err.startswith("zonectl: [usage] there is no code 'nonsense'\n  hint: ")


def test_no_error_and_alert_share_a_code() -> None:
    assert not set(by_code()) & {str(code) for code in AlertCode}
