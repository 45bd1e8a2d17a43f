# SPDX-License-Identifier: Apache-2.0
"""The newest kernel there is for Debian: the whole path once, and what only this one has."""

import re
from collections.abc import Iterator

import pytest

from tests.lab.following import follow
from tests.lab.harness.guest import Guest
from tests.lab.loads import MIB, check_intact, start_load
from tests.lab.reservations import none_left
from tests.lab.test_blocks import create, held, states
from tests.lab.test_dma import BRIDGE, devices
from tests.lab.test_zones import ask, refused

pytestmark = [pytest.mark.on("trixie"), pytest.mark.topology("newest_kernel")]
_AREA = 128 * MIB
_PAGE = 4096
_OTHER = "0000:00:1f.0"
"""the bridge to ISA"""


@pytest.fixture
def machine(zoned_guest: Guest) -> Iterator[Guest]:
    """A guest in which nothing is reserved, before and after."""
    yield zoned_guest
    for name in ("manual@" + BRIDGE, "manual@" + _OTHER):
        zoned_guest.run(["zonectl", "dma", "release", name])
    none_left(zoned_guest)


def test_a_zone_of_blocks_moves_with_its_program(zoned_guest: Guest) -> None:
    guest, before = zoned_guest, states(zoned_guest)
    create(guest, "db", "256MiB", node=1)
    assert len(held(guest, "zone:db")) == 2
    load = start_load(guest, "small", 150, node=1, before=("zonectl", "run", "db", "--"))
    assert load.by_node() == {1: 150}
    guest.check(["zonectl", "create", "near", "--size", "256MiB", "--nodes", "0"])
    follow(guest, "attach", "near", "--pid", load.pid)
    assert load.by_node() == {0: 150}
    follow(guest, "move", "near", "--nodes", "1")
    assert load.by_node() == {1: 150}
    check_intact(load)
    guest.check(["zonectl", "destroy", "near"])
    guest.check(["zonectl", "destroy", "db"])
    assert states(guest) == before


def areas_of_nodes(guest: Guest) -> dict[int, int]:
    """Return bytes in areas for contiguous memory by node, as the kernel counts them."""
    found: dict[int, int] = {}
    for node, pages in re.findall(
        r"^Node (\d+), zone.*\n(?:(?!Node).*\n)*? +cma +(\d+)$", guest.read("/proc/zoneinfo"), re.M
    ):
        found[int(node)] = found.get(int(node), 0) + int(pages) * _PAGE
    return found


def test_areas_for_contiguous_memory_are_shared_out(machine: Guest) -> None:
    areas = areas_of_nodes(machine)
    # Beside the area that is asked for each node may have one, and only node 0 lies below 1 GiB.
    assert areas[0] >= _AREA
    ask_for = ["--limit", "30", "--rung", "cma"]
    mine = areas[0] - 48 * MIB
    follow(machine, "dma", "reserve", "--device", BRIDGE, "--size", str(mine), *ask_for)
    told = devices(machine)[BRIDGE]
    assert (told["state"], told["rung"], told["reserved"]) == ("reserved", "cma", mine)
    machine.check(["zonectl", "dma", "check"])
    more = ["dma", "reserve", "--device", _OTHER, "--size", "64MiB", "--rung", "cma", "--limit"]
    assert "48MiB are known to lie below the limit" in refused(machine, *more, "30")
    # One that reaches all of them does not need what the other has.
    follow(machine, *more, "31")
    assert devices(machine)[_OTHER]["reserved"] == 64 * MIB


def test_an_area_that_the_device_does_not_reach_is_no_help(machine: Guest) -> None:
    words = ["--device", BRIDGE, "--size", "16MiB", "--limit", "29", "--rung", "cma"]
    total = sum(areas_of_nodes(machine).values()) // MIB
    assert f"of {total}MiB of CMA, 0B are known" in refused(machine, "dma", "reserve", *words)
    assert all(each["reserved"] == 0 for each in ask(machine, "dma", "list"))
