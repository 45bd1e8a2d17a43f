# SPDX-License-Identifier: Apache-2.0
"""The fence where there is no systemd to ask: plain groups of version 2, and version 1."""

import pytest

from tests.lab.harness.guest import Guest
from tests.lab.programs import anonymous_by_node, start_hog
from tests.lab.test_fence import _NEAR, NODE, ROOT, ids

_KEEP = """
import pathlib, sys
from types import SimpleNamespace
from zoned.engine.fence.keep import keep_fence
from zoned.engine.ledger import Ledger
from zoned.kernel.cgroup.fence_v1 import FenceV1
from zoned.kernel.cgroup.fence_v2 import FenceV2
from zoned.kernel.root import Root
root = Root(cgroup=pathlib.Path("/sys/fs/cgroup/zoned-plain"))
machine = SimpleNamespace(
    root=root, own_memory=None, fence_changed=lambda: None,
    ledger=Ledger(pathlib.Path("/run/zoned-plain"), "boot"),
    fence=FenceV1(root) if sys.argv[1] == "v1" else FenceV2(root),
)
for alert in keep_fence(machine, frozenset(map(int, sys.argv[2:]))):
    print(alert.code, alert.subject, alert.message)
"""


def keep(guest: Guest, kind: str, *fenced: int) -> str:
    """Keep the fence of plain groups in the guest; return what is wrong with it."""
    return guest.python(_KEEP, kind, *fenced).strip()


@pytest.mark.on("trixie")
def test_plain_groups(zoned_guest: Guest) -> None:
    """Beside systemd, in a group that stands for the root: its children are the siblings."""
    guest, plain = zoned_guest, f"{ROOT}/zoned-plain"

    def mems(name: str, file: str = "cpuset.mems") -> str:
        return guest.read(f"{plain}/{name}/{file}").strip()

    enabled = guest.read(f"{ROOT}/cgroup.subtree_control")
    guest.shell(
        f"rm -rf /run/zoned-plain; echo +cpuset > {ROOT}/cgroup.subtree_control; mkdir {plain};"
        f"echo +cpuset > {plain}/cgroup.subtree_control; cd {plain}; mkdir busy idle own zone;"
        "echo 1-3 > own/cpuset.mems"
    )
    enter = ["sh", "-c", f'echo $$ > {plain}/busy/cgroup.procs; exec "$@"', "sh"]
    hog = start_hog(guest, 64, [*enter, *_NEAR])
    try:
        assert anonymous_by_node(guest, hog.pid)[NODE] >= 60
        assert keep(guest, "v2", NODE) == ""
        assert NODE not in anonymous_by_node(guest, hog.pid)
        assert NODE not in ids(mems("busy", "cpuset.mems.effective"))
        assert NODE not in ids(mems("idle"))
        assert mems("own") == "1-2"
        assert mems("zone") == ""

        guest.shell(f"mkdir {plain}/new; echo 0-3 > {plain}/idle/cpuset.mems")
        assert keep(guest, "v2", NODE) == ""
        assert ids(mems("new")) == ids(mems("idle")) == ids(mems("busy"))
        guest.shell(f"rmdir {plain}/new; echo 3 > {plain}/own/cpuset.mems")
        assert keep(guest, "v2", NODE) == ""
        assert mems("own") == "1-2"

        assert keep(guest, "v2") == ""
        # Linux 6.12 does not let a group with processes say nothing, and 7.3 does.
        every = guest.read("/sys/devices/system/node/possible").strip()
        assert mems("busy") in {every, ""}
        assert {name: mems(name) for name in ("idle", "own", "zone")} == {
            "idle": "",
            "own": "1-3",
            "zone": "",
        }
    finally:
        hog.process.kill()
        guest.shell(f"rmdir {plain}/*/ {plain}; rm -r /run/zoned-plain")
        if "cpuset" not in enabled:
            guest.run(["sh", "-c", f"echo -cpuset > {ROOT}/cgroup.subtree_control"])


@pytest.mark.on("bookworm")
@pytest.mark.last
def test_groups_of_version_1(zoned_guest: Guest) -> None:
    """The cpuset hierarchy of version 1, which this kernel still has, beside version 2.

    At last: version 2 may be without cpusets for a while afterwards.
    """
    guest, mount = zoned_guest, "/run/cpuset-v1"
    guest.shell(
        f"rm -rf /run/zoned-plain; mkdir -p {mount}; mount -t cgroup -o cpuset cpuset {mount};"
        f"cd {mount}; mkdir busy busy/inner zone; for each in busy busy/inner zone; do"
        "  echo 0-3 > $each/cpuset.cpus; echo 0-3 > $each/cpuset.mems; done"
    )
    enter = ["sh", "-c", f'echo $$ > {mount}/busy/inner/cgroup.procs; exec "$@"', "sh"]
    hog = start_hog(guest, 64, [*enter, *_NEAR])

    def mems() -> list[str]:
        names = ("busy", "busy/inner", "zone")
        return [guest.read(f"{mount}/{name}/cpuset.mems").strip() for name in names]

    try:
        assert anonymous_by_node(guest, hog.pid)[NODE] >= 60
        told = keep(guest, "v1", NODE)
        assert told.startswith("fence-loose root group")
        assert len(told.splitlines()) == 1
        assert mems() == ["0-2", "0-2", "0-3"]
        assert NODE not in anonymous_by_node(guest, hog.pid)
        assert guest.read(f"{mount}/busy/inner/cpuset.memory_migrate").strip() == "0"

        assert keep(guest, "v1") == ""
        assert mems() == ["0-3", "0-3", "0-3"]
    finally:
        hog.process.kill()
        guest.shell(
            f"cd {mount}; rmdir busy/inner busy zone; cd /; umount {mount}; rm -r /run/zoned-plain"
        )
