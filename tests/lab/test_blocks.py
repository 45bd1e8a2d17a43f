# SPDX-License-Identifier: Apache-2.0
"""Memory blocks that change hands: parked, taken for a zone, and given back."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.block_trials import able
from tests.lab.following import CRASH, begin, follow, show
from tests.lab.harness.guest import Guest
from tests.lab.harness.wait import wait_until
from tests.lab.loads import MIB, check_intact, free_mib, start_load
from tests.lab.test_zones import ask, refused

_BLOCK = 128 * MIB
_BLOCKS = "/sys/devices/system/memory"
_CONFINED = ("systemd-run", "--scope", "--quiet")


def states(guest: Guest) -> dict[int, tuple[str, str]]:
    """Return block -> state and zones, from sysfs."""
    text = guest.shell(
        "cd /sys/devices/system/memory; for each in memory*; do"
        ' echo "${each#memory} $(cat $each/state) $(cat $each/valid_zones)"; done'
    )
    found = {}
    for line in text.splitlines():
        number, state, zones = line.split(" ", 2)
        found[int(number)] = (state, zones.split()[0])
    return found


def mem_total(guest: Guest) -> int:
    """Return the machine's memory in bytes, from meminfo."""
    return int(guest.read("/proc/meminfo").split()[1]) << 10


def offline_bytes(guest: Guest) -> int:
    """Return how much is offline, from lsmem(1)."""
    found = json.loads(guest.check(["lsmem", "--json", "--bytes", "--all"]))["memory"]
    return sum(int(each["size"]) for each in found if each["state"] == "offline")


def fill_with_cache(guest: Guest, node: int, mib: int) -> None:
    """Have the page cache of a file lie on a node.

    It is read there, and not written: for each page written to it ext4 keeps a record in memory
    that cannot move, which after some hundred MiB is all over the node.
    """
    size = ("bs=1M", f"count={mib}")
    guest.check(["dd", "if=/dev/zero", "of=/var/tmp/lab-cache", *size, "oflag=direct"])
    confined = ("numactl", f"--membind={node}", f"--cpunodebind={node}")
    guest.check([*confined, "dd", "if=/var/tmp/lab-cache", "of=/dev/null", *size])


def roomiest(guest: Guest) -> int:
    """Return the node of which most blocks can go, but for node 0."""
    found = able(guest)
    return max(range(1, 4), key=lambda node: found[node])


def held(guest: Guest, owner: str) -> list[int]:
    """Return the blocks that zonectl shows of an owner."""
    return [each["id"] for each in ask(guest, "blocks", "list") if each["owner"] == owner]


@pytest.mark.on("trixie")
@pytest.mark.roomy(5)
def test_zone_of_blocks_on_a_node_full_of_others(settled_guest: Guest) -> None:
    guest = settled_guest
    before = states(guest)
    node = roomiest(guest)
    confined = [*_CONFINED, f"--property=AllowedMemoryNodes={node}", "--"]
    load = start_load(guest, "small", 256, "--write", node=node, before=confined)
    fill_with_cache(guest, node, 400)

    job = create(guest, "db", "500MiB", node)
    assert free_mib(guest, node) >= 512
    assert any("no whole number of memory blocks" in note for note in job["notes"]), job["notes"]
    detail = ask(guest, "show", "db")
    assert (detail["size"], detail["backing"], detail["nodes"]) == (512 * MIB, "blocks", [node])
    mine = held(guest, "zone:db")
    assert mine == detail["blocks"]
    assert len(mine) == 4
    now = states(guest)
    assert {now[each] for each in mine} == {("online", "Movable")}
    assert load.by_node() == {node: 256}

    inside = start_load(
        guest, "small", 400, node=node, name="inside", before=("zonectl", "run", "db", "--")
    )
    assert inside.by_node() == {node: 400}
    check_intact(inside)
    assert "has members" not in guest.check(["zonectl", "destroy", "db"])
    assert states(guest) == before
    assert load.by_node() == {node: 256}
    check_intact(load)
    guest.check(["rm", "/var/tmp/lab-cache"])


def create(guest: Guest, name: str, size: str, node: int = 2) -> dict[str, Any]:
    """Create a zone of blocks, and return the job that made it."""
    number = begin(guest, "create", name, "--size", size, "--nodes", node, "--backing", "blocks")
    return follow(guest, "job", number, "wait")


@pytest.mark.roomy(4)
def test_parked_blocks_leave_the_machine_and_return(settled_guest: Guest) -> None:
    guest = settled_guest
    before, total = states(guest), mem_total(guest)
    follow(guest, "blocks", "park", "--node", 3, "--size", "384MiB")
    parked = held(guest, "parked")
    assert len(parked) == 3
    assert offline_bytes(guest) == 3 * _BLOCK
    assert total - mem_total(guest) == 3 * _BLOCK

    # A zone takes the parked ones first, and gives them back to the pool.
    create(guest, "db", "384MiB", node=3)
    assert held(guest, "zone:db") == parked
    assert offline_bytes(guest) == 0
    told = refused(guest, "blocks", "offline", str(parked[0]))
    assert f"[wrong-block] memory block {parked[0]} is held already: zone:db" in told
    guest.check(["zonectl", "destroy", "db"])
    assert held(guest, "parked") == parked
    assert offline_bytes(guest) == 3 * _BLOCK

    follow(guest, "blocks", "unpark", "--node", 3, "--size", "128MiB")
    assert len(held(guest, "parked")) == 2
    # Of those that are left one is named, to go back and to be taken again.
    *_, number = held(guest, "parked")
    follow(guest, "blocks", "online", number)
    assert states(guest)[number] == before[number]
    follow(guest, "blocks", "offline", number)
    assert len(held(guest, "parked")) == 2
    assert states(guest)[number][0] == "offline"
    follow(guest, "blocks", "unpark", "--node", 3)
    assert states(guest) == before
    assert mem_total(guest) == total


@pytest.mark.on("trixie")
@pytest.mark.roomy(4)
def test_zone_of_blocks_grows_shrinks_and_moves(settled_guest: Guest) -> None:
    guest = settled_guest
    before = states(guest)
    create(guest, "db", "128MiB")
    guest.check(["zonectl", "resize", "db", "384MiB"])
    grown = held(guest, "zone:db")
    assert len(grown) == 3
    load = start_load(guest, "small", 100, node=2, before=("zonectl", "run", "db", "--"))
    guest.check(["zonectl", "resize", "db", "200MiB"])
    assert ask(guest, "show", "db")["size"] == 256 * MIB
    assert len(held(guest, "zone:db")) == 2

    follow(guest, "move", "db", "--nodes", "3")
    assert load.by_node() == {3: 100}
    here = held(guest, "zone:db")
    assert len(here) == 2
    assert not set(here) & set(grown)
    check_intact(load)
    guest.check(["zonectl", "destroy", "db"])
    assert states(guest) == before


@pytest.mark.on("trixie")
def test_what_a_node_cannot_give_is_refused(settled_guest: Guest) -> None:
    guest = settled_guest
    before = states(guest)
    told = refused(guest, "blocks", "park", "--node", "0", "--size", "128MiB")
    assert "too-few-blocks" in told
    assert "low memory" in told
    told = refused(guest, "blocks", "park", "--node", "2", "--size", "1GiB")
    assert "no-capacity" in told
    told = refused(guest, "create", "db", "--size", "896MiB", "--nodes", "2", "--backing", "blocks")
    assert "3:1" in told
    assert "bad-size" in refused(guest, "blocks", "park", "--node", "2", "--size", "0")
    assert "unknown-node" in refused(guest, "blocks", "park", "--node", "7", "--size", "1GiB")
    assert "unknown-node" in refused(guest, "blocks", "unpark", "--node", "2")
    assert "wrong-block" in refused(guest, "blocks", "online", "8")
    assert "wrong-block" in refused(guest, "blocks", "offline", "8-99")
    assert states(guest) == before
    assert ask(guest, "blocks", "list") == [
        each | {"owner": "base"} for each in ask(guest, "blocks", "list")
    ]


@pytest.fixture
def without_blocks(zoned_guest: Guest) -> Iterator[Guest]:
    """A guest that shows no memory blocks, as where the kernel has no memory hotplug."""
    zoned_guest.shell(f"mount -t tmpfs none {_BLOCKS}; systemctl restart zoned")
    yield zoned_guest
    zoned_guest.shell(f"umount {_BLOCKS}; systemctl restart zoned")


@pytest.mark.on("trixie")
def test_without_memory_hotplug_other_backings_work(without_blocks: Guest) -> None:
    guest, words = without_blocks, ("--size", "128MiB", "--nodes", "2", "--backing")
    told = refused(guest, "create", "db", *words, "blocks")
    assert "(no memory hotplug)\n  hint: backing reserve works without" in told
    assert "hotplug" in refused(guest, "blocks", "park", "--node", "2", "--size", "128MiB")
    assert ask(guest, "blocks", "list") == []
    guest.check(["zonectl", "create", "db", *words, "reserve"])
    assert ask(guest, "show", "db")["state"] == "active"
    guest.check(["zonectl", "destroy", "db"])


@pytest.mark.on("trixie")
@pytest.mark.roomy(4)
@pytest.mark.parametrize(
    "phase", ["taking block", "putting back", "bringing blocks back", "making the zone"]
)
def test_a_killed_daemon_leaves_no_block_behind(settled_guest: Guest, phase: str) -> None:
    guest = settled_guest
    before = states(guest)
    number = begin(guest, "create", "db", "--size", "384MiB", "--nodes", 2, "--backing", "blocks")

    def is_there() -> bool:
        job = show(guest, number)
        return bool(job["phase"].startswith(phase) or job["state"] != "running")

    wait_until(is_there, f"the job is at {phase!r}")
    guest.shell(CRASH)
    follow(guest, "job", number, "wait")
    assert len(held(guest, "zone:db")) == 3
    assert offline_bytes(guest) == 0
    guest.check(["zonectl", "destroy", "db"])
    assert states(guest) == before


def begin_and_pause(guest: Guest) -> int:
    """Start making a zone, and stop on the way; on a quick machine that takes more than one try."""
    node = roomiest(guest)
    while True:
        words = ("create", "db", "--size", "512MiB", "--nodes", node, "--backing", "blocks")
        job = begin(guest, *words)
        if not guest.run(["zonectl", "job", str(job), "pause"]).returncode:
            return job
        guest.check(["zonectl", "destroy", "db"])


@pytest.mark.on("trixie")
@pytest.mark.roomy(4)
def test_a_cancelled_creation_gives_all_back(settled_guest: Guest) -> None:
    guest = settled_guest
    before = states(guest)
    job = begin_and_pause(guest)
    guest.check(["zonectl", "job", str(job), "cancel"])
    wait_until(lambda: show(guest, job)["state"] != "running", "the job ends")
    assert show(guest, job)["state"] == "cancelled"
    assert states(guest) == before
    assert not held(guest, "zone:db")
    assert "no-such-zone" in refused(guest, "show", "db")


@pytest.mark.on("trixie")
def test_policy_parks_blocks_at_start(settled_guest: Guest) -> None:
    guest = settled_guest
    before = states(guest)
    guest.write("/etc/zoned/zones.d/60-park.yaml", "system: {parked: {3: 256MiB}}\n")
    guest.check(["systemctl", "restart", "zoned"])
    wait_until(lambda: len(held(guest, "parked")) == 2, "the policy's blocks are parked")
    assert offline_bytes(guest) == 2 * _BLOCK
    guest.check(["rm", "/etc/zoned/zones.d/60-park.yaml"])
    guest.check(["zonectl", "reload"])
    follow(guest, "blocks", "unpark", "--node", 3)
    assert states(guest) == before
