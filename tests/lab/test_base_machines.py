# SPDX-License-Identifier: Apache-2.0
"""Base zones of other machines: persistent memory and memory behind a CXL window as one, and nodes
that the kernel has split.
"""

import json
import re

import pytest

from tests.lab.following import CRASH, PARTIAL, follow, wait_for
from tests.lab.harness.guest import Guest
from tests.lab.harness.wait import wait_until
from tests.lab.programs import anonymous_by_node, start_hog
from tests.lab.reservations import have_region
from tests.lab.test_base_zones import (
    AUTO,
    BLOCK,
    FIRST_NORMAL,
    NODES,
    adopt_memory,
    base_zone,
    kinds,
    size_by_numactl,
    wait_online,
)
from tests.lab.test_fence import ids, outsiders
from tests.lab.test_zones import ask, refused

pytestmark = [pytest.mark.on("trixie"), pytest.mark.last]


@pytest.fixture
def region(zoned_guest: Guest) -> Guest:
    """A guest with the device-dax region dax0.0 on node 2."""
    have_region(zoned_guest)
    wait_until(lambda: mode_by_daxctl(zoned_guest) == "devdax", "dax0.0")
    return zoned_guest


def mode_by_daxctl(guest: Guest) -> str:
    """Return what daxctl says that dax0.0 is used as."""
    told = json.loads(guest.check(["daxctl", "list"]) or "[]")
    return next((each["mode"] for each in told if each["chardev"] == "dax0.0"), "")


@pytest.mark.topology("pmem")
def test_dax_region_to_base_zone_and_back(region: Guest) -> None:
    guest = region
    before = guest.read(AUTO)
    told = json.loads(guest.check(["daxctl", "list"]))[0]
    (found,) = ask(guest, "base", "list")["dax"]
    assert (found["name"], found["size"]) == ("dax0.0", told["size"])
    assert (found["node"], found["mode"]) == (told["target_node"], "devdax")
    assert size_by_numactl(guest, 2) in {None, 0}

    follow(guest, "base", "add", "dax0.0")
    assert mode_by_daxctl(guest) == "system-ram"
    assert guest.read(AUTO) == before
    assert kinds(guest, 2) == FIRST_NORMAL
    assert size_by_numactl(guest, 2) == 4 * BLOCK
    assert base_zone(guest, 2)["source"] == "kmem"

    follow(guest, "base", "remove", "dax0.0")
    assert mode_by_daxctl(guest) == "devdax"
    assert kinds(guest, 2) == []
    assert ask(guest, "base", "list")["dax"][0]["mode"] == "devdax"


@pytest.mark.topology("pmem")
def test_dax_region_with_a_program(region: Guest) -> None:
    """It is added over a death of the daemon."""
    guest = region
    number = int(guest.check(["zonectl", "base", "add", "dax0.0", "--no-wait"]))
    guest.shell(CRASH)
    assert wait_for(guest, number)["state"] == "done"
    assert kinds(guest, 2) == FIRST_NORMAL
    guest.check(["zonectl", "create", "pm", "--size", "200MiB", "--nodes", "2", "--cpus", "none"])
    hog = start_hog(guest, 100, ["zonectl", "run", "pm", "--"])
    assert set(anonymous_by_node(guest, hog.pid)) == {2}
    for name in ("2", "dax0.0"):
        assert "zone pm" in refused(guest, "base", "remove", name)
    guest.check(["zonectl", "destroy", "pm", "--kill"])

    done = guest.run(["zonectl", "base", "remove", "dax0.0"])
    print(f"\nremoving a region that was in use: {done.stderr or 'done'}")
    if done.returncode:
        # What the kernel put into its part meanwhile it does not always let go: all is as before.
        assert "[block-busy]" in done.stderr, done
        assert kinds(guest, 2) == FIRST_NORMAL
    else:
        assert mode_by_daxctl(guest) == "devdax"


@pytest.mark.topology("cxl")
def test_memory_behind_a_cxl_window_comes_and_goes(zoned_guest: Guest) -> None:
    guest = zoned_guest
    adopt_memory(guest)
    region = make_region(guest)
    wait_online(guest, 2, 4)
    assert kinds(guest, 2) == FIRST_NORMAL
    assert base_zone(guest, 2)["source"] == "cxl"
    follow(guest, "base", "remove", "2")
    guest.check(["cxl", "disable-region", region])
    guest.check(["cxl", "destroy-region", region])
    wait_until(lambda: not base_zone(guest, 2), "the end of node 2")

    # The region is another one, and its device bears the name of the one that was removed.
    make_region(guest)
    wait_until(lambda: mode_by_daxctl(guest) == "devdax", "dax0.0")
    follow(guest, "base", "add", "dax0.0")
    assert base_zone(guest, 2)["source"] == "cxl"
    guest.check(["zonectl", "create", "far", "--size", "200MiB", "--nodes", "2", "--cpus", "none"])
    hog = start_hog(guest, 100, ["zonectl", "run", "far", "--"])
    assert set(anonymous_by_node(guest, hog.pid)) == {2}
    assert "zone far" in refused(guest, "base", "remove", "2")
    guest.check(["zonectl", "destroy", "far", "--kill"])


def make_region(guest: Guest) -> str:
    """Make memory of the CXL device; return the region's name."""
    wait_until(lambda: json.loads(guest.check(["cxl", "list", "-M"]) or "[]"), "the CXL device")
    words = ["-m", "-d", "decoder0.0", "-w", "1", "-t", "ram", "mem0"]
    return str(json.loads(guest.check(["cxl", "create-region", *words]))["region"])


@pytest.mark.topology("fake_nodes")
def test_granules_of_a_split_node_are_recognised(zoned_guest: Guest) -> None:
    guest = zoned_guest
    found = ask(guest, "base", "list")["nodes"]
    assert [each["node"] for each in found] == list(range(8))
    rows = [guest.read(f"{NODES}/node{node}/distance").split() for node in range(8)]
    for node, row in enumerate(rows):
        near = [other for other, far in enumerate(row) if far == "10"]
        assert len(near) == 4
        assert found[node]["part_of"] == near
    text = guest.check(["zonectl", "base", "list"])
    assert len(re.findall(r"are parts of one physical node", text)) == 2


@pytest.mark.topology("fake_nodes")
def test_granules_make_one_zone_that_has_them_for_itself(zoned_guest: Guest) -> None:
    guest, granules = zoned_guest, {6, 7}
    words = ["--size", "370MiB", "--nodes", "6,7", "--backing", "node"]
    done = guest.run(["zonectl", "create", "gran", *words], timeout=300)
    # A page or two of somebody's may have stayed: the fence itself moves them.
    assert done.returncode in {0, PARTIAL}, done
    wait_until(lambda: confined(guest, granules) == {*outsiders(guest)}, "a fence around all")
    # More than one granule has.
    hog = start_hog(guest, 280, ["zonectl", "run", "gran", "--"])
    assert set(anonymous_by_node(guest, hog.pid)) == granules
    guest.check(["zonectl", "destroy", "gran", "--kill"])
    wait_until(lambda: not confined(guest, granules), "the fence is gone")


def confined(guest: Guest, nodes: set[int]) -> set[str]:
    """Return who may use none of these nodes; without the controller nobody is confined."""
    found = outsiders(guest).items()
    return {name for name, (_, where) in found if where and not nodes & ids(where)}
