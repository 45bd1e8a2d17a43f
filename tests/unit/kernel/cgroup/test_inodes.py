# SPDX-License-Identifier: Apache-2.0
"""Groups by their inodes, and the zones that they are of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_sys import write
from zoned.kernel.cgroup.inodes import cgroup_paths, zone_of_path
from zoned.kernel.root import Root, sysroot

if TYPE_CHECKING:
    from pathlib import Path


def mounted(folder: Path, *mounts: str) -> Root:
    """Make a machine with groups below `memory` and `unified`, of which these are mounted."""
    lines = {
        "memory": f"30 1 0:30 / {folder}/memory rw - cgroup cgroup rw,memory",
        "unified": f"31 1 0:31 / {folder}/unified rw - cgroup2 cgroup2 rw",
    }
    write(folder, {"proc/self/mountinfo": "\n".join(lines[each] for each in mounts)})
    for name in ("memory/zone/db", "memory/app", "unified/system.slice/a b.service"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return replace(sysroot(folder), cgroup=folder / "unified")


def test_groups_of_v2(tmp_path: Path) -> None:
    root = mounted(tmp_path, "unified")
    write(tmp_path, {"unified/cgroup.controllers": "cpuset memory"})
    top = tmp_path / "unified"
    assert cgroup_paths(root) == {
        top.stat().st_ino: "/",
        (top / "system.slice").stat().st_ino: "/system.slice",
        (top / "system.slice/a b.service").stat().st_ino: "/system.slice/a b.service",
    }


def test_groups_of_v1(tmp_path: Path) -> None:
    root = mounted(tmp_path, "unified", "memory")
    write(tmp_path, {"unified/cgroup.controllers": "cpuset"})
    assert sorted(cgroup_paths(root).values()) == ["/", "/app", "/zone", "/zone/db"]


def test_a_machine_without_the_controller(tmp_path: Path) -> None:
    root = mounted(tmp_path, "unified")
    assert cgroup_paths(root) == {}
    write(tmp_path, {"unified/cgroup.controllers": "cpuset"})
    assert cgroup_paths(root) == {}


def test_the_usual_place_comes_first(tmp_path: Path) -> None:
    for name in ("first", "usual"):
        write(tmp_path, {f"{name}/cgroup.controllers": "memory", f"{name}/{name}-group/x": ""})
    mounts = [
        f"31 1 0:31 / {tmp_path}/{name} rw - cgroup2 cgroup2 rw" for name in ("first", "usual")
    ]
    write(tmp_path, {"proc/self/mountinfo": "\n".join(mounts)})
    root = replace(sysroot(tmp_path), cgroup=tmp_path / "usual")
    assert sorted(cgroup_paths(root).values()) == ["/", "/usual-group"]


@pytest.mark.parametrize(
    ("path", "zone"),
    [
        ("/", None),
        ("/system.slice", None),
        ("/zone.slice", None),
        ("/zone.slice/zone-db.slice", "db"),
        ("/zone.slice/zone-db.slice/zone-db-p7.scope", "db"),
        (r"/zone.slice/zone-a\x2db.slice", "a-b"),
        ("/zone.slice/other.service", None),
        ("/zone", None),
        ("/zone/db", "db"),
        ("/zone/db/below", "db"),
        ("/zone/No Zone", None),
        ("/a/zone/db", None),
    ],
)
def test_the_zone_of_a_group(path: str, zone: str | None) -> None:
    assert zone_of_path(path) == zone


def test_another_parent() -> None:
    assert zone_of_path("/test/db", "test") == "db"
    assert zone_of_path("/test.slice/test-db.slice", "test") == "db"
    assert zone_of_path("/zone/db", "test") is None
