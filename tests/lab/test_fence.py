# SPDX-License-Identifier: Apache-2.0
"""The fence of zones of backing `node`: nobody else gets memory of their node."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.following import PARTIAL
from tests.lab.harness.guest import Guest
from tests.lab.harness.wait import wait_until
from tests.lab.loads import command
from tests.lab.programs import anonymous_by_node, cgroup_of, pids, start_hog

MIB = 1 << 20
ROOT = "/sys/fs/cgroup"
NODE = 3
_STORE = "/var/lib/zoned/zones.json"
_DROP_INS = "find /run/systemd/system.control /run/systemd/transient -name '*MemoryNodes.conf'"
_IN_USER = ["systemd-run", "--scope", "--slice=user.slice", "--quiet"]
_NEAR = ["taskset", "-c", str(NODE)]
_PRESSURE = 60
"""Seconds"""
_STRAY_PAGES = 16
_RUNNER = "lab-runner.service"


_GROUPS = """
import json, pathlib, sys
found = {}
for group in filter(pathlib.Path.is_dir, pathlib.Path(sys.argv[1]).iterdir()):
    found[group.name] = each = []
    for name in "cpuset.mems", "cpuset.mems.effective":
        try:
            each.append((group / name).read_text().strip())
        except OSError:  # it has no such controller, or has just ended
            each.append("")
print(json.dumps(found))
"""


def groups(guest: Guest) -> dict[str, tuple[str, str]]:
    """Return each group below the root: the nodes that were written, and those in force."""
    found: dict[str, tuple[str, str]] = json.loads(guest.python(_GROUPS, ROOT))
    return {name: (written, effective) for name, (written, effective) in found.items()}


def outsiders(guest: Guest) -> dict[str, tuple[str, str]]:
    """Return the groups that are to be fenced."""
    exempt = {"zone.slice", "zoned.service"}
    return {name: each for name, each in groups(guest).items() if name not in exempt}


def ids(text: str) -> set[int]:
    """Return the numbers in a list as the kernel writes it."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def confined(guest: Guest) -> dict[str, tuple[str, str]]:
    """Return who may not use the zone's node; without the controller nobody is confined."""
    return {
        name: each
        for name, each in outsiders(guest).items()
        if each[1] and NODE not in ids(each[1])
    }


def property_of(guest: Guest, unit: str) -> str:
    """Return the nodes of its own that a unit has."""
    return properties(guest, [unit])[unit]


def properties(guest: Guest, units: list[str]) -> dict[str, str]:
    """Return the nodes of its own that each unit has."""
    asked = ["systemctl", "show", "-p", "Id", "-p", "AllowedMemoryNodes", "--", *units]
    found = {}
    for told in guest.check(asked).split("\n\n"):
        values = dict(line.split("=", 1) for line in told.splitlines() if line)
        found[values["Id"]] = values["AllowedMemoryNodes"]
    return found


def alerts(guest: Guest) -> list[dict[str, Any]]:
    """Return what zoned finds wrong."""
    told = guest.run(["zonectl", "status", "-o", "json"]).stdout
    found: list[dict[str, Any]] = json.loads(told)["alerts"]
    return [each for each in found if each["code"].startswith("fence")]


def wait_until_fenced(guest: Guest) -> None:
    """Wait until nobody outside may use the zone's node."""

    def loose() -> list[str]:
        return [name for name, each in outsiders(guest).items() if NODE in ids(each[1])]

    wait_until(lambda: not loose(), f"nobody may use node {NODE}")
    # Who appeared a moment ago is an alert until the next look.
    wait_until(lambda: not alerts(guest), "the fence is whole")


def create(guest: Guest) -> None:
    words = ["--size", "512MiB", "--nodes", str(NODE), "--backing", "node"]
    done = guest.run(["zonectl", "create", "db", *words], timeout=300)
    # A page or two of somebody's may have stayed: the fence itself moves them.
    assert done.returncode in {0, PARTIAL}, done


def destroy(guest: Guest) -> None:
    guest.check(["zonectl", "destroy", "db", "--kill"])


def on_the_node(guest: Guest) -> dict[str, int]:
    """Return who has anonymous pages on the zone's node, but for the zone's members.

    The lab's runner does not count: it forks all the time, and what it shares with a child at the
    wrong moment the kernel leaves where it is.
    """
    exempt = ("zone-db.slice", _RUNNER)
    found = everybody_on_the_node(guest)
    return {who: pages for who, pages in found.items() if not any(each in who for each in exempt)}


def everybody_on_the_node(guest: Guest) -> dict[str, int]:
    """Return who has how many anonymous pages on the zone's node."""
    found: dict[str, int] = json.loads(guest.check(command(guest, "watch", "anonymous", NODE)))
    return found


def meminfo(guest: Guest, what: str) -> int:
    """Return MiB of a line of the node's meminfo."""
    text = guest.read(f"/sys/devices/system/node/node{NODE}/meminfo")
    found = re.search(rf" {what}: +(\d+) kB", text)
    assert found
    return int(found[1]) >> 10


@pytest.fixture
def fenced(zoned_guest: Guest) -> Guest:
    """A guest with a zone that has node 3 for itself."""
    create(zoned_guest)
    wait_until_fenced(zoned_guest)
    return zoned_guest


@pytest.fixture
def stopping(zoned_guest: Guest) -> Iterator[list[str]]:
    """Units that are stopped after the test, and forgotten."""
    units: list[str] = []
    yield units
    for unit in units:
        zoned_guest.run(["systemctl", "stop", unit])
        zoned_guest.run(["systemctl", "revert", unit])


@pytest.mark.on("trixie")
def test_under_pressure_nobody_else_has_pages_on_the_node(zoned_guest: Guest) -> None:
    guest = zoned_guest
    before = start_hog(guest, 200, _NEAR, "before")
    assert anonymous_by_node(guest, before.pid)[NODE] >= 150
    create(guest)
    wait_until_fenced(guest)
    assert NODE not in anonymous_by_node(guest, before.pid)
    # The kernel leaves a page that somebody holds at the moment in which it moves the others.
    stayed = on_the_node(guest)
    assert sum(stayed.values()) <= _STRAY_PAGES, stayed

    def came() -> list[str]:
        return [who for who, pages in on_the_node(guest).items() if pages > stayed.get(who, 0)]

    allocated = given_out(guest)
    # All together fits on the other nodes, just so: else everybody would wait for page cache.
    churn = [*("stress-ng", "--vm", "2", "--vm-bytes", "400m", "--timeout", f"{_PRESSURE}s")]
    waves = [
        guest.start([*_NEAR, *churn, "--page-in"]),
        guest.start([*_IN_USER, *_NEAR, *churn, "--fork", "1"]),
    ]
    service, user = waves
    wait_until(lambda: "user.slice" in cgroup_of(guest, user.pid), "pressure from user.slice")
    assert "system.slice" in cgroup_of(guest, service.pid)
    files = meminfo(guest, "FilePages")
    guest.shell(
        f"taskset -c {NODE} dd if=/dev/zero of=/var/tmp/cache bs=1M count=200 status=none;"
        "rm /var/tmp/cache"
    )
    member = start_hog(guest, 300, ["zonectl", "run", "db", "--"], "member")
    looks = 0
    while any(wave.pid in pids(guest) for wave in waves):
        # The daemon's own threads follow one by one.
        assert [who for who in came() if "/zoned.service" not in who] == []
        looks += 1
    for wave in waves:
        assert wave.wait().returncode == 0, wave.done
    allocated = given_out(guest) - allocated
    print(f"\n{allocated >> 8} MiB of pages given out in {_PRESSURE} s, {looks} looks")
    assert looks
    wait_until(lambda: not came(), "zoned itself has no pages there")
    assert set(anonymous_by_node(guest, member.pid)) == {NODE}
    runners = sum(n for who, n in everybody_on_the_node(guest).items() if _RUNNER in who) >> 8
    assert 300 <= meminfo(guest, "AnonPages") - runners <= 320
    assert meminfo(guest, "FilePages") - files < 32


@pytest.mark.on("trixie")
def test_a_zone_reclaims_on_its_own_node_alone(fenced: Guest) -> None:
    """It reads a file that is larger than the zone, twice: the second time it has to be fetched."""
    fenced.check(["truncate", "-s", "700M", "/var/tmp/sparse"])
    before = {node: refaults(fenced, node) for node in range(4)}
    read = ["sh", "-c", "cat /var/tmp/sparse /var/tmp/sparse > /dev/null"]
    fenced.check(["zonectl", "run", "db", "--", *read])
    after = {node: refaults(fenced, node) - before[node] for node in range(4)}
    group = f"{ROOT}/zone.slice/zone-db.slice/memory.stat"
    stolen = vmstat(fenced, group, "pgsteal")
    print(f"\npages fetched again, by node: {after}; the zone reclaimed {stolen}")
    assert stolen >= (700 - 512) << 8
    assert after[NODE] > 0
    assert after[NODE] >= 0.9 * sum(after.values())
    fenced.check(["rm", "/var/tmp/sparse"])


def vmstat(guest: Guest, path: str, name: str) -> int:
    """Return a counter of one of the kernel's lists."""
    line = next(line for line in guest.read(path).splitlines() if line.startswith(f"{name} "))
    return int(line.split()[1])


def given_out(guest: Guest) -> int:
    """Return how many pages of any kind the kernel has given out since its start."""
    kinds = ("dma32", "normal", "movable")
    return sum(vmstat(guest, "/proc/vmstat", f"pgalloc_{kind}") for kind in kinds)


def refaults(guest: Guest, node: int) -> int:
    """Return how many pages of files a node had to fetch again, from its vmstat."""
    path = f"/sys/devices/system/node/node{node}/vmstat"
    return vmstat(guest, path, "workingset_refault_file")


@pytest.mark.on("trixie")
def test_who_appears_is_fenced(fenced: Guest, stopping: list[str]) -> None:
    stopping += ["fresh.service", "fresh.slice", "topper.service"]
    fenced.check(["systemd-run", "--slice=fresh.slice", "--unit=fresh", "sleep", "infinity"])
    fenced.check(["systemd-run", "--slice=-.slice", "--unit=topper", "sleep", "infinity"])
    fenced.check(["mkdir", f"{ROOT}/stranger"])
    try:
        wait_until_fenced(fenced)
        seen = outsiders(fenced)
        assert {"fresh.slice", "topper.service", "stranger"} <= seen.keys()
        assert {*fenced.check(["systemctl", "show", "-P", "Slice", "fresh"]).split()} == {
            "fresh.slice"
        }
        pid = fenced.check(["systemctl", "show", "-P", "MainPID", "fresh"]).strip()
        allowed = fenced.read(f"/proc/{pid}/status")
        assert f"Mems_allowed_list:\t{seen['fresh.slice'][1]}\n" in allowed

        # A unit that ends is fenced again when it comes back, and a reload changes nothing.
        fenced.check(["systemctl", "stop", "topper.service"])
        fenced.check(["systemd-run", "--slice=-.slice", "--unit=topper", "sleep", "infinity"])
        fenced.check(["systemctl", "daemon-reload"])
        fenced.check(["systemctl", "daemon-reexec"])
        wait_until_fenced(fenced)
    finally:
        fenced.check(["rmdir", f"{ROOT}/stranger"])


@pytest.mark.on("trixie")
def test_drift_is_mended(fenced: Guest) -> None:
    kept = property_of(fenced, "system.slice")
    assert NODE not in ids(kept.replace(" ", ","))
    assert ids(kept.replace(" ", ",")) >= {0, 1, 2}
    for drift in (
        "systemctl set-property --runtime system.slice AllowedMemoryNodes=",
        f"systemctl set-property --runtime system.slice AllowedMemoryNodes={NODE}",
        f"echo 0-{NODE} > {ROOT}/system.slice/cpuset.mems",
        "systemctl revert system.slice",
    ):
        fenced.shell(drift)
        wait_until_fenced(fenced)
        # Where only the unit's property is wrong the kernel has nothing to tell: looked at in time.
        fenced.check(["zonectl", "reload"])
        wait_until(lambda: property_of(fenced, "system.slice") == kept, f"mended after {drift}")


@pytest.mark.on("trixie")
def test_lifted_all_is_as_it_was(zoned_guest: Guest, stopping: list[str]) -> None:
    guest = zoned_guest
    stopping += ["own.service", "inner.service", "own.slice"]
    guest.check(
        ["systemd-run", "--slice=own.slice", "--unit=own", "sleep", "infinity"],
    )
    guest.check(["systemctl", "set-property", "--runtime", "own.slice", "AllowedMemoryNodes=1 3"])
    nodes = f"--property=AllowedMemoryNodes={NODE}"
    guest.check(["systemd-run", "--slice=own.slice", "--unit=inner", nodes, "sleep", "infinity"])
    guest.check(["mkdir", "-p", f"{ROOT}/stranger"])
    inner = f"{ROOT}/own.slice/inner.service/cpuset.mems.effective"
    wait_until(lambda: guest.read(inner).strip() == str(NODE), "the inner unit has its node")
    every = guest.read("/sys/devices/system/node/possible").strip()

    def state() -> dict[str, Any]:
        seen = outsiders(guest)
        return {
            "properties": properties(guest, sorted(name for name in seen if "." in name)),
            # The kernel does not empty the set of a group with processes: all nodes are the same.
            "groups": {
                name: ("" if written == every else written, effective)
                for name, (written, effective) in seen.items()
            },
            "drop-ins": sorted(guest.run(["sh", "-c", _DROP_INS]).stdout.split()),
        }

    try:
        before = state()
        assert before["groups"]["own.slice"] == (f"1,{NODE}", f"1,{NODE}")
        for _ in range(2):
            create(guest)
            wait_until_fenced(guest)
            assert state() != before
            # What it wants is not there any more: the kernel gives it what its slice has.
            assert groups(guest)["own.slice"] == ("1", "1")
            assert guest.read(inner).strip() == "1"
            destroy(guest)
            assert state() == before
            assert guest.read(inner).strip() == str(NODE)
            guest.check(["systemctl", "daemon-reload"])
            assert state() == before
    finally:
        guest.check(["rmdir", f"{ROOT}/stranger"])


@pytest.mark.on("trixie")
def test_a_daemon_that_was_killed_finds_its_fence(fenced: Guest, stopping: list[str]) -> None:
    stopping += ["late.service", "late.slice"]
    fenced.check(["systemctl", "kill", "-s", "KILL", "zoned"])
    fenced.run(["systemctl", "stop", "zoned"])
    fenced.check(["systemctl", "reset-failed", "zoned"])
    assert not [name for name, each in outsiders(fenced).items() if NODE in ids(each[1])]
    fenced.check(["systemd-run", "--slice=late.slice", "--unit=late", "sleep", "infinity"])
    assert NODE in ids(outsiders(fenced)["late.slice"][1])
    fenced.check(["systemctl", "set-property", "--runtime", "system.slice", "AllowedMemoryNodes="])

    fenced.check(["systemctl", "start", "zoned"])
    wait_until_fenced(fenced)

    # Killed once more, and meanwhile nobody wants the zone any longer.
    fenced.check(["systemctl", "kill", "-s", "KILL", "zoned"])
    fenced.run(["systemctl", "stop", "zoned"])
    fenced.check(["systemctl", "reset-failed", "zoned"])
    store = json.loads(fenced.read(_STORE))
    store["zones"] = [zone for zone in store["zones"] if zone["spec"]["name"] != "db"]
    fenced.write(_STORE, json.dumps(store))
    fenced.check(["systemctl", "start", "zoned"])
    assert confined(fenced) == {}
    assert json.loads(fenced.read("/run/zoned/ledger.json"))["fence"] == {}


@pytest.mark.on("trixie")
def test_the_daemon_keeps_off_and_is_not_confined(fenced: Guest) -> None:
    pid = fenced.check(["systemctl", "show", "-P", "MainPID", "zoned"]).strip()
    fenced.check(["zonectl", "list"])

    assert NODE in ids(
        next(
            line.split()[1]
            for line in fenced.read(f"/proc/{pid}/status").splitlines()
            if line.startswith("Mems_allowed_list")
        )
    )
    policies = {line.split()[1] for line in fenced.read(f"/proc/{pid}/numa_maps").splitlines()}
    # What the kernel maps for everybody has a policy of its own.
    assert policies - {"local"} == {"bind=static:0-2"}
    assert NODE not in anonymous_by_node(fenced, int(pid))


@pytest.mark.on("trixie")
def test_a_daemon_among_others_refuses(zoned_guest: Guest) -> None:
    guest = zoned_guest
    socket = "/run/byhand.socket"
    place = ["--socket", socket, "--state", "/run/byhand", "--group", "byhand"]
    daemon = guest.start(["zoned", "run", "--config", "/run/byhand", *place])
    wait_until(lambda: guest.exists(socket), "a daemon in system.slice")

    done = guest.run(
        [
            *("zonectl", "--socket", socket, "create", "own", "--size", "512MiB"),
            *("--nodes", str(NODE), "--backing", "node"),
        ]
    )

    assert done.returncode == 1, done
    assert "[fence-impossible] the daemon runs in system.slice" in done.stderr
    daemon.signal(15)
    daemon.wait()
    assert confined(guest) == {}
