# SPDX-License-Identifier: Apache-2.0
"""Policy files to a policy, and every mistake with file, line and field."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from zoned.errors import PolicyError
from zoned.model.policy import Percent, Policy, SystemReserve
from zoned.model.zone import Backing, ZoneSpec
from zoned.policy.load import load, load_text

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
KEYS = "size, nodes, near, backing, cpus, exclusive_cpus, swap, users"


def problems(text: str) -> list[str]:
    """Return what is wrong with a file called f."""
    with pytest.raises(PolicyError) as caught:
        load_text(text, "f")
    return list(caught.value.problems)


def write(directory: Path, name: str, text: str) -> Path:
    """Put a drop-in there."""
    path = directory / "zones.d" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_everything_at_once() -> None:
    policy = load_text(
        """
system:
  reserve: 12.5%
  nodes: {0: 2GiB, 3: 0, 1: 7%}
zones:
  db:
    size: 64GiB
    nodes: 0,2
    backing: limit
    cpus: 0-3
    exclusive_cpus: true
    swap: max
    users: [postgres, backup, postgres]
  small: {size: 1GiB}
""",
        "f",
    )
    assert policy == Policy(
        zones=(
            ZoneSpec(
                name="db",
                size=64 * GIB,
                nodes="0,2",
                backing=Backing.LIMIT,
                cpus="0-3",
                exclusive_cpus=True,
                swap=None,
                users=("postgres", "backup"),
            ),
            ZoneSpec(name="small", size=GIB),
        ),
        reserve=SystemReserve(
            default=Percent(hundredths=1250),
            nodes={0: 2 * GIB, 3: 0, 1: Percent(hundredths=700)},
        ),
        sources={"db": "f:6", "small": "f:14"},
        files=("f",),
    )


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "---\n", "{}", "system:\nzones:\n", "system: {}\nzones: {}\n"]
)
def test_a_file_may_say_nothing(text: str) -> None:
    assert load_text(text, "f") == Policy(files=("f",))


def test_shared_settings_by_alias() -> None:
    policy = load_text("zones: {a: &z {size: 1GiB, users: [x]}, b: *z}", "f")
    assert [(zone.name, zone.size) for zone in policy.zones] == [("a", GIB), ("b", GIB)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "- 1",
            "f:1: document: a list is not a mapping (write KEY: VALUE, indented below it)",
        ),
        (
            "zones: 7",
            "f:1: zones: 7 is not a mapping (write KEY: VALUE, indented below it)",
        ),
        (
            "\nsystem: [1]",
            "f:2: system: a list is not a mapping (write KEY: VALUE, indented below it)",
        ),
        ("zone: {}", "f:1: zone: is no known key (did you mean zones?)"),
        ("colour: red", "f:1: colour: is no known key (known are system, hotplug, zones, dma)"),
        (
            "system:\n  reserved: 5%",
            "f:2: system.reserved: is no known key (did you mean reserve?)",
        ),
        (
            "system:\n  nodes: 2GiB",
            "f:2: system.nodes: '2GiB' is not a mapping (write KEY: VALUE, indented below it)",
        ),
        (
            "system:\n  reserve: 91%",
            "f:2: system.reserve: '91%' leaves too little for zones (at most 90%)",
        ),
        ("system:\n  reserve:", "f:2: system.reserve: has no value"
         " (remove the key, or write a value)"),
        (
            "system:\n  nodes:\n    0: 1GiB\n    one: 1GiB",
            "f:4: system.nodes.one: 'one' is no node (one number a line, like 0: 2GiB)",
        ),
        (
            "system:\n  nodes:\n    0: much",
            "f:3: system.nodes.0: 'much' is no size (write it like 5% or 2GiB)",
        ),
        ("zones:\n  db: {}", "f:2: zones.db.size: is missing (write it like size: 2GiB)"),
        ("zones:\n  db:", "f:2: zones.db: has no value (remove the key, or write a value)"),
        (
            "zones:\n  db: 2GiB",
            "f:2: zones.db: '2GiB' is not a mapping (write KEY: VALUE, indented below it)",
        ),
        (
            "zones:\n  db:\n    size: big",
            "f:3: zones.db.size: 'big' is no size (write it like 512MiB or 64GiB)",
        ),
        (
            "zones:\n  db:\n    size: 0",
            "f:3: zones.db.size: size '0' is zero (write it like 512MiB or 64GiB)",
        ),
        (
            "zones:\n  Db: {size: 1GiB}",
            "f:2: zones.Db: 'Db' is no name for a zone"
            " (1 to 63 characters of a-z 0-9 . _ -, the first a letter or digit)",
        ),
        (
            "zones:\n  '[key]': {size: 1GiB}",
            "f:2: zones.'[key]': '[key]' is no name for a zone"
            " (1 to 63 characters of a-z 0-9 . _ -, the first a letter or digit)",
        ),
        (
            "zones:\n  db: {size: 1GiB, sizes: 2}",
            "f:2: zones.db.sizes: is no known key (did you mean size?)",
        ),
        (
            "zones:\n  db: {size: 1GiB, '': 2}",
            f"f:2: zones.db.'': is no known key (known are {KEYS})",
        ),
        (
            "zones:\n  db: {size: 1GiB,\n    nodes: 0.5}",
            "f:3: zones.db.nodes: '0.5' is no list of numbers"
            " (write it like 0, 0,2, 0-3,6, all, '!1' or [0, 2])",
        ),
        (
            "zones:\n  db: {size: 1GiB,\n    '[key]': 2}",
            f"f:3: zones.db.'[key]': is no known key (known are {KEYS})",
        ),
        (
            "zones:\n  db: {size: 1GiB, nodes: 0,2}",
            "f:2: zones.db.2: is no known key (inside braces a list needs quotes, like '0,2')",
        ),
        (
            "zones:\n  db:\n    size: 1GiB\n    near: node:0\n    nodes: 0",
            "f:4: zones.db.near: excludes 'nodes' (keep one of the two)",
        ),
        (
            "zones:\n  db: {size: 1GiB, near: here}",
            "f:2: zones.db.near: 'here' is nothing to be near"
            " (write one of cpu:…, node:…, pci:…, netdev:…, block:…, zone:…)",
        ),
        (
            "zones:\n  db: {size: 1GiB, backing: steel}",
            "f:2: zones.db.backing: 'steel' is no backing"
            " (write one of limit, reserve, blocks, node)",
        ),
        (
            "zones:\n  db: {size: 1GiB, cpus: near}",
            "f:2: zones.db.cpus: 'near' is no list of numbers"
            " (write local, none, or a list like 0-3,8)",
        ),
        (
            "zones:\n  db: {size: 1GiB, exclusive_cpus: on}",
            "f:2: zones.db.exclusive_cpus: 'on' is not true or false (write true or false)",
        ),
        (
            "zones:\n  db: {size: 1GiB, exclusive_cpus: true, cpus: none}",
            "f:2: zones.db.exclusive_cpus: needs CPUs, but 'cpus' is none (write cpus: local)",
        ),
        (
            "zones:\n  db: {size: 1GiB, swap: lots}",
            "f:2: zones.db.swap: 'lots' is no size (write none, max, or a size like 2GiB)",
        ),
        (
            "zones:\n  db: {size: 1GiB, users: joe}",
            "f:2: zones.db.users: 'joe' is not a list (write it like [postgres])",
        ),
        (
            "zones:\n  db:\n    size: 1GiB\n    users:\n      - joe\n      - 1000",
            "f:6: zones.db.users[1]: 1000 is no user's name (write names, not numbers)",
        ),
        (
            "zones:\n  db: {size: 1GiB, near: zone:db}",
            "f:2: zones.db.near: goes round in a circle by way of 'db'",
        ),
        ("a: [", "f:1: column 5: the text ends inside brackets (close them)"),
    ],
)  # fmt: skip
def test_mistake(text: str, problem: str) -> None:
    assert problems(text) == [problem]


def test_all_mistakes_of_a_file_are_told_in_order() -> None:
    found = problems(
        """\
zones:
  a:
    size: none
    size: 1GiB
    nodes: x
    near: node:1
    colour: red
  B:
    users: [1]
  c: {size: 1GiB, near: zone:c}
system:
  reserve: 99%
"""
    )
    assert [one.split(": ")[:2] for one in found] == [
        ["f:3", "zones.a.size"],
        ["f:4", "zones.a.size"],
        ["f:5", "zones.a.nodes"],
        ["f:6", "zones.a.near"],
        ["f:7", "zones.a.colour"],
        ["f:8", "zones.B"],
        ["f:8", "zones.B.size"],
        ["f:9", "zones.B.users[0]"],
        ["f:10", "zones.c.near"],
        ["f:12", "system.reserve"],
    ]


def test_the_error_is_of_use_to_programs() -> None:
    with pytest.raises(PolicyError) as caught:
        load_text("a: 1\nb: 2", "f")
    assert caught.value.code == "bad-policy"
    assert caught.value.exit_status == 1
    assert len(caught.value.problems) == 2
    assert str(caught.value).endswith("(nothing of the policy was applied)")


def test_files_add_up_and_later_ones_win(tmp_path: Path) -> None:
    vendor, admin = tmp_path / "lib", tmp_path / "etc"
    write(vendor, "10-a.yaml", "system: {reserve: 5%, nodes: {0: 1GiB, 1: 1GiB}}")
    write(vendor, "20-b.yaml", "zones: {b: {size: 1GiB}}")
    first = write(admin, "05-c.yaml", "system: {reserve: 9%}\nzones:\n  c: {size: 1GiB}\n")
    write(admin, "30-d.yaml", "system: {nodes: {1: 2GiB}}")
    policy = load([vendor, admin])
    assert [zone.name for zone in policy.zones] == ["c", "b"]
    assert policy.reserve.default == Percent(hundredths=500)
    assert policy.reserve.nodes == {0: GIB, 1: 2 * GIB}
    assert policy.sources["c"] == f"{first}:3"


def test_no_directories_at_all(tmp_path: Path) -> None:
    assert load([tmp_path / "missing"]) == Policy()
    assert load([]) == Policy()


def test_an_override_hides_the_mistakes_below(tmp_path: Path) -> None:
    write(tmp_path / "lib", "10-a.yaml", "zones: wrong")
    own = write(tmp_path / "etc", "10-a.yaml", "")
    assert load([tmp_path / "lib", tmp_path / "etc"]) == Policy(files=(str(own),))


def test_mistakes_of_all_files_are_told_together(tmp_path: Path) -> None:
    first = write(tmp_path, "10-a.yaml", "zones: [")
    second = write(tmp_path, "20-b.yaml", "x: 1\ny: 2\n")
    third = tmp_path / "zones.d/30-c.yaml"
    third.mkdir()
    with pytest.raises(PolicyError) as caught:
        load([tmp_path])
    assert [one.rpartition("/")[2].split(": ")[0] for one in caught.value.problems] == [
        f"{first.name}:1",
        f"{second.name}:1",
        f"{second.name}:2",
        f"{third.name}",
    ]


def test_one_zone_in_two_files(tmp_path: Path) -> None:
    first = write(tmp_path, "10-a.yaml", "zones:\n  db: {size: 1GiB}\n")
    second = write(tmp_path, "20-b.yaml", "zones:\n\n  db: {size: wrong}\n")
    with pytest.raises(PolicyError) as caught:
        load([tmp_path])
    assert list(caught.value.problems) == [
        f"{second}:3: zones.db: is defined already in {first}:2 (rename or remove one of them)",
        f"{second}:3: zones.db.size: 'wrong' is no size (write it like 512MiB or 64GiB)",
    ]


def test_zones_come_after_those_they_are_near() -> None:
    policy = load_text(
        """
zones:
  d: {size: 1GiB, near: zone:elsewhere}
  c: {size: 1GiB, near: zone:b}
  b: {size: 1GiB, near: zone:a}
  a: {size: 1GiB}
  e: {size: 1GiB, near: node:1}
""",
        "f",
    )
    names = [zone.name for zone in policy.zones]
    assert names == ["d", "a", "e", "b", "c"]
    assert policy.sources["d"] == "f:3"


def test_each_circle_is_told_once(tmp_path: Path) -> None:
    write(tmp_path, "1.yaml", "zones: {a: {size: 1GiB, near: 'zone:b'}}")
    write(tmp_path, "2.yaml", "zones: {b: {size: 1GiB, near: 'zone:c'}}")
    write(
        tmp_path, "3.yaml", "zones: {c: {size: 1G, near: 'zone:a'}, d: {size: 1G, near: 'zone:a'}}"
    )
    with pytest.raises(PolicyError) as caught:
        load([tmp_path])
    assert [one.rpartition("/")[2] for one in caught.value.problems] == [
        "1.yaml:1: zones.a.near: goes round in a circle by way of 'b'"
    ]


def test_pydantic_is_not_loaded_for_nothing() -> None:
    code = (
        "import sys; from zoned.policy.load import load_text; load_text('# nothing', 'f');"
        "assert not {'pydantic', 'fractions'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
