# SPDX-License-Identifier: Apache-2.0
"""Zones of backing `node` that change while they stand, and who enters or leaves them."""

import re

import pytest

from tests.lab.following import follow, is_done, last_job, show
from tests.lab.harness.guest import Guest
from tests.lab.loads import MIB, check_intact, start_load
from tests.lab.programs import cgroup_of
from tests.lab.test_fence import NODE, ROOT, confined, create, ids, outsiders, wait_until_fenced
from tests.lab.test_zones import SLICE, ask

pytestmark = pytest.mark.on("trixie")

_ZONES_MIN = "/sys/fs/cgroup/zone.slice/memory.min"


@pytest.fixture
def fenced(zoned_guest: Guest) -> Guest:
    """A guest with a zone that has node 3 for itself."""
    create(zoned_guest)
    wait_until_fenced(zoned_guest)
    return zoned_guest


def allowed(guest: Guest, pid: int) -> set[int]:
    """Return the nodes of which a process may have memory, as the kernel says."""
    lines = guest.read(f"/proc/{pid}/status").splitlines()
    return ids(next(line.split()[1] for line in lines if line.startswith("Mems_allowed_list")))


def test_limits_and_protection_follow_the_size(fenced: Guest) -> None:
    kept_off = confined(fenced)
    assert kept_off
    for mib in (600, 300):
        fenced.check(["zonectl", "resize", "db", f"{mib}MiB"])
        assert fenced.read(f"{SLICE}/memory.max").strip() == str(mib * MIB)
        assert fenced.read(f"{SLICE}/memory.min").strip() == str(mib * MIB)
        assert int(fenced.read(_ZONES_MIN)) >= mib * MIB
        assert fenced.read(f"{SLICE}/cpuset.mems.effective").strip() == str(NODE)
        zone = ask(fenced, "show", "db")
        assert (zone["state"], zone["size"], zone["nodes"]) == ("active", mib * MIB, [NODE])
        assert confined(fenced) == kept_off
        assert outsiders(fenced).keys() - kept_off.keys() == {
            name for name, each in outsiders(fenced).items() if not each[1]
        }


def test_who_enters_is_not_kept_off_and_who_leaves_is(fenced: Guest) -> None:
    kept_off = confined(fenced)
    load = start_load(fenced, "small", 64, "--write", node=1)
    home = cgroup_of(fenced, load.pid)
    assert NODE not in allowed(fenced, load.pid)

    assert is_done(follow(fenced, "attach", "db", "--pid", load.pid))
    assert load.by_node() == {NODE: 64}
    assert allowed(fenced, load.pid) == {NODE}
    assert confined(fenced) == kept_off

    assert is_done(follow(fenced, "detach", "db", "--pid", load.pid))
    assert NODE not in load.by_node()
    assert cgroup_of(fenced, load.pid) == home
    assert NODE not in allowed(fenced, load.pid)
    assert confined(fenced) == kept_off
    check_intact(load)


def test_who_cannot_be_kept_off_is_told(fenced: Guest) -> None:
    """As many threads as the root group really has, but for those that come and go."""
    notes = show(fenced, last_job(fenced))["notes"]
    (told,) = (note for note in notes if note.startswith("nobody can keep"))
    numbers = re.fullmatch(r"\D* (\d+) threads of the kernel and (\d+) processes, .* node 3", told)
    assert numbers
    threads, processes = map(int, numbers.groups())
    assert (threads >= 10, processes) == (True, 0)
    in_root = len(fenced.read(f"{ROOT}/cgroup.procs").split())
    assert abs(threads - in_root) <= in_root // 4
