# SPDX-License-Identifier: Apache-2.0
"""scripts/up and scripts/down on a fresh machine, one node, nothing but Python and root."""

import re

import pytest

from tests.lab.harness.guest import Guest
from tests.lab.harness.install import GUEST_PROJECT, OFFLINE
from tests.lab.harness.wait import wait_until
from tests.lab.programs import cgroup_of
from tests.lab.test_base_zones import AUTO, POLICY
from tests.lab.test_zones import ask

RULE = "/usr/local/lib/udev/rules.d/70-zoned-dma.rules"
_LIMITS = "cd /sys/fs/cgroup/zone.slice/zone-kept.slice; cat memory.max memory.min cgroup.events"

pytestmark = pytest.mark.topology("one_node")


def test_plain_machine(guest: Guest) -> None:
    assert guest.read("/sys/devices/system/node/online").strip() == "0"
    assert guest.read("/sys/devices/system/cpu/online").strip() == "0-1"
    assert "SRAT" not in guest.check(["ls", "/sys/firmware/acpi/tables"])


def test_up_again_and_down(zoned_guest: Guest) -> None:
    guest = zoned_guest
    first = guest.facts["zoned"]
    # The tour: what the program itself saw.
    assert re.search(r"the program sees its anonymous pages: \d+ MiB on node 0\n", first), first
    assert guest.check(["systemctl", "is-active", "zoned"]).strip() == "active"
    for unit in ("zoned", "zoned-early"):
        assert guest.check(["systemctl", "is-enabled", unit]).strip() == "enabled"
    assert guest.exists(RULE)
    for page in ("zonectl.1", "zoned.8", "zoned.yaml.5", "zoned-zones.7"):
        guest.check(["man", "-w", *reversed(page.rsplit(".", 1))])
    pid = int(guest.check(["systemctl", "show", "-P", "MainPID", "zoned"]))
    assert cgroup_of(guest, pid) == "/zoned.service"

    # What is in a zone does not notice that another version is installed.
    guest.check(["zonectl", "create", "kept", "--size", "64MiB"])
    guest.start(["zonectl", "run", "kept", "--", "sleep", "infinity"])
    wait_until(lambda: ask(guest, "show", "kept")["members"] == 1, "a member")
    limits = guest.shell(_LIMITS)
    guest.check([f"{GUEST_PROJECT}/scripts/up"], env=OFFLINE, cwd=GUEST_PROJECT, timeout=600)
    assert int(guest.check(["systemctl", "show", "-P", "MainPID", "zoned"])) != pid
    assert ask(guest, "show", "kept")["members"] == 1
    assert guest.shell(_LIMITS) == limits
    guest.check(["zonectl", "destroy", "kept", "--kill"])

    # What it has changed is undone while there is a daemon to do so, and not forgotten without.
    before = guest.read(AUTO)
    guest.write(POLICY, "hotplug: {online: zoned}\n")
    guest.check(["zonectl", "reload"])
    assert guest.read(AUTO).strip() == "offline"
    guest.check(["systemctl", "stop", "zoned"])
    assert guest.run([f"{GUEST_PROJECT}/scripts/down"], cwd=GUEST_PROJECT).returncode == 1
    assert guest.exists("/run/zoned/ledger.json")
    guest.check(["systemctl", "start", "zoned"])
    guest.check(["rm", POLICY])
    guest.check([f"{GUEST_PROJECT}/scripts/down"], cwd=GUEST_PROJECT)
    assert guest.read(AUTO) == before
    guest.check([f"{GUEST_PROJECT}/scripts/down"], cwd=GUEST_PROJECT)
    del guest.facts["zoned"]
    guest.on_reclaim.clear()
    assert guest.run(["zonectl", "--version"]).returncode == 127
    for unit in ("zoned", "zoned-early"):
        assert guest.run(["systemctl", "cat", unit]).returncode != 0
    left = guest.shell("ls -d /opt/zoned /usr/lib/zoned /var/lib/zoned /run/zoned 2>/dev/null || :")
    assert left == ""
    assert guest.check(["find", "/etc", "/usr/local", "-name", "*zoned*"]) == ""
    assert guest.check(["find", "/sys/fs/cgroup", "-name", "*zone*"]) == ""
