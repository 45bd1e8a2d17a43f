# SPDX-License-Identifier: Apache-2.0
"""Which cgroup driver fits this machine: found by looking, never by version."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zoned.errors import MachineError, Unsupported
from zoned.kernel.cgroup.fence_systemd import FenceSystemd
from zoned.kernel.cgroup.fence_v1 import FenceV1
from zoned.kernel.cgroup.fence_v2 import FenceV2
from zoned.kernel.cgroup.mounts import CgroupMounts, cgroup_mounts
from zoned.kernel.cgroup.systemd import CgroupSystemd
from zoned.kernel.cgroup.unified import NEEDED, controllers_of
from zoned.kernel.cgroup.units import SystemdUnits
from zoned.kernel.cgroup.v1 import CgroupV1
from zoned.kernel.cgroup.v2 import CgroupV2

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.kernel.cgroup.fence import FenceDriver
    from zoned.kernel.cgroup.protocol import CgroupDriver, UnitDriver
    from zoned.kernel.root import Root


def _systemd_runs(root: Root) -> bool:
    # sd_booted(3)
    return (root.run / "systemd/system").is_dir()


def _serves(mount: Path) -> bool:
    try:
        return controllers_of(mount).issuperset(NEEDED)
    except MachineError:
        return False


def choose_driver(root: Root, parent: str = "zone") -> CgroupDriver:
    """Return the driver for this machine. Raises Unsupported."""
    mounts = cgroup_mounts(root)
    if root.cgroup in mounts.unified:
        if _systemd_runs(root):
            return CgroupSystemd(root, parent)
        return CgroupV2(root, parent)
    # A hybrid tree: systemd, where it runs, has no AllowedMemoryNodes= there, because it never
    # managed v1's cpuset. Nobody else writes to that hierarchy, so directories of our own in it
    # are safe, and those in the memory hierarchy too: systemd leaves groups alone that it did
    # not make.
    if mounts.v1.keys() >= set(NEEDED):
        return CgroupV1(root, parent)
    for mount in mounts.unified:
        if _serves(mount):
            return CgroupV2(replace(root, cgroup=mount), parent)
    raise Unsupported(_why(mounts), hint="mount cgroup2 on /sys/fs/cgroup, or both v1 hierarchies")


def _why(mounts: CgroupMounts) -> str:
    v1 = sorted(mounts.v1.keys() & set(NEEDED))
    if v1 and mounts.unified:
        return f"cgroup v1 has {' and '.join(v1)}, cgroup v2 the rest: zones need both in one"
    return "neither cgroup v2 nor v1 is mounted with the controllers cpuset and memory"


def choose_units(root: Root, parent: str = "zone") -> UnitDriver | None:
    """Return who can confine running units: systemd on the unified hierarchy, else nobody."""
    if _systemd_runs(root) and root.cgroup in cgroup_mounts(root).unified:
        return SystemdUnits(root, parent)
    return None


def choose_fence(root: Root, parent: str = "zone") -> FenceDriver:
    """Return who keeps others off nodes: beside the groups that `choose_driver` has for zones.

    Raises Unsupported.
    """
    mounts = cgroup_mounts(root)
    if root.cgroup in mounts.unified:
        return FenceSystemd(root, parent) if _systemd_runs(root) else FenceV2(root, parent)
    if mounts.v1.keys() >= set(NEEDED):
        return FenceV1(root, parent)
    for mount in mounts.unified:
        if _serves(mount):
            return FenceV2(replace(root, cgroup=mount), parent)
    raise Unsupported(_why(mounts))
