# SPDX-License-Identifier: Apache-2.0
"""Choosing a driver by looking."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.kernel.cgroup.fakes import fake_root
from zoned.errors import Unsupported
from zoned.kernel.cgroup.detect import choose_driver, choose_fence, choose_units
from zoned.kernel.cgroup.fence_systemd import FenceSystemd
from zoned.kernel.cgroup.fence_v1 import FenceV1
from zoned.kernel.cgroup.fence_v2 import FenceV2
from zoned.kernel.cgroup.mounts import cgroup_mounts

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.kernel.root import Root


def mounted(root: Root, *lines: str) -> Root:
    text = "".join(f"1 0 0:1 / {line}\n" for line in lines)
    (root.proc / "self/mountinfo").write_text(text)
    return root


def booted_with_systemd(root: Root) -> Root:
    (root.run / "systemd/system").mkdir(parents=True)
    return root


def test_plain_v2(tmp_path: Path) -> None:
    root = fake_root(tmp_path)

    driver = choose_driver(root, "zone")

    assert (driver.kind, driver.parent, driver.protects) == ("v2", "/zone", True)
    assert type(choose_fence(root)) is FenceV2
    assert choose_units(root) is None


def test_systemd(tmp_path: Path) -> None:
    root = booted_with_systemd(fake_root(tmp_path))

    driver = choose_driver(root, "zone")

    assert (driver.kind, driver.parent, driver.protects) == ("systemd", "/zone.slice", True)
    assert type(choose_fence(root)) is FenceSystemd
    assert choose_units(root) is not None


def test_a_hybrid_tree_is_v1_even_under_systemd(tmp_path: Path) -> None:
    root = booted_with_systemd(fake_root(tmp_path))
    mounted(
        root,
        f"{root.cgroup} rw - tmpfs tmpfs rw",
        f"{root.cgroup}/unified rw - cgroup2 cgroup2 rw",
        f"{root.cgroup}/cpuset rw shared:1 - cgroup cgroup rw,cpuset",
        f"{root.cgroup}/memory rw - cgroup cgroup rw,memory",
    )

    driver = choose_driver(root)

    assert (driver.kind, driver.parent, driver.protects) == ("v1", "/zone", False)
    assert type(choose_fence(root)) is FenceV1
    assert choose_units(root) is None


def test_a_second_mount_of_v2_serves_where_it_has_the_controllers(tmp_path: Path) -> None:
    root = fake_root(tmp_path)
    unified = root.cgroup / "unified"
    mounted(root, f"{root.cgroup} rw - tmpfs tmpfs rw", f"{unified} rw - cgroup2 cgroup2 rw")
    unified.mkdir()
    (unified / "cgroup.controllers").write_text("cpuset memory hugetlb\n")

    assert choose_driver(root).kind == "v2"
    assert [path.parent for path in choose_fence(root).watched()] == [root.cgroup]

    (unified / "cgroup.controllers").write_text("hugetlb\n")
    with pytest.raises(Unsupported, match="neither"):
        choose_driver(root)


def test_controllers_on_both_sides_are_no_use(tmp_path: Path) -> None:
    root = fake_root(tmp_path)
    mounted(
        root,
        f"{root.cgroup}/unified rw - cgroup2 cgroup2 rw",
        f"{root.cgroup}/memory rw - cgroup cgroup rw,memory",
    )

    with pytest.raises(Unsupported, match="cgroup v1 has memory"):
        choose_driver(root)
    with pytest.raises(Unsupported, match="cgroup v1 has memory"):
        choose_fence(root)


def test_mounts_together_and_names_with_blanks(tmp_path: Path) -> None:
    root = mounted(
        fake_root(tmp_path),
        "/a\\040b rw - cgroup cgroup rw,cpuset,memory",
        "/two rw - cgroup2 none rw",
        "broken line",
    )

    found = cgroup_mounts(root)

    assert str(found.v1["cpuset"]) == str(found.v1["memory"]) == "/a b"
    assert [str(path) for path in found.unified] == ["/two"]
