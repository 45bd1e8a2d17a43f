# SPDX-License-Identifier: Apache-2.0
"""Devices and what could be done for them, next to what lspci and the kernel's files say."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.edu import edus
from tests.lab.harness.guest import Guest
from tests.lab.harness.wait import wait_until
from tests.lab.reservations import have_region
from tests.lab.test_zones import ask, refused

BRIDGE = "0000:00:00.0"
"""Has no driver, so that its limit is what is asked for."""
POLICY = "/etc/zoned/zones.d/50-dma.yaml"
RUNGS = ["iommu", "devdax", "cma", "lowmem", "blocks", "hugetlb", "pending-reboot"]
MIB = 1 << 20
_ATTRIBUTES = "vendor device class numa_node dma_mask_bits consistent_dma_mask_bits"
_RAW = f"""
cd /sys/bus/pci/devices
for each in *; do
    printf '%s' "$each"
    for name in {_ATTRIBUTES}; do printf ' %s' "$(cat "$each/$name")"; done
    printf ' %s\\n' "$(basename "$(readlink "$each/driver" || echo -)")"
done
"""


@pytest.fixture
def policy(zoned_guest: Guest) -> Iterator[Guest]:
    """A guest whose policy is about to say something of devices."""
    yield zoned_guest
    zoned_guest.check(["rm", "-f", POLICY])
    zoned_guest.check(["zonectl", "reload"])


def devices(guest: Guest) -> dict[str, dict[str, Any]]:
    """Return what zonectl says of each device by its address."""
    return {each["device"]: each for each in ask(guest, "dma", "list")}


def edu_address(guest: Guest) -> str:
    """Return where the edu device sits, as lspci has it."""
    return min(edus(guest))


def rungs_of(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the rungs that `dma explain` tells of, by name."""
    assert [each["rung"] for each in told["rungs"]] == RUNGS
    return {each["rung"]: each for each in told["rungs"]}


def system_ram(guest: Guest) -> list[tuple[int, int]]:
    """Return first and last address of each range of system memory."""
    lines = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) : System RAM$", guest.read("/proc/iomem"), re.M)
    return [(int(start, 16), int(end, 16)) for start, end in lines]


def test_devices_agree_with_lspci(zoned_guest: Guest) -> None:
    lines = zoned_guest.check(["lspci", "-D", "-n"]).splitlines()
    told = [re.match(r"(\S+) ([0-9a-f]{4}): ([0-9a-f]{4}:[0-9a-f]{4})", line) for line in lines]
    seen = {match[1]: (match[2], match[3]) for match in told if match}
    assert len(seen) == len(lines) > 3
    found = {name: each for name, each in devices(zoned_guest).items() if each["bus"] == "pci"}
    assert {name: (each["class"][:4], each["id"]) for name, each in found.items()} == seen


def test_devices_agree_with_their_files(zoned_guest: Guest) -> None:
    found = devices(zoned_guest)
    for line in zoned_guest.shell(_RAW).splitlines():
        address, vendor, device, kind, node, mask, coherent, driver = line.split()
        told = found[address]
        assert told["id"] == f"{int(vendor, 16):04x}:{int(device, 16):04x}"
        assert int(told["class"], 16) == int(kind, 16)
        assert told["node"] == (None if node == "-1" else int(node))
        assert told["masks"] == {"dma": int(mask), "coherent": int(coherent)}
        assert told["driver"] == (None if driver == "-" else driver)
        limit = told["limit"]
        if limit["source"] == "driver":
            assert limit["bits"] == min(int(mask), int(coherent))
            assert limit["place"] == driver
        elif limit["source"] is None:
            assert driver == "-"
            assert limit["bits"] is None


@pytest.mark.on("bookworm")
def test_no_iommu_stands_before_these(zoned_guest: Guest) -> None:
    assert zoned_guest.check(["ls", "/sys/class/iommu"]) == ""
    assert {each["iommu"] for each in devices(zoned_guest).values()} == {"none"}


@pytest.mark.on("bookworm")
def test_edu_reaches_28_bits_by_the_shipped_list(zoned_guest: Guest) -> None:
    edu = devices(zoned_guest)[edu_address(zoned_guest)]
    # Nobody drives it, so that what the kernel reads is worth nothing.
    assert (edu["driver"], edu["masks"]) == (None, {"dma": 32, "coherent": 32})
    limit = edu["limit"]
    assert (limit["bits"], limit["address"], limit["source"]) == (28, 0xFFFFFFF, "policy")
    assert re.fullmatch(r"/usr/lib/zoned/zones\.d/20-dma-quirks\.yaml:\d+", limit["place"])
    assert "edu.c" in limit["reason"]
    assert (edu["needed"], edu["reserved"], edu["state"]) == (None, 0, None)


@pytest.mark.on("bookworm")
def test_who_is_no_root_sees_the_same_devices(zoned_guest: Guest) -> None:
    command = ["zonectl", "dma", "list", "-o", "json"]
    told = json.loads(zoned_guest.check(command, user="nobody"))
    assert told == list(devices(zoned_guest).values())
    address = edu_address(zoned_guest)
    ask_for = ["zonectl", "dma", "explain", address, "--size", "64MiB"]
    told = json.loads(zoned_guest.check([*ask_for, "-o", "json"], user="nobody"))
    assert rungs_of(told)["pending-reboot"]["holds"] is None
    text = zoned_guest.check(ask_for, user="nobody")
    assert text.endswith("only root can see all that memory could come from\n")


@pytest.mark.on("bookworm")
def test_device_that_is_plugged_in_is_listed(zoned_guest: Guest) -> None:
    before = devices(zoned_guest)
    zoned_guest.qmp("device_add", driver="edu", id="edu3", bus="rp1")
    wait_until(lambda: len(edus(zoned_guest)) == 2, "a second edu device")
    (new,) = devices(zoned_guest).keys() - before.keys()
    assert devices(zoned_guest)[new]["limit"]["bits"] == 28
    zoned_guest.qmp("device_del", id="edu3")
    wait_until(lambda: len(edus(zoned_guest)) == 1, "the end of the second edu")
    assert "[unknown-device]" in refused(zoned_guest, "dma", "explain", new)
    assert devices(zoned_guest).keys() == before.keys()


@pytest.mark.on("bookworm")
def test_policy_of_the_administrator_counts_before_the_shipped_list(policy: Guest) -> None:
    address = edu_address(policy)
    policy.write(
        POLICY,
        f"""dma:
  quirks:
    - match: {{path: "*/{address}"}}
      limit: 31
  reservations:
    teach:
      match: {{id: 1234:11e8}}
      size: 16MiB
      rungs: [pending-reboot]
""",
    )
    policy.check(["zonectl", "reload"])
    edu = devices(policy)[address]
    assert (edu["limit"]["bits"], edu["limit"]["place"]) == (31, f"{POLICY}:3")
    assert (edu["reservation"], edu["needed"], edu["reserved"]) == ("teach", 16 * MIB, 0)
    assert (edu["rung"], edu["state"]) == ("pending-reboot", "pending-reboot")


@pytest.mark.on("bookworm")
def test_quirks_that_contradict_are_refused(policy: Guest) -> None:
    policy.write(POLICY, "dma: {quirks: [{match: {id: 1234:11e8}, limit: 31}]}\n")
    shipped = "/usr/lib/zoned/zones.d/20-dma-quirks.yaml"
    message = refused(policy, "check")
    assert re.search(rf"{POLICY}:1: dma\.quirks\[0\]\.match: contradicts {shipped}:\d+", message)
    assert message == refused(policy, "dma", "list")


@pytest.mark.on("bookworm")
def test_ladder_of_edu(zoned_guest: Guest) -> None:
    address = edu_address(zoned_guest)
    told = ask(zoned_guest, "dma", "explain", address, "--size", "64MiB")
    rungs = rungs_of(told)
    assert [rungs[name]["holds"] for name in ("iommu", "devdax", "cma")] == [False] * 3
    # What lies below 256 MiB is node 0's, which has no higher zone that would protect it.
    zones = zoned_guest.read("/proc/zoneinfo")
    pages = re.findall(r"^Node 0, zone +(\S+)(?:\n +.*)*?\n +managed +(\d+)$", zones, re.M)
    covered = any(name in {"Normal", "Movable"} and int(number) for name, number in pages)
    assert covered or rungs["lowmem"]["holds"] is False
    assert told["state"] in {"possible", "unsure", "pending-reboot"}
    first = next(each for each in told["rungs"] if each["holds"] is not False)
    assert told["rung"] == (first["rung"] if first["holds"] else None)


@pytest.mark.on("bookworm")
@pytest.mark.parametrize(("size", "bits"), [(64, 28), (256, 31), (512, 32)])
def test_command_line_names_memory_that_nobody_has(
    zoned_guest: Guest, size: int, bits: int
) -> None:
    asked = ["--size", f"{size}MiB", "--limit", str(bits)]
    pending = rungs_of(ask(zoned_guest, "dma", "explain", BRIDGE, *asked))["pending-reboot"]
    match = re.search(r"memmap=(\d+)M!(\d+)M$", pending["why"])
    assert match, pending
    length, base = int(match[1]) * MIB, int(match[2]) * MIB
    assert length >= (size + 16) * MIB
    assert base + length <= 1 << bits
    assert any(start <= base and base + length - 1 <= end for start, end in system_ram(zoned_guest))
    named = re.findall(
        r"^ +([0-9a-f]+)-([0-9a-f]+) : Kernel", zoned_guest.read("/proc/iomem"), re.M
    )
    assert named
    assert all(int(end, 16) < base or base + length <= int(start, 16) for start, end in named)


@pytest.mark.on("bookworm")
def test_nonsense_is_refused(zoned_guest: Guest) -> None:
    address = edu_address(zoned_guest)
    most = sum(max(0, min(end, 0xFFFFFFF) - start + 1) for start, end in system_ram(zoned_guest))
    told = ask(zoned_guest, "dma", "explain", address, "--size", str(most + MIB))
    assert (told["state"], told["error"]) == ("refused", "too-little-below")
    told = ask(zoned_guest, "dma", "explain", address, "--size", "4KiB", "--limit", "12")
    assert (told["state"], told["error"]) == ("refused", "limit-too-low")
    assert "[unknown-device]" in refused(zoned_guest, "dma", "explain", "0000:77:00.0")


@pytest.mark.topology("pmem")
@pytest.mark.on("trixie")
def test_region_below_the_limit_is_the_rung(zoned_guest: Guest) -> None:
    """Memory was set aside at boot with memmap=640M!1024M."""
    have_region(zoned_guest)
    wanted = ["dma", "explain", BRIDGE, "--size", "512MiB"]
    told = ask(zoned_guest, *wanted, "--limit", "31")
    assert (told["rung"], told["state"]) == ("devdax", "possible")
    iomem = zoned_guest.read("/proc/iomem")
    ranges = re.findall(r"^ +([0-9a-f]+)-([0-9a-f]+) : dax0\.0$", iomem, re.M)
    assert all(int(end, 16) <= 0x7FFFFFFF for _, end in ranges)
    assert ranges
    lower = rungs_of(ask(zoned_guest, *wanted, "--limit", "30"))
    assert lower["devdax"]["holds"] is False
