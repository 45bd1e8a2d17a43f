# SPDX-License-Identifier: Apache-2.0
"""Memory for a device where low memory is full: the next rung, or words for the next boot."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.lab.edu import BITS_31, plug, plugged, pull
from tests.lab.harness.guest import Guest
from tests.lab.harness.install import share_sources
from tests.lab.harness.lab import Lab
from tests.lab.programs import Hog, pids, start_hog
from tests.lab.reservations import in_force, none_left, reserved, stand_for
from tests.lab.test_blocks import states
from tests.lab.test_dma import devices, rungs_of
from tests.lab.test_dma_real import low_zone
from tests.lab.test_zones import ask

pytestmark = [pytest.mark.topology("low_memory"), pytest.mark.on("trixie")]

DEVICE = "0000:01:00.0"
"""Where a device is that is plugged into rp1."""
MIB = 1 << 20
SIZE = 128 * MIB
_FIRST_TO_BE_KILLED = ("choom", "-n", "1000", "--")


def ladder(*rungs: str) -> str:
    """Return a policy for the device, of 31 bits, that allows these rungs."""
    return f"""dma:
  quirks:
    - {{match: {{path: "*/{DEVICE}"}}, limit: 31, source: this test}}
  reservations:
    ladder:
      match: {{path: "*/{DEVICE}"}}
      size: {SIZE}
      rungs: [{", ".join(rungs)}]
"""


@contextlib.contextmanager
def low_memory_full(guest: Guest) -> Iterator[Hog]:
    """Have a program hold nearly all that is low, though it could lie elsewhere; gives it."""
    # What is only cached could go.
    guest.shell("sync; echo 3 > /proc/sys/vm/drop_caches")
    _, normal = low_zone(guest)
    high = start_hog(guest, normal // MIB - 64, _FIRST_TO_BE_KILLED, name="high")
    mine = sum(low_zone(guest)) // MIB - 110
    low = start_hog(guest, mine, _FIRST_TO_BE_KILLED, name="low")
    high.process.kill()
    yield low
    low.process.kill()


def test_where_low_memory_is_full_the_next_rung_is_taken(zoned_guest: Guest) -> None:
    guest, before = zoned_guest, states(zoned_guest)
    with low_memory_full(guest) as eater, plugged(guest, BITS_31):
        with in_force(guest, ladder("lowmem", "hugetlb", "pending-reboot")):
            assert stand_for(guest, DEVICE)[DEVICE]["rung"] == "hugetlb"
            rungs = rungs_of(ask(guest, "dma", "explain", DEVICE))
            guest.check(["zonectl", "dma", "check"])
        assert eater.pid in pids(guest)
    assert rungs["lowmem"]["holds"] is False
    assert re.fullmatch(r"\S+ of DMA32 are free", rungs["lowmem"]["why"])
    assert rungs["hugetlb"]["holds"] is True
    forbidden = {name for name, each in rungs.items() if "does not allow" in each["why"]}
    assert forbidden == {"iommu", "devdax", "cma", "blocks"}
    assert states(guest) == before


def test_what_waits_for_a_boot_is_had_as_soon_as_there_is_room(zoned_guest: Guest) -> None:
    guest = zoned_guest
    with plugged(guest, BITS_31), in_force(guest, ladder("lowmem", "pending-reboot")):
        stand_for(guest, DEVICE)
        pull(guest, port="rp1")
        none_left(guest)
        with low_memory_full(guest):
            plug(guest, BITS_31, port="rp1")
            told = devices(guest)[DEVICE]
            assert (told["state"], told["rung"]) == ("pending-reboot", "pending-reboot")
            done = guest.run(["zonectl", "dma", "check"])
            assert (done.returncode, reserved(guest)) == (1, {})
            assert f"command line: {told['kernel_words']}; and" in done.stdout
        # The daemon looks every minute, and whenever it is asked to.
        guest.check(["zonectl", "reload"])
        assert stand_for(guest, DEVICE)[DEVICE]["rung"] == "lowmem"
        guest.check(["zonectl", "dma", "check"])


@pytest.mark.spoils
def test_the_words_that_are_told_make_it_hold_after_the_next_boot(
    zoned_guest: Guest, lab: Lab, release: str
) -> None:
    wanted = ladder("devdax", "pending-reboot")
    with plugged(zoned_guest, BITS_31), in_force(zoned_guest, wanted):
        words = devices(zoned_guest)[DEVICE]["kernel_words"]
        told = zoned_guest.check(["zonectl", "dma", "list"])
    make = re.search(r"and once after that boot: (.*)$", told, re.M)
    assert make
    said = f"if nobody has made use of it: {make[1]}"
    size, base = (int(each) * MIB for each in re.findall(r"(\d+)M", words))
    topology = zoned_guest.topology
    zoned_guest.close()
    with lab.boot(release, replace(topology, append=(*topology.append, words))) as guest:
        share_sources(guest, release)
        memory = guest.read("/proc/iomem")
        found = re.search(
            rf"^{base:08x}-{base + size - 1:08x} : Pers.*\n  \S+ : (\S+)$", memory, re.M
        )
        assert found
        # The number of the other one, which was there before, is 0.
        assert found[1] == "namespace1.0"
        with plugged(guest, BITS_31), in_force(guest, wanted):
            assert said in guest.check(["zonectl", "dma", "list"])
        guest.shell(make[1])
        with plugged(guest, BITS_31), in_force(guest, wanted):
            held = stand_for(guest, DEVICE)[DEVICE]
            guest.check(["zonectl", "dma", "check"])
    assert (held["rung"], held["region"]) == ("devdax", "dax1.0")
    (span,) = held["spans"]
    assert base <= span[0] < sum(span) <= base + size
