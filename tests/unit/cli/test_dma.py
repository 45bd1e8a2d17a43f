# SPDX-License-Identifier: Apache-2.0
"""`zonectl dma list` and `dma explain`, without a daemon."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.fake_devices import EDU, add_device
from tests.unit.fake_sys import MEMORY, NODES, add_block, add_node, write
from zoned.cli.dma_tables import reports_notes
from zoned.model.dma.allot import DmaState, Report, Verdict
from zoned.model.dma.boot_line import afterwards
from zoned.model.dma.limit import Limit
from zoned.model.dma.offer import Span
from zoned.policy import files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.cli.conftest import Ran

PAGE, MIB = 4096, 1 << 20
THEN = afterwards(Span(1968 * MIB, 80 * MIB))
MORE = Span(1872 * MIB, 80 * MIB)
IOMEM = """\
00001000-0009ffff : System RAM
00100000-7fffffff : System RAM
  01000000-01ffffff : Kernel code
100000000-17fffffff : System RAM
"""
ZONEINFO = """\
Node 0, zone    DMA32
  pages free     490000
        spanned  520192
        present  520192
        managed  500000
  start_pfn:           4096
Node 0, zone   Normal
  pages free     1000
        spanned  524288
        present  524288
        managed  500000
  start_pfn:           1048576
"""
POLICY = """\
dma:
  quirks:
    - match: {id: 1234:11e8}
      limit: 28
      source: its data sheet
  reservations:
    teach:
      match: {id: 1234:11e8}
      size: 16MiB
    raid:
      match: {driver: aacraid}
      size: 64MiB
      pool: low
      rungs: [devdax, pending-reboot]
"""
RAID = {"vendor": "0x9005", "device": "0x0285", "numa_node": "0"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A machine with a device for everything, 2 GiB of low memory and blocks of 128 MiB."""
    write(
        tmp_path,
        {
            "proc/iomem": IOMEM,
            "proc/zoneinfo": ZONEINFO,
            "proc/sys/vm/lowmem_reserve_ratio": "256 256 32 0 0",
            "proc/sys/kernel/arch": "x86_64",
            f"{MEMORY}/block_size_bytes": "8000000",
            f"{NODES}/online": "0",
        },
    )
    add_node(tmp_path, 0, {})
    for number in range(16):
        add_block(tmp_path, number, state="online", zones="DMA32", nodes=(0,))
    masks = {"dma_mask_bits": "32", "consistent_dma_mask_bits": "32"}
    add_device(tmp_path, "0000:00:02.0", {**EDU, **masks})
    short = {**masks, "consistent_dma_mask_bits": "31"}
    add_device(tmp_path, "0000:00:03.0", {**RAID, **short}, driver="aacraid", group=(1, "identity"))
    add_device(tmp_path, "0000:00:04.0", {**RAID, **short}, driver="aacraid", group=(2, "DMA"))
    add_device(tmp_path, "0000:00:05.0", {"vendor": "0x8086", "device": "0x1229", **masks})
    add_device(tmp_path, "pcspkr", {"modalias": "platform:pcspkr"}, bus="platform")
    write(tmp_path, {"config/zones.d/50-site.yaml": POLICY})
    return tmp_path


@pytest.fixture
def dma(folder: Path, zonectl: Callable[..., Ran]) -> Callable[..., str]:
    """Return what runs `zonectl dma` on that machine, which must succeed."""

    def run(command: str, *arguments: str) -> str:
        policy = ("--config", str(folder / "config"))
        found = zonectl("dma", command, *arguments, "--sysroot", str(folder), *policy)
        assert (found.status, found.err) == (0, "")
        return found.out

    return run


def by_name(text: str) -> dict[str, dict[str, Any]]:
    """Return what JSON says of each device."""
    return {each["device"]: each for each in json.loads(text)}


def test_table(dma: Callable[..., str]) -> None:
    head, *rows = (line.split("  ") for line in dma("list").split("\n\n")[0].splitlines())
    cells = [[cell.strip() for cell in row if cell] for row in (head, *rows)]
    titles = "DEVICE ID DRIVER NODE IOMMU LIMIT SOURCE FOR NEEDED RESERVED RUNG STATE"
    edu = "0000:00:02.0 1234:11e8 - - none 28_bits 50-site.yaml:3 teach 16MiB 0B lowmem possible"
    raid = (
        "0000:00:0{}.0 9005:0285 aacraid 0 {} 31_bits driver raid_(pool_low) 64MiB 0B"
        " pending-reboot pending-reboot"
    )
    nobody = "0000:00:05.0 8086:1229 - - none - - - - - - -"
    lines = [titles, edu, raid.format(3, "passthrough"), raid.format(4, "translated"), nobody]
    assert cells == [[cell.replace("_", " ") for cell in line.split()] for line in lines]


def test_command_line_stands_below_the_table(dma: Callable[..., str]) -> None:
    assert dma("list").endswith(f"""
0000:00:05.0  8086:1229  -           -  none         -        -               -                  \
   -         -  -               -

add to the kernel's command line: memmap=80M!1968M
and once after that boot: {THEN}
""")


def test_json(dma: Callable[..., str], folder: Path) -> None:
    found = by_name(dma("list", "--json"))
    assert found["0000:00:02.0"] == {
        "device": "0000:00:02.0",
        "bus": "pci",
        "path": "/devices/pci0000:00/0000:00:02.0",
        "id": "1234:11e8",
        "subsystem": None,
        "class": "00ff00",
        "modalias": None,
        "driver": None,
        "node": None,
        "masks": {"dma": 32, "coherent": 32},
        "iommu": "none",
        "iommu_group": None,
        "limit": {
            "bits": 28,
            "address": 0xFFFFFFF,
            "source": "policy",
            "place": f"{folder}/config/zones.d/50-site.yaml:3",
            "reason": "its data sheet",
        },
        "reservation": "teach",
        "pool": None,
        "needed": 16 * MIB,
        "name": "teach@0000:00:02.0",
        "reserved": 0,
        "rung": "lowmem",
        "state": "possible",
        "why": "1.9GiB of DMA32 are free, of which 1.8GiB may lie above the limit",
        "error": None,
        "kernel_words": None,
    }


def test_json_of_others(dma: Callable[..., str]) -> None:
    found = by_name(dma("list", "--json"))
    raid = found["0000:00:03.0"]
    assert (raid["pool"], raid["iommu"], raid["iommu_group"]) == ("low", "passthrough", 1)
    assert (raid["kernel_words"], raid["state"]) == ("memmap=80M!1968M", "pending-reboot")
    assert raid["limit"]["source"] == "driver"
    assert raid["limit"]["place"] == "aacraid"
    plain = found["0000:00:05.0"]
    assert plain["limit"]["source"] is None
    assert "no driver" in plain["limit"]["reason"]
    keys = ("reservation", "needed", "rung", "state", "why", "error")
    assert [plain[key] for key in keys] == [None] * 6


def test_platform_devices_are_listed_where_something_is_known(
    dma: Callable[..., str], folder: Path
) -> None:
    assert "pcspkr" not in dma("list")
    more = "dma: {quirks: [{match: {modalias: 'platform:pcs*'}, limit: 24}]}"
    write(folder, {"config/zones.d/60.yaml": more})
    assert by_name(dma("list", "--json"))["pcspkr"]["limit"]["bits"] == 24


def test_what_is_held_without_a_device(dma: Callable[..., str], folder: Path) -> None:
    more = "dma: {reservations: {spare: {match: {driver: x}, size: 1MiB, hold: true, limit: 30}}}"
    write(folder, {"config/zones.d/60.yaml": more})
    found = json.loads(dma("list", "--json"))
    assert (found[-1]["device"], found[-1]["path"]) == (None, None)
    assert (found[-1]["reservation"], found[-1]["state"]) == ("spare", "possible")
    assert found[0].keys() == found[-1].keys()
    assert "\nnone there " in dma("list")


def test_troubles_are_told_below(dma: Callable[..., str], folder: Path) -> None:
    more = """dma:
  quirks: [{match: {driver: aacraid}, limit: 31}]
  reservations:
    big: {match: {id: 8086:1229}, size: 4GiB, limit: 31}
    held: {match: {driver: x}, size: 1MiB, hold: true}
    no: {match: {class: 00ff, id: 1234:11e8}, size: 128MiB, rungs: cma}
"""
    write(folder, {"config/zones.d/60.yaml": more})
    text = dma("list")
    assert text.endswith(f"""

0000:00:02.0: no rung that may be tried holds
0000:00:05.0: [too-little-below] 4096MiB are wanted below 31 bits, and 2047MiB of memory lie there (ask for less)
held: [limit-unknown] held is to be held while no such device is there, and has no limit (give `limit` in the reservation, or a quirk)
add to the kernel's command line: memmap=80M!1968M
and once after that boot: {THEN}
""")  # noqa: E501


def test_a_contradiction_names_both_places(dma: Callable[..., str], folder: Path) -> None:
    more = """dma:
  quirks:
    - {match: {path: "*:03.0"}, limit: 31}
    - {match: {path: "*00:00:03.0"}, limit: 30}
"""
    write(folder, {"config/zones.d/60.yaml": more})
    path = f"{folder}/config/zones.d/60.yaml"
    (line,) = [each for each in dma("list").splitlines() if "[dma-contradiction]" in each]
    assert line.startswith(f"0000:00:03.0: [dma-contradiction] {path}:3 and {path}:4 name")


def test_several_command_lines_are_one(dma: Callable[..., str], folder: Path) -> None:
    more = """dma:
  reservations:
    more: {match: {id: 8086:1229}, size: 64MiB, limit: 31, rungs: pending-reboot}
"""
    write(folder, {"config/zones.d/60.yaml": more})
    text = dma("list")
    assert "command line: memmap=80M!1968M memmap=80M!1872M\n" in text
    assert text.endswith(f"after that boot: {THEN}\nand once after that boot: {afterwards(MORE)}\n")


def test_what_this_boot_set_aside_needs_no_words(dma: Callable[..., str], folder: Path) -> None:
    there = IOMEM.replace("-7fffffff", "-7affffff") + "7b000000-7fffffff : Persistent Memory\n"
    write(folder, {"proc/iomem": there, "proc/cmdline": "quiet memmap=80M!1968M"})
    assert dma("list").endswith(f"\n\nif nobody has made use of it: {THEN}\n")
    assert by_name(dma("list", "--json"))["0000:00:03.0"]["kernel_words"] is None


def test_explain(dma: Callable[..., str], folder: Path) -> None:
    text = dma("explain", "00:03.0")
    assert text.startswith(
        """\
DEVICE      0000:00:03.0
path        /devices/pci0000:00/0000:00:03.0
id          9005:0285
subsystem   -
class       -
driver      aacraid
node        0
masks       32 bits, coherent 31
iommu       passthrough
limit       31 bits
known from  aacraid
because     -
wanted for  raid
needed      64MiB
below       31 bits
reserved    0B
state       pending-reboot

RUNG            COULD HOLD  WHY
iommu           no          the policy does not allow it
devdax          no          no device-dax region that programs could map
cma             no          the policy does not allow it
"""
    )
    assert text.endswith(
        f"""
promised: Nothing before the next boot; after it, what `devdax` does.
not promised: That the words fit after the machine's memory, firmware or initial ramdisk has \
changed.
add to the kernel's command line: memmap=80M!1968M
and once after that boot: {THEN}
"""
    )
    told = json.loads(dma("explain", "0000:00:03.0", "-o", "json"))
    assert [each["rung"] for each in told["rungs"]][-1] == "pending-reboot"
    assert [each["holds"] for each in told["rungs"]] == [False] * 6 + [True]
    assert {"why", "promises", "cannot_promise"} <= told["rungs"][0].keys()
    assert told["state"] == "pending-reboot"


def test_explain_what_nothing_is_wanted_for(dma: Callable[..., str]) -> None:
    text = dma("explain", "0000:00:05.0")
    assert "\nlimit       unknown\n" in text
    assert "RUNG" not in text
    assert text.endswith("\n\nnothing is wanted for it; --size tells what could be had\n")
    assert "driver      none\n" in dma("explain", "pcspkr")
    assert "masks       -\n" in dma("explain", "pcspkr")


def test_explain_as_if(dma: Callable[..., str]) -> None:
    text = dma("explain", "00:05.0", "--size", "300MiB", "--limit", "31")
    assert "\nbelow       31 bits\n" in text
    assert "\nlowmem          yes         1.9GiB of DMA32 are free, and 16MiB are promised" in text
    text = dma("explain", "00:05.0", "--size", "300MiB", "--limit", "0x3fffffff")
    assert "\nbelow       30 bits\n" in text
    text = dma("explain", "00:05.0", "--size", "300MiB", "--limit", "40")
    assert "\nnothing is needed: with 40 bits all memory of this machine can be reached\n" in text
    refused = dma("explain", "00:05.0", "--size", "300MiB")
    assert "[limit-unknown] nobody knows how far 0000:00:05.0 reaches" in refused
    # Whatever the policy wants for it.
    assert "\nneeded      1MiB\n" in dma("explain", "00:03.0", "--size", "1MiB")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("00:09.0",), 1, "zonectl: [unknown-device] there is no device '00:09.0'"),
        (("00:05.0", "--limit", "31"), 2, "zonectl: [usage] --limit needs --size"),
        (("00:05.0", "--size", "x"), 1, "zonectl: [bad-size]"),
        (("00:05.0", "--size", "1MiB", "--limit", "9"), 1, "zonectl: [bad-input] 9 is no number"),
        (("00:05.0", "--size", "1MiB", "--limit", "x"), 1, "zonectl: [bad-input] 'x' is no limit"),
        (("00:05.0", "--size", "1MiB", "--limit", "9" * 5000), 1, "zonectl: [bad-input]"),
    ],
)
def test_bad_input(
    zonectl: Callable[..., Ran],
    folder: Path,
    arguments: tuple[str, ...],
    status: int,
    message: str,
) -> None:
    found = zonectl("dma", "explain", *arguments, "--sysroot", str(folder))
    assert (found.status, found.out) == (status, "")
    assert found.err.startswith(message)


def test_a_policy_with_mistakes(zonectl: Callable[..., Ran], folder: Path) -> None:
    write(folder, {"config/zones.d/60.yaml": "dma: {quirks: 1}"})
    policy = ("--config", str(folder / "config"))
    found = zonectl("dma", "list", "--sysroot", str(folder), *policy)
    assert (found.status, found.out) == (1, "")
    assert "60.yaml:1: dma.quirks: 1 is not a list" in found.err


def test_policy_of_the_standard_folders(
    zonectl: Callable[..., Ran], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "DIRECTORIES", (folder / "config",))
    assert (
        by_name(zonectl("dma", "list", "--sysroot", str(folder), "--json").out)["0000:00:02.0"][
            "limit"
        ]["bits"]
        == 28
    )


def test_memory_is_looked_at_only_where_something_is_wanted(
    dma: Callable[..., str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_root: object) -> None:
        raise AssertionError

    monkeypatch.setattr("zoned.kernel.dma_offer.read_offer", fail)
    (folder / "config/zones.d/50-site.yaml").unlink()
    assert "0000:00:03.0" in dma("list")
    with pytest.raises(AssertionError):
        dma("explain", "00:03.0", "--size", "1MiB")


def test_without_root_it_is_said_that_much_is_unseen(
    zonectl: Callable[..., Ran],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    policy = ("--config", str(folder / "config"))
    recorded = zonectl("dma", "list", "--sysroot", str(folder), *policy).out
    assert "only root" not in recorded
    held = "dma: {reservations: {a: {match: {driver: x}, size: 1MiB, hold: true, limit: 30}}}"
    write(folder, {"held/zones.d/50.yaml": held})
    here = zonectl("dma", "list", "--config", str(folder / "held")).out
    assert here.endswith("only root can see all that memory could come from\n")


def test_what_is_unsure_is_told() -> None:
    verdict = Verdict(state=DmaState.UNSURE, why="blocks: only root may know")
    assert reports_notes([Report(device=None, limit=Limit(), verdict=verdict)]) == [
        "",
        "none there: blocks: only root may know",
    ]
