# SPDX-License-Identifier: Apache-2.0
"""`zonectl dma reserve`, `release`, `check` and `list`, with a daemon."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.dma.conftest import CARD, policy, wish
from tests.unit.fake_devices import EDU, add_device
from tests.unit.fake_low_memory import MIB, RATIO, FakeLowMemory
from tests.unit.fake_sys import write
from zoned.kernel import devices
from zoned.kernel.root import sysroot
from zoned.model.dma.boot_line import afterwards
from zoned.model.dma.limit import bits_mask
from zoned.model.dma.offer import Span
from zoned.policy import files

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cli.conftest import Daemon

POLICY = """\
dma:
  quirks: [{match: {id: 1234:11e8}, limit: 31}]
  reservations: {teach: {match: {id: 1234:11e8}, size: 64MiB}}
"""


@pytest.fixture
def memory(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> FakeLowMemory:
    """The low memory of the daemon's machine, which has an edu device; zonectl sees the same."""
    folder = daemon.world.folder
    found = FakeLowMemory(folder)
    found.answer(monkeypatch)
    add_device(folder, CARD, EDU)
    real = devices.read_devices
    monkeypatch.setattr(devices, "read_devices", lambda _: real(sysroot(folder)))
    set_policy(folder, monkeypatch, "")
    return found


def set_policy(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Have zonectl read this policy."""
    write(folder, {"config/zones.d/50.yaml": text})
    monkeypatch.setattr(files, "DIRECTORIES", (folder / "config",))


def reserve(daemon: Daemon, *more: str) -> str:
    """Reserve memory by hand."""
    return daemon.well(
        "dma", "reserve", "--device", "00:02.0", "--size", "64MiB", "--limit", "31", *more
    )


def listed(daemon: Daemon) -> str:
    """Return the line of the device."""
    (line,) = [each for each in daemon.well("dma", "list").splitlines() if CARD in each]
    return " ".join(line.split())


def test_reserve_list_check_release(daemon: Daemon, memory: FakeLowMemory) -> None:
    assert listed(daemon) == f"{CARD} 1234:11e8 - - - - - - - - - -"
    text = reserve(daemon, "--name", "mine")
    assert f"job 1 is done: reserve 64MiB for device {CARD}\n" in text
    assert "64MiB on lowmem. Allocations that could come from elsewhere leave so much" in text
    assert memory.protects() == 64 * MIB
    assert listed(daemon).endswith("mine 64MiB 64MiB lowmem reserved")
    (found,) = json.loads(daemon.well("dma", "list", "--json"))
    assert (found["name"], found["reserved"]) == (f"mine@{CARD}", 64 * MIB)
    assert daemon.well("dma", "check") == "all memory for devices is as it should be\n"
    assert "1 reservation," in daemon.well("status")
    told = daemon.well("dma", "release", "mine")
    assert told.endswith(f"job 2 is done: give back memory: mine@{CARD}\n")
    assert memory.ratio == RATIO


def test_what_is_broken_is_told(daemon: Daemon, memory: FakeLowMemory) -> None:
    reserve(daemon)
    memory.set(*RATIO)
    found = daemon.zonectl("dma", "check")
    assert (found.status, found.err) == (1, "")
    assert found.out.startswith("ALERT               ABOUT")
    assert "reservation-broken" in found.out
    assert f"reservation manual@{CARD}" in found.out
    assert found.out.endswith("\n\n1 alert\n")
    (alert,) = json.loads(daemon.zonectl("dma", "check", "--json").out)
    assert alert["code"] == "reservation-broken"


def test_only_another_boot_helps(daemon: Daemon, memory: FakeLowMemory) -> None:
    memory.free["DMA32"] = 0
    memory.tell()
    arguments = ("--device", CARD, "--size", "64MiB", "--limit", "31")
    found = daemon.zonectl("dma", "reserve", *arguments)
    assert found.status == 64
    assert found.err.startswith("zonectl: [pending-reboot] reservation manual@")
    assert "memmap=80M!1968M" in found.err
    text = daemon.well("dma", "list")
    assert "pending-reboot  pending-reboot" in text
    assert "add to the kernel's command line: memmap=80M!1968M\n" in text
    there = "00100000-7affffff : System RAM\n7b000000-7fffffff : Persistent Memory (legacy)\n"
    write(daemon.world.folder, {"proc/iomem": there, "proc/cmdline": "memmap=80M!1968M"})
    daemon.well("dma", "release", f"manual@{CARD}")
    found = daemon.zonectl("dma", "reserve", *arguments)
    assert f"manual@{CARD} has memory that is no region yet" in found.err
    text = daemon.well("dma", "list")
    assert text.endswith(
        f"if nobody has made use of it: {afterwards(Span(1968 * MIB, 80 * MIB))}\n"
    )


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("reserve", "--device", "9:9.9", "--size", "1MiB"), 1, "[unknown-device]"),
        (("reserve", "--device", CARD, "--size", "1MiB"), 1, "[limit-unknown]"),
        (("reserve", "--device", CARD, "--size", "x"), 1, "[bad-size]"),
        (("reserve", "--device", CARD, "--size", "1MiB", "--limit", "x"), 1, "[bad-input]"),
        (
            ("reserve", "--device", CARD, "--size", "9GiB", "--limit", "31"),
            1,
            "[too-little-below]",
        ),
        (("reserve", "--size", "1MiB"), 2, "Missing option '--device'"),
        (("reserve", "--device", CARD, "--size", "1MiB", "--rung", "x"), 2, "'x' is not one of"),
        (("release", "x"), 1, "[no-such-reservation]"),
    ],
)
@pytest.mark.usefixtures("memory")
def test_bad_input(daemon: Daemon, arguments: tuple[str, ...], status: int, told: str) -> None:
    found = daemon.zonectl("dma", *arguments)
    assert (found.status, found.out) == (status, "")
    assert told in found.err


@pytest.mark.usefixtures("memory")
def test_a_rung_is_forced(daemon: Daemon) -> None:
    arguments = ("--device", CARD, "--size", "64MiB", "--limit", "31", "--rung", "devdax")
    found = daemon.zonectl("dma", "reserve", *arguments, "--rung", "hugetlb")
    assert (found.status, found.err.split("]")[0]) == (1, "zonectl: [no-rung")


def test_the_daemon_is_believed_before_the_files(
    daemon: Daemon, memory: FakeLowMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_policy(daemon.world.folder, monkeypatch, POLICY)
    # It was not reloaded yet.
    assert listed(daemon) == f"{CARD} 1234:11e8 - - - 31 bits 50.yaml:2 - - - - -"
    daemon.engine.machine.policy = policy(wish(size=64 * MIB))
    assert listed(daemon).endswith("31 bits 50.yaml:2 teach 64MiB 0B lowmem possible")
    text = daemon.well("dma", "list", "--config", str(daemon.world.folder / "config"))
    assert "teach" in text
    assert memory.writes == []


@pytest.mark.usefixtures("memory")
def test_what_has_no_device_is_listed_too(daemon: Daemon) -> None:
    spare = wish("spare", hold=True, limit=bits_mask(31), pool="spares")
    spare = replace(spare, match=replace(spare.match, id=("1:2",)))
    daemon.engine.machine.policy = policy(spare)
    assert "none there" in daemon.well("dma", "list")
    reserve(daemon)
    (daemon.world.folder / f"sys/bus/pci/devices/{CARD}").unlink()
    text = daemon.well("dma", "list")
    assert text.endswith("\n\nmanual: nobody wants it any more\n")


def test_explain_knows_what_others_have(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = daemon.world.folder
    memory = FakeLowMemory(folder)
    memory.answer(monkeypatch)
    add_device(folder, CARD, EDU)
    real = devices.read_devices
    monkeypatch.setattr(devices, "read_devices", lambda _: real(sysroot(folder)))
    from zoned.kernel import dma_offer

    look = dma_offer.read_offer
    monkeypatch.setattr(dma_offer, "read_offer", lambda _: look(sysroot(folder)))
    set_policy(folder, monkeypatch, POLICY)
    add_device(folder, "0000:00:03.0", EDU)
    reserve(daemon)
    text = daemon.well("dma", "explain", CARD)
    assert "\nwanted for  manual\n" in text
    assert "\nreserved    64MiB\n" in text
    assert "\nstate       reserved\n" in text
    other = daemon.well("dma", "explain", "00:03.0")
    assert "and 64MiB are promised already" in other
    assert "\nwanted for  teach\n" in other
