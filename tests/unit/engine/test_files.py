# SPDX-License-Identifier: Apache-2.0
"""Store and ledger: what was saved comes back, and what is damaged is left as it is."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoned.engine.ledger import Ledger, Member, Touched
from zoned.engine.store import Store, zone_from_json, zone_to_json
from zoned.errors import MachineError, StateDamaged
from zoned.model.zone import Backing, Origin, Zone, ZoneSpec

if TYPE_CHECKING:
    from pathlib import Path

SPEC = ZoneSpec(
    name="db",
    size=1 << 30,
    nodes="0,2",
    backing=Backing.LIMIT,
    cpus="none",
    exclusive_cpus=True,
    swap=None,
    users=("jo", "mo"),
)
ZONE = Zone(
    spec=SPEC,
    shares={0: 1 << 29, 2: 1 << 29},
    cpus=frozenset({1, 2, 9}),
    origin=Origin.POLICY,
    units=("a.service",),
)

SPECS = st.builds(
    ZoneSpec,
    name=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True),
    size=st.integers(1, 1 << 62),
    nodes=st.none() | st.sampled_from(["0", "all", "!1"]),
    near=st.none() | st.just("node:1"),
    backing=st.sampled_from(Backing),
    cpus=st.sampled_from(["local", "none", "0-3"]),
    exclusive_cpus=st.booleans(),
    swap=st.none() | st.integers(0, 1 << 62),
    users=st.lists(st.text(min_size=1)).map(tuple),
)
ZONES = st.builds(
    Zone,
    spec=SPECS,
    shares=st.dictionaries(st.integers(0, 99), st.integers(0, 1 << 62)),
    cpus=st.none() | st.frozensets(st.integers(0, 999)),
    origin=st.sampled_from(Origin),
    units=st.lists(st.text()).map(tuple),
    leaving=st.dictionaries(st.integers(0, 99), st.integers(0, 1 << 62)),
)


@given(ZONES)
def test_any_zone_comes_back_as_it_was(zone: Zone) -> None:
    assert zone_from_json(json.loads(json.dumps(zone_to_json(zone)))) == zone


def test_zones_are_on_disk_before_they_are_seen(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = store.zones
    store.put(ZONE)
    assert dict(before) == {}
    assert dict(Store(tmp_path).zones) == dict(store.zones) == {"db": ZONE}
    store.drop("nobody")
    store.drop("db")
    assert dict(Store(tmp_path).zones) == {}


def test_a_zone_that_cannot_be_saved_is_not_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "zones.json.new").mkdir()
    with pytest.raises(MachineError, match=r"cannot save .*zones\.json"):
        store.put(ZONE)
    assert dict(store.zones) == {}


def saved(**changes: Any) -> str:
    zone = zone_to_json(ZONE)
    zone["spec"] |= changes.pop("spec", {})
    return json.dumps({"version": 1, "zones": [zone | changes]})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        "{}",
        '{"version": 1}',
        '{"version": 1, "zones": 5}',
        '{"version": 1, "zones": [5]}',
        '{"version": 1, "zones": [{}]}',
        '{"version": 2, "zones": []}',
        saved(spec={"name": "../etc"}),
        saved(spec={"size": "big"}),
        saved(spec={"size": None}),
        saved(spec={"swap": "some"}),
        saved(spec={"colour": "red"}),
        saved(spec={"backing": "paper"}),
        saved(spec={"users": 5}),
        saved(cpus="1-x"),
        saved(cpus=5),
        saved(shares={"x": 1}),
        saved(shares=[1]),
        saved(origin="heaven"),
        saved(leaving={"x": 1}),
        saved(leaving=[0]),
        saved(leaving={"0": None}),
        "[" * 100_000,
    ],
)
def test_a_damaged_store_is_named_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "zones.json"
    path.write_text(text)
    with pytest.raises(StateDamaged, match="cannot read") as error:
        Store(tmp_path)
    assert error.value.message.count(str(path)) == 1
    assert error.value.message.count("cannot read") == 1
    assert error.value.hint
    assert path.read_text() == text


def test_a_store_of_an_older_version_is_read(tmp_path: Path) -> None:
    """It knows nothing of zones that are on their way."""
    data = json.loads(saved())
    del data["zones"][0]["leaving"]
    (tmp_path / "zones.json").write_text(json.dumps(data))
    (zone,) = Store(tmp_path).zones.values()
    assert (zone, zone.leaving) == (ZONE, {})


def test_an_undamaged_store_is_read(tmp_path: Path) -> None:
    (tmp_path / "zones.json").write_text(saved())
    assert dict(Store(tmp_path).zones) == {"db": ZONE}


def test_the_ledger_comes_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "boot")
    ledger.parent(made=True)
    ledger.group_made("db")
    ledger.group_made("web")
    one = Member(pid=5, start_time=7, zone="db", former="/a", nodes=frozenset({0, 3}))
    two = Member(pid=6, start_time=8, zone="web", former=None)
    ledger.members_added([one, two])
    ledger.unit_confined("x.service", frozenset({1, 2}))
    ledger.unit_confined("y.service", frozenset())
    ledger.movable_only_is(frozenset({4, 5}))
    assert Ledger(tmp_path, "boot").touched == ledger.touched
    assert ledger.touched == Touched(
        parent=True,
        groups=frozenset({"db", "web"}),
        members=(one, two),
        units={"x.service": frozenset({1, 2}), "y.service": frozenset()},
        movable_only=frozenset({4, 5}),
    )


def test_another_boot_resets_it(tmp_path: Path) -> None:
    Ledger(tmp_path, "boot").parent(made=True)
    assert Ledger(tmp_path, "next boot").touched == Touched()
    assert Ledger(tmp_path, None).touched == Touched()


def test_what_is_said_already_is_not_written_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "boot")
    member = Member(pid=5, start_time=7, zone="db", former="/a")
    ledger.parent(made=True)
    ledger.group_made("db")
    ledger.members_added([member])
    ledger.unit_confined("x.service", frozenset())
    (tmp_path / "ledger.json").unlink()
    ledger.parent(made=True)
    ledger.group_made("db")
    ledger.members_gone([99])
    ledger.members_ended([])
    ledger.unit_confined("x.service", frozenset({3}))
    ledger.unit_lifted("nobody.service")
    ledger.movable_only_is(frozenset())
    assert not (tmp_path / "ledger.json").exists()
    assert ledger.touched.units == {"x.service": frozenset()}


def test_a_group_takes_its_members_along(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "boot")
    members = [
        Member(pid=pid, start_time=1, zone=zone, former="/") for pid, zone in enumerate("ab")
    ]
    ledger.members_added(members)
    ledger.group_made("a")
    ledger.group_gone("a")
    assert ledger.touched == Touched(members=(members[1],))


@pytest.mark.parametrize(
    ("saved_nodes", "nodes"), [([], None), ([None], None), (["0,2"], frozenset({0, 2}))]
)
def test_members_of_older_versions_have_no_nodes(
    tmp_path: Path, saved_nodes: list[str | None], nodes: frozenset[int] | None
) -> None:
    text = json.dumps(TOUCHED | {"members": [[5, 7, "db", "/", *saved_nodes]]})
    (tmp_path / "ledger.json").write_text(text)
    member = Member(pid=5, start_time=7, zone="db", former="/", nodes=nodes)
    assert Ledger(tmp_path, "boot").touched.members == (member,)


def test_the_nodes_that_a_process_first_had_stand(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "boot")
    first = Member(pid=5, start_time=7, zone="a", former="/first", nodes=frozenset({1}))
    ledger.members_added([first])
    ledger.members_added([replace(first, zone="b", former="/zone/a", nodes=frozenset({0}))])
    assert ledger.touched.members == (replace(first, zone="b"),)


def test_where_a_process_first_came_from_stands(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "boot")
    ledger.members_added([Member(pid=5, start_time=7, zone="a", former="/first")])
    ledger.members_added([Member(pid=5, start_time=7, zone="b", former="/zone/a")])
    again = Member(pid=5, start_time=9, zone="b", former="/other")
    ledger.members_added([again])
    first = Member(pid=5, start_time=7, zone="b", former="/first")
    assert list(ledger.touched.members) == [first, again]
    ledger.members_ended([first])
    assert list(ledger.touched.members) == [again]
    ledger.members_gone([5])
    assert not ledger.touched.members


def test_units_are_forgotten(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "boot")
    ledger.unit_confined("x.service", frozenset({1}))
    ledger.unit_lifted("x.service")
    assert not Ledger(tmp_path, "boot").touched.units


TOUCHED: dict[str, Any] = {
    "boot_id": "boot",
    "parent": True,
    "groups": ["db"],
    "members": [[5, 7, "db", "/"]],
    "units": {"x.service": "1"},
}


@pytest.mark.parametrize(
    "change",
    [
        {"groups": 5},
        {"members": 5},
        {"members": [[1]]},
        {"members": [["x", 1, "a", "/"]]},
        {"members": [[5, 7, "db", "/", "1-x"]]},
        {"units": []},
        {"units": {"x.service": "1-x"}},
        {"units": {"x.service": 5}},
        {"groups": [{}]},
        {"movable_only": "4-x"},
    ],
)
def test_a_damaged_ledger_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "ledger.json"
    path.write_text(json.dumps(TOUCHED))
    assert Ledger(tmp_path, "boot").touched.parent
    path.write_text(json.dumps(TOUCHED | change))
    with pytest.raises(StateDamaged, match=r"ledger\.json"):
        Ledger(tmp_path, "boot")


@pytest.mark.parametrize("text", ["", "[]", "5", "{}", "null x"])
def test_a_ledger_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "ledger.json").write_text(text)
    with pytest.raises(StateDamaged):
        Ledger(tmp_path, "boot")
