# SPDX-License-Identifier: Apache-2.0
"""What zonectl says of the machine, next to what the usual tools say."""

import json
import re

from tests.lab.harness.guest import PYTHON, Guest
from tests.lab.harness.wait import wait_until
from tests.lab.test_zones import ask


def test_nodes_agree_with_numactl(zoned_guest: Guest) -> None:
    text = zoned_guest.check(["numactl", "-H"])
    found = ask(zoned_guest, "topology")["nodes"]
    sizes = {int(n): int(mb) for n, mb in re.findall(r"node (\d+) size: (\d+) MB", text)}
    cpus = {int(n): cpu.strip() for n, cpu in re.findall(r"node (\d+) cpus:(.*)", text)}
    assert {node["id"]: node["memory"]["total"] >> 20 for node in found} == sizes
    assert {node["id"]: node["cpus"] for node in found} == cpus
    rows = re.findall(r"^ +(\d+): +(.+)$", text, re.MULTILINE)
    table = {int(n): [int(word) for word in row.split()] for n, row in rows}
    assert {node["id"]: list(node["distances"].values()) for node in found} == table


def test_blocks_agree_with_lsmem(zoned_guest: Guest) -> None:
    columns = "RANGE,SIZE,STATE,NODE,ZONES"
    told = json.loads(zoned_guest.check(["lsmem", "-J", "-b", "-a", "-o", columns]))["memory"]
    found = ask(zoned_guest, "blocks", "list")
    assert [f"0x{block['start']:016x}" for block in found] == [
        each["range"].partition("-")[0] for each in told
    ]
    assert [block["size"] for block in found] == [int(each["size"]) for each in told]
    assert [block["state"] for block in found] == [each["state"] for each in told]
    assert [block["node"] for block in found] == [int(each["node"]) for each in told]
    assert [block["zones"] for block in found] == [
        ["none"] if each["zones"] == "None" else each["zones"].split("/") for each in told
    ]


def test_plugged_memory_is_noticed(zoned_guest: Guest) -> None:
    policy = "/sys/devices/system/memory/auto_online_blocks"
    before = zoned_guest.read(policy)
    zoned_guest.write(policy, "online_movable")
    cursor = zoned_guest.check(["journalctl", "-u", "zoned", "-n0", "--show-cursor"])
    cursor = cursor.strip().rpartition("-- cursor: ")[2]
    zoned_guest.plug_dimm("plugged", node=4, size=256)
    seen = ["journalctl", "-u", "zoned", "--after-cursor", cursor, "-o", "cat"]
    wait_until(lambda: "event: online memory" in zoned_guest.check(seen), "the daemon's event")
    wait_until(lambda: len(ask(zoned_guest, "topology")["nodes"]) == 5, "node 4")
    node = ask(zoned_guest, "topology")["nodes"][4]
    assert node["has_normal_memory"] is False
    assert node["has_cpu"] is False
    assert node["distances"]["0"] == 40
    done = zoned_guest.run(["zonectl", "create", "x", "--size", "64MiB", "--nodes", "4"])
    assert "[movable-only]" in done.stderr
    zoned_guest.unplug_dimm("plugged")
    wait_until(lambda: len(ask(zoned_guest, "topology")["nodes"]) == 4, "the end of node 4")
    zoned_guest.write(policy, before)


_FLOOD = """
import pathlib, sys
from zoned.kernel import udev

udev._BUFFER = 1
device, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
monitor = udev.EventMonitor(("memory",))
for number in (count, 1):
    for _ in range(number):
        device.write_text("change")
    print(*monitor.drain(), sep=",")
"""


def test_events_that_were_lost_are_noticed_and_the_next_ones_heard(zoned_guest: Guest) -> None:
    device = "/sys/devices/system/memory/memory8"
    told = zoned_guest.check([PYTHON, "-c", _FLOOD, f"{device}/uevent", "40"])
    flood, after = (line.split(",") for line in told.splitlines())
    assert flood.count("overflow") == 1
    assert len(flood) < 40
    assert after == ["change memory8"]
