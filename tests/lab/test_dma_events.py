# SPDX-License-Identifier: Apache-2.0
"""Reservations that follow devices: by events, by udev's rule, and at boot."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab.harness.guest import Guest
from tests.lab.harness.wait import wait_until
from tests.lab.reservations import ledger, reserved
from tests.lab.test_dma import POLICY, devices

pytestmark = [pytest.mark.topology("low_memory"), pytest.mark.on("bookworm")]

EDU = "1234:11e8"
NIC = "8086:10d3"
PORT = "/devices/*/*/*"
"""Fits what sits behind a root port, and not what was there at boot."""
RATIO = "/proc/sys/vm/lowmem_reserve_ratio"
MIB = 1 << 20


def reservation(name: str, identity: str, more: str = "") -> str:
    """Return a policy for devices behind a root port; they reach all of the kernel's low zone."""
    match = f"{{id: '{identity}', path: '{PORT}'}}"
    return (
        f"dma:\n  quirks:\n    - {{match: {match}, limit: 30, source: this test}}\n"
        f"  reservations:\n    {name}:\n      match: {match}\n      size: 32MiB\n"
        f"      limit: 30\n      rungs: [lowmem]\n{more}"
    )


@pytest.fixture
def policy(zoned_guest: Guest) -> Iterator[Callable[[str], Guest]]:
    """Brings a policy in force, and gives the guest; afterwards there is none of it left."""

    def bring(text: str) -> Guest:
        zoned_guest.write(POLICY, text)
        zoned_guest.check(["zonectl", "reload"])
        return zoned_guest

    yield bring
    if left := zoned_guest.facts.get("plugged"):
        unplug(zoned_guest, left)
    zoned_guest.check(["rm", "-f", POLICY])
    zoned_guest.check(["zonectl", "reload"])
    wait_until(lambda: not reserved(zoned_guest), "all reservations to go")


def stands_for(guest: Guest, address: str) -> bool:
    """Return whether a reservation stands for a device."""
    found = reserved(guest).values()
    return any(each["standing"] and address in each["devices"] for each in found)


def plug(guest: Guest, driver: str, **words: Any) -> str:
    """Plug a device into a root port; return its address."""
    before = set(guest.check(["ls", "/sys/bus/pci/devices"]).split())

    def new() -> set[str]:
        return set(guest.check(["ls", "/sys/bus/pci/devices"]).split()) - before

    guest.qmp("device_add", driver=driver, id="plugged", bus="rp1", **words)
    (address,) = wait_until(new, f"the new {driver}")
    guest.facts["plugged"] = address
    return address


def unplug(guest: Guest, address: str) -> None:
    """Pull the device out, which takes its port some seconds."""
    with guest.machine.events("DEVICE_DELETED") as news:
        guest.qmp("device_del", id="plugged")
        while "plugged" not in str(guest.machine.next_event(news)["data"]):
            pass
    path = f"/sys/bus/pci/devices/{address}"
    wait_until(lambda: not guest.exists(path), f"{address} to go")
    guest.facts["plugged"] = None


def log(guest: Guest, unit: str = "zoned") -> list[str]:
    """Return the messages of a unit since the boot."""
    return guest.check(["journalctl", "-b", "-o", "cat", "-u", unit]).splitlines()


def place(lines: list[str], pattern: str) -> int:
    """Return where the last line is that has a pattern."""
    found = [number for number, line in enumerate(lines) if re.search(pattern, line)]
    assert found, (pattern, lines[-40:])
    return found[-1]


def test_device_that_is_plugged_in_has_memory_and_gives_it_back(
    policy: Callable[[str], Guest],
) -> None:
    guest = policy(reservation("teach", EDU))
    before = guest.read(RATIO)
    assert reserved(guest) == {}
    address = plug(guest, "edu")
    wait_until(lambda: stands_for(guest, address), f"memory for {address}")
    told = devices(guest)[address]
    assert (told["state"], told["reserved"], told["rung"]) == ("reserved", 32 * MIB, "lowmem")
    assert guest.read(RATIO) != before
    unplug(guest, address)
    wait_until(lambda: not reserved(guest), "the memory to be given back")
    assert guest.read(RATIO) == before
    assert ledger(guest)["ratio"] is None
    later = r"(?:\d+\.\d{3}) s later"
    lines = log(guest)
    came = place(lines, rf"^event: add {address}$")
    stood = place(lines, rf"^event: add {address}: reservation teach@{address} stands, {later}$")
    left = place(lines, rf"^event: remove {address}$")
    gone = place(lines, rf"^event: remove {address}: nothing is reserved .*, {later}$")
    assert came < stood < left < gone
    print(f"\n{lines[stood]}\n{lines[gone]}")


def bound(guest: Guest) -> tuple[str, str]:
    """Plug a network card in and wait for its driver; return its address, and what udev's rule was
    told.
    """
    seen = len(log(guest))
    address = plug(guest, "e1000e")
    path = f"/sys/bus/pci/devices/{address}"
    bind = f"^event: bind {address}$"
    wait_until(lambda: guest.exists(f"{path}/driver"), "the driver of the network card")
    wait_until(lambda: any(re.search(bind, each) for each in log(guest)[seen:]), "its event")
    guest.check(["udevadm", "settle"])
    told = guest.check(["udevadm", "info", "-q", "property", path])
    (said,) = re.findall(r"^ZONED_DMA=(.*)$", told, re.M)
    return address, said


def test_driver_is_not_loaded_before_the_memory_stands(policy: Callable[[str], Guest]) -> None:
    guest = policy(reservation("nic", NIC))
    wait_until(lambda: guest.exists(f"/run/zoned/dma-wanted/0x{NIC[:4]}:0x{NIC[5:]}"), "the mark")
    assert not guest.exists("/sys/module/e1000e")
    # On a machine that is too slow it takes longer than a device waits, and nothing is learnt.
    for _ in range(3):
        address, said = bound(guest)
        lines = log(guest)
        unplug(guest, address)
        guest.check(["modprobe", "-r", "e1000e"])
        wait_until(lambda: not reserved(guest), "the memory to be given back")
        if "not ready in time" not in said:
            break
    # By then the event may have had it reserved.
    assert re.match(rf"{address}: (?:job \d+ .* is done|there is nothing to do)", said), said
    stood = place(lines, rf"^event: add {address}: reservation nic@{address} stands")
    assert stood < place(lines, rf"^event: bind {address}$")


def test_nothing_is_run_for_other_devices(policy: Callable[[str], Guest]) -> None:
    guest = policy(reservation("nic", NIC))
    wait_until(lambda: guest.exists(f"/run/zoned/dma-wanted/0x{NIC[:4]}:0x{NIC[5:]}"), "the mark")
    path = f"/sys/bus/pci/devices/{plug(guest, 'edu')}"
    guest.check(["udevadm", "wait", "--timeout=60", path])
    assert "ZONED_DMA" not in guest.check(["udevadm", "info", "-q", "property", path])


def test_prepare_never_fails_and_never_waits_for_long(zoned_guest: Guest) -> None:
    guest, command = zoned_guest, ["zonectl", "dma", "prepare", "0000:00:00.0"]
    assert "there is nothing to do" in guest.check(command)
    unknown = guest.check([*command[:-1], "0000:77:00.0"])
    assert "0000:77:00.0: [unknown-device] there is no device" in unknown
    guest.check(["systemctl", "kill", "-s", "STOP", "zoned"])
    try:
        assert "not ready in time" in guest.check(command)
    finally:
        guest.check(["systemctl", "kill", "-s", "CONT", "zoned"])
    guest.check(["systemctl", "stop", "zoned"])
    try:
        assert "[no-daemon]" in guest.check(command)
    finally:
        guest.check(["systemctl", "start", "zoned"])


BOOT = """\
dma:
  reservations:
    early:
      match: {id: "1234:9999"}
      size: 64MiB
      limit: 30
      hold: true
      rungs: [lowmem]
    region:
      match: {id: "1234:9998"}
      size: 16MiB
      limit: 30
      hold: true
"""


def moments(guest: Guest, unit: str, *names: str) -> list[int]:
    """Return when something happened to a unit, in microseconds since the boot."""
    found = [guest.check(["systemctl", "show", "-P", name, unit]).strip() for name in names]
    assert all(int(each) for each in found), (unit, names, found)
    return [int(each) for each in found]


@pytest.mark.spoils
def test_memory_is_reserved_before_drivers_are_loaded_at_boot(zoned_guest: Guest) -> None:
    guest = zoned_guest
    plain = guest.read(RATIO)
    guest.write(POLICY, BOOT)
    guest.reboot()
    show = ["systemctl", "show", "-P", "Result", "zoned-early"]
    lines = log(guest, "zoned-early")
    assert guest.check(show).strip() == "success", lines
    begun, over = moments(
        guest, "zoned-early", "ExecMainStartTimestampMonotonic", "ExecMainExitTimestampMonotonic"
    )
    (coldplug,) = moments(guest, "systemd-udev-trigger", "ExecMainStartTimestampMonotonic")
    (sysinit,) = moments(guest, "sysinit.target", "ActiveEnterTimestampMonotonic")
    (daemon,) = moments(guest, "zoned", "ExecMainStartTimestampMonotonic")
    (users,) = moments(guest, "multi-user.target", "ActiveEnterTimestampMonotonic")
    assert begun < over < coldplug < sysinit < daemon < users
    print(f"\nearly: {(over - begun) / 1e6:.2f} s, of {users / 1e6:.1f} s of the boot")
    stood = place(lines, "^reservation early: 64MiB on lowmem")
    # Its driver is loaded later, and nobody else takes what it has.
    assert place(lines, "reservation region: .*persistent memory") != stood
    held = reserved(guest)["early"]
    assert (held["standing"], held["size"], held["rung"]) == (True, 64 * MIB, "lowmem")
    assert guest.read(RATIO) != plain
    assert not any("reserve early" in each for each in log(guest)), "the daemon took it over"
    check_failures_hold_nothing_up(guest)


def check_failures_hold_nothing_up(guest: Guest) -> None:
    """Start the early unit where it has to fail, and where the daemon runs."""
    guest.check(["systemctl", "restart", "zoned-early"])
    assert place(log(guest, "zoned-early"), "the daemon runs") >= 0
    guest.check(["systemctl", "stop", "zoned", "zoned-early"])
    guest.write(POLICY, "dma: {reservations: 5}\n")
    assert guest.run(["systemctl", "start", "zoned-early"]).returncode != 0
    assert place(log(guest, "zoned-early"), r"\[bad-policy\]|50-dma\.yaml:1") >= 0
    guest.check(["systemctl", "start", "zoned"])
    assert reserved(guest)["early"]["standing"]
