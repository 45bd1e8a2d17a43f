# SPDX-License-Identifier: Apache-2.0
"""Base zones that come and go, next to what lsmem, numactl and daxctl say of them."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.following import PARTIAL, follow, wait_for
from tests.lab.harness.guest import Guest
from tests.lab.harness.wait import wait_until
from tests.lab.killing import Kill
from tests.lab.programs import anonymous_by_node, pids, start_hog
from tests.lab.reservations import ledger
from tests.lab.test_zones import ask, refused

MIB = 1 << 20
NODES = "/sys/devices/system/node"
AUTO = "/sys/devices/system/memory/auto_online_blocks"
POLICY = "/etc/zoned/zones.d/50-hotplug.yaml"
BLOCK = 128
FIRST_NORMAL = ["Normal", "Movable", "Movable", "Movable"]
_ALL_MOVABLE = ["Movable"] * 4


pytestmark = [pytest.mark.on("trixie"), pytest.mark.last]


@pytest.fixture
def plain(zoned_guest: Guest) -> Iterator[Guest]:
    """The guest as its kernel is set up: nothing in node 4, before and after."""
    before = zoned_guest.read(AUTO)
    assert not zoned_guest.exists(f"{NODES}/node4")
    yield zoned_guest
    zoned_guest.write(AUTO, before)


@pytest.fixture
def ours(plain: Guest) -> Guest:
    """A guest whose policy has zoned bring new memory online."""
    adopt_memory(plain)
    return plain


def adopt_memory(guest: Guest) -> None:
    """Have the policy say that zoned brings new memory online."""
    guest.write(POLICY, "hotplug:\n  online: zoned\n")
    guest.check(["zonectl", "reload"])
    assert guest.read(AUTO).strip() == "offline"


def base_zone(guest: Guest, node: int) -> dict[str, Any]:
    """Return what zonectl says of a base zone; nothing where there is none."""
    return next((each for each in ask(guest, "base", "list")["nodes"] if each["node"] == node), {})


def kinds(guest: Guest, node: int) -> list[str]:
    """Return the kernel zones of a node's blocks by address, as lsmem says; offline is ``-``."""
    columns = "NODE,STATE,ZONES"
    told = json.loads(guest.check(["lsmem", "-J", "-b", "-a", "-o", columns]))["memory"]
    return [
        each["zones"] if each["state"] == "online" else "-"
        for each in told
        if int(each["node"]) == node
    ]


def size_by_numactl(guest: Guest, node: int) -> int | None:
    """Return MB of a node."""
    match = re.search(rf"^node {node} size: (\d+) MB", guest.check(["numactl", "-H"]), re.M)
    return int(match[1]) if match else None


def alerts(guest: Guest) -> list[dict[str, Any]]:
    """Return what is wrong; the command's status tells whether anything is."""
    found: list[dict[str, Any]] = json.loads(guest.run(["zonectl", "status", "-o", "json"]).stdout)[
        "alerts"
    ]
    return found


def codes(guest: Guest) -> set[str]:
    """Return the alerts there are."""
    return {each["code"] for each in alerts(guest)}


def fresh_codes(guest: Guest) -> set[str]:
    """Return the alerts after another look: a node that comes or goes is not everywhere at once."""
    guest.check(["zonectl", "reload"])
    return codes(guest)


def wait_online(guest: Guest, node: int, blocks: int) -> None:
    """Wait until as many blocks of a node are online, and no job works on them any more."""
    wait_until(
        lambda: len([kind for kind in kinds(guest, node) if kind != "-"]) == blocks,
        f"{blocks} blocks of node {node} online",
    )
    for job in ask(guest, "jobs"):
        if job["kind"] == "base-add":
            wait_for(guest, job["id"])


def pull(guest: Guest, name: str, node: int) -> None:
    """Pull the only DIMM of a node."""
    guest.unplug_dimm(name)
    wait_until(lambda: not guest.exists(f"{NODES}/node{node}"), f"the end of node {node}")


def test_what_was_removed_stays_offline_until_it_is_added(ours: Guest) -> None:
    guest = ours
    guest.plug_dimm("back", node=4, size=2 * BLOCK)
    wait_online(guest, 4, 2)
    follow(guest, "base", "remove", "4")
    guest.check(["systemctl", "restart", "zoned"])
    guest.check(["zonectl", "reload"])
    assert kinds(guest, 4) == ["-", "-"]
    follow(guest, "base", "add", "4")
    assert kinds(guest, 4) == ["Normal", "Movable"]
    follow(guest, "base", "remove", "4")
    pull(guest, "back", 4)
    guest.check(["rm", POLICY])
    guest.check(["zonectl", "reload"])


def test_setting_of_the_kernel_comes_back(plain: Guest) -> None:
    before = plain.read(AUTO)
    adopt_memory(plain)
    plain.check(["rm", POLICY])
    plain.check(["zonectl", "reload"])
    assert plain.read(AUTO) == before


def test_memory_of_the_host_is_recognised(ours: Guest) -> None:
    guest = ours
    backend = {"qom-type": "memory-backend-ram", "id": "vmem-ram", "size": 4 * BLOCK * MIB}
    guest.qmp("object-add", **backend)
    words: dict[str, Any] = {"requested-size": 2 * BLOCK * MIB}
    guest.qmp(
        "device_add",
        driver="virtio-mem-pci",
        id="vmem",
        memdev="vmem-ram",
        node=4,
        bus="rp2",
        **words,
    )
    wait_online(guest, 4, 2)
    found = base_zone(guest, 4)
    assert (found["source"], found["kernel"], found["movable"]) == ("virtio-mem", 1, 1)
    follow(guest, "base", "remove", "4")
    guest.qmp("qom-set", path="/machine/peripheral/vmem", property="requested-size", value=0)
    wait_until(lambda: not guest.exists(f"{NODES}/node4"), "the end of node 4")


def test_memory_of_the_start_stays(zoned_guest: Guest) -> None:
    assert base_zone(zoned_guest, 1)["source"] == "boot"
    assert "[not-removable]" in refused(zoned_guest, "base", "remove", "1")
    assert "[unknown-node]" in refused(zoned_guest, "base", "add", "7")
    assert "[no-such-dax]" in refused(zoned_guest, "base", "add", "dax0.0")
    assert "[usage]" in refused(zoned_guest, "base", "remove", "everything", status=2)


def test_movable_memory_alone_always_leaves(plain: Guest) -> None:
    """Not even a program that still runs keeps it: what the kernel needs for it is elsewhere."""
    guest = plain
    guest.write(AUTO, "offline")
    guest.plug_dimm("movable", node=4, size=4 * BLOCK)
    wait_until(lambda: kinds(guest, 4) == ["-"] * 4, "4 blocks of node 4")
    follow(guest, "base", "add", "4", "--movable-only")
    assert kinds(guest, 4) == _ALL_MOVABLE
    assert "4" not in guest.read(f"{NODES}/has_normal_memory").strip()
    guest.check(["systemctl", "restart", "zoned"])
    assert not fresh_codes(guest)
    assert kinds(guest, 4) == _ALL_MOVABLE
    assert base_zone(guest, 4)["movable_only"] is True
    assert "[usage]" in refused(guest, "base", "add", "4", status=2)

    words = ["create", "alone", "--size", "128MiB", "--nodes", "4"]
    assert "[movable-only]" in refused(guest, *words)
    guest.check(["zonectl", "create", "both", "--size", "256MiB", "--nodes", "3,4"])
    hog = start_hog(guest, 150, ["zonectl", "run", "both", "--", "numactl", "--membind=4"])
    assert set(anonymous_by_node(guest, hog.pid)) == {4}
    assert "in use by zone both" in refused(guest, "base", "remove", "4")
    # Pages of libraries that others use as well may stay behind.
    assert guest.run(["zonectl", "move", "both", "--nodes", "3"]).returncode in {0, PARTIAL}
    assert hog.pid in pids(guest)
    assert set(anonymous_by_node(guest, hog.pid)) == {3}
    follow(guest, "base", "remove", "4")
    assert kinds(guest, 4) == ["-"] * 4
    assert base_zone(guest, 4)["movable_only"] is False
    pull(guest, "movable", 4)
    assert hog.pid in pids(guest)
    guest.check(["zonectl", "destroy", "both", "--kill"])
    assert not fresh_codes(guest)


def test_killed_while_a_base_zone_leaves(plain: Guest) -> None:
    """Of movable memory alone, which always can: with the first of two blocks, and with the last.

    What was taken is back before the daemon is there again, and then its job takes all.
    """
    guest = plain
    guest.write(AUTO, "offline")
    guest.plug_dimm("killed", node=4, size=2 * BLOCK)
    wait_until(lambda: kinds(guest, 4) == ["-"] * 2, "2 blocks of node 4")
    for taken in (1, 2):
        follow(guest, "base", "add", "4", "--movable-only")
        assert kinds(guest, 4) == ["Movable"] * 2
        wait_for(guest, Kill(guest, "blocks", f"least {taken}").during("base", "remove", "4"))
        assert kinds(guest, 4) == ["-"] * 2
        assert not ledger(guest)["blocks"]
        assert not fresh_codes(guest)
    pull(guest, "killed", 4)


def test_policy_of_movable_memory_alone(ours: Guest) -> None:
    guest = ours
    guest.write(POLICY, "hotplug:\n  online: zoned\n  movable_only: true\n")
    guest.check(["zonectl", "reload"])
    guest.plug_dimm("policy", node=4, size=2 * BLOCK)
    wait_online(guest, 4, 2)
    assert kinds(guest, 4) == ["Movable"] * 2
    assert base_zone(guest, 4)["movable_only"] is True
    assert not fresh_codes(guest)
    follow(guest, "base", "remove", "4")
    pull(guest, "policy", 4)
    guest.check(["rm", POLICY])
    guest.check(["zonectl", "reload"])


@pytest.mark.spoils
def test_kernel_that_is_first_is_found_out(plain: Guest) -> None:
    """What the kernel has put there does not leave again."""
    guest = plain
    guest.write(AUTO, "online")
    guest.plug_dimm("raced", node=4, size=4 * BLOCK)
    wait_online(guest, 4, 4)
    assert kinds(guest, 4) == ["Normal"] * 4
    # The kernel is meant to do it, as long as nobody says otherwise.
    assert not fresh_codes(guest)
    adopt_memory(guest)
    wait_until(lambda: "online-race" in codes(guest), "the alert")
    (alert,) = (each for each in alerts(guest) if each["code"] == "online-race")
    assert alert["subject"] == "node 4"
    assert "by the kernel itself (auto_online_blocks said online)" in alert["message"]
    assert "zonectl base add NODE" in guest.check(["zonectl", "explain", "online-race"])
    done = guest.run(["zonectl", "base", "add", "4"])
    left = kinds(guest, 4).count("Normal")
    if done.returncode == 0:
        assert kinds(guest, 4) == FIRST_NORMAL
    else:
        # The kernel has put something of its own there already, which is the point of the alert.
        assert done.returncode == PARTIAL, done
        assert left > 1
        assert "stay memory of the kernel's own" in done.stderr
    assert kinds(guest, 4).count("-") == 0
    assert ("online-race" in fresh_codes(guest)) == (left > 1)


@pytest.mark.spoils
def test_dimm_to_zone(ours: Guest) -> None:
    guest = ours
    guest.plug_dimm("first", node=4, size=4 * BLOCK)
    wait_online(guest, 4, 4)
    assert kinds(guest, 4) == FIRST_NORMAL
    assert size_by_numactl(guest, 4) == 4 * BLOCK
    assert base_zone(guest, 4) == {
        "node": 4,
        "source": "dimm",
        "removable": True,
        "total": 4 * BLOCK * MIB,
        "blocks": 4,
        "kernel": 1,
        "movable": 3,
        "offline": 0,
        "part_of": [],
        "movable_only": False,
        "zones": [],
    }
    assert "4" in guest.read(f"{NODES}/has_normal_memory").strip().split("-")[-1]
    assert not fresh_codes(guest)

    guest.check(["zonectl", "create", "hot", "--size", "256MiB", "--nodes", "4", "--cpus", "none"])
    hog = start_hog(guest, 150, ["zonectl", "run", "hot", "--"])
    assert set(anonymous_by_node(guest, hog.pid)) == {4}
    assert base_zone(guest, 4)["zones"] == ["hot"]
    message = refused(guest, "base", "remove", "4")
    assert "[node-in-use] node 4 is in use by zone hot" in message
    assert kinds(guest, 4) == FIRST_NORMAL

    # Pages of libraries that others use as well may stay behind.
    assert guest.run(["zonectl", "move", "hot", "--nodes", "3"]).returncode in {0, PARTIAL}
    assert set(anonymous_by_node(guest, hog.pid)) == {3}
    guest.check(["zonectl", "destroy", "hot", "--kill"])
    done = guest.run(["zonectl", "base", "remove", "4"])
    print(f"\nremoving a base zone that was in use: {done.stderr or 'done'}")
    if done.returncode:
        # What the kernel put into its part meanwhile it does not always let go: all is as before.
        assert "[block-busy]" in done.stderr, done
        assert kinds(guest, 4) == FIRST_NORMAL
        return
    assert kinds(guest, 4) == ["-"] * 4
    assert base_zone(guest, 4)["offline"] == 4
    assert not size_by_numactl(guest, 4)
    pull(guest, "first", 4)
    assert base_zone(guest, 4) == {}
    assert not fresh_codes(guest)
