# SPDX-License-Identifier: Apache-2.0
"""The lab's own promises: what every other lab test stands on."""

import hashlib
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.lab.edu import edus
from tests.lab.harness.errors import CommandFailed, LabError, LabLost
from tests.lab.harness.guest import Guest
from tests.lab.harness.image import get_image
from tests.lab.harness.places import PROJECT
from tests.lab.harness.recipe import PYTHON
from tests.lab.harness.wait import wait_until

NODES = "/sys/devices/system/node"
# MiB of a node that the kernel's image, its early tables and its DMA bounce buffer may keep.
KEPT = 192


def test_machine_is_up(guest: Guest, release: str) -> None:
    assert guest.boot_state == "running", guest.run(["systemctl", "--failed"]).stdout
    assert guest.read("/proc/1/comm").strip() == "systemd"
    assert f"VERSION_CODENAME={release}" in guest.read("/etc/os-release")
    assert guest.check(["python3", "--version"]).startswith(f"Python {PYTHON[release]}.")


def test_udev_answers(guest: Guest) -> None:
    guest.check(["udevadm", "control", "--ping"])
    guest.check(["udevadm", "settle", "--timeout=60"])


def test_nodes_in_sysfs(guest: Guest) -> None:
    wanted = guest.topology.nodes
    full = [number for number, node in enumerate(wanted) if node.memory]
    assert guest.read(f"{NODES}/has_memory").strip() == "0-3"
    assert guest.read(f"{NODES}/possible").strip() == f"0-{len(wanted) - 1}"
    for number in full:
        row = guest.read(f"{NODES}/node{number}/distance").split()
        assert [int(word) for word in row] == [guest.topology.distances[number][n] for n in full]
        assert guest.read(f"{NODES}/node{number}/cpulist").strip() == str(number)
        total = re.search(r"MemTotal: +(\d+) kB", guest.read(f"{NODES}/node{number}/meminfo"))
        assert total
        assert wanted[number].memory - KEPT < int(total[1]) >> 10 <= wanted[number].memory


def test_nodes_by_numactl(guest: Guest) -> None:
    text = guest.check(["numactl", "-H"])
    sizes = [int(size) for size in re.findall(r"^node \d+ size: (\d+) MB", text, re.MULTILINE)]
    assert len(sizes) == 4
    assert all(1024 - KEPT < size <= 1024 for size in sizes)
    rows = re.findall(r"^ +\d+: +(.+)$", text, re.MULTILINE)
    table = [[int(word) for word in row.split()] for row in rows]
    assert table == [list(row[:4]) for row in guest.topology.distances[:4]]


def test_dimm_makes_a_node_appear_and_go(guest: Guest) -> None:
    policy = "/sys/devices/system/memory/auto_online_blocks"
    before = guest.read(policy)
    assert not guest.exists(f"{NODES}/node4")
    # Kernel data in the new blocks would keep them from going again.
    guest.write(policy, "online_movable")
    guest.plug_dimm("dimm4", node=4, size=512)
    wait_until(lambda: guest.read(f"{NODES}/has_memory").strip() == "0-4", "memory of node 4")
    # Its blocks come one by one.
    size = "node 4 size: 512 MB"
    wait_until(lambda: size in guest.check(["numactl", "-H"]), "all of node 4")
    row = guest.read(f"{NODES}/node4/distance").split()
    assert tuple(int(word) for word in row) == guest.topology.distances[4]
    guest.unplug_dimm("dimm4")
    wait_until(lambda: not guest.exists(f"{NODES}/node4"), "the end of node 4")
    guest.write(policy, before)


def test_edu_device(guest: Guest) -> None:
    (line,) = guest.check(["lspci", "-n", "-d", "1234:11e8"]).splitlines()
    assert "00ff" in line


def test_device_plugged_into_a_port_reaches_udev(guest: Guest) -> None:
    guest.qmp("device_add", driver="edu", id="edu2", bus="rp1")
    wait_until(lambda: len(edus(guest)) == 2, "a second edu device")
    address = max(edus(guest))
    info = ["udevadm", "info", "--query=property", f"/sys/bus/pci/devices/{address}"]
    wait_until(lambda: "USEC_INITIALIZED=" in guest.check(info), "udev's record of it")
    guest.qmp("device_del", id="edu2")
    wait_until(lambda: len(edus(guest)) == 1, "the end of the second edu")


def test_image_stays_pristine(guest: Guest, release: str) -> None:
    disk = get_image(release).disk
    changed = disk.stat().st_mtime_ns
    guest.shell("echo lab > /marker; sync")
    assert _on_disk(disk.as_posix(), "/etc/hostname")
    assert not _on_disk(disk.as_posix(), "/marker")
    assert disk.stat().st_mtime_ns == changed
    guest.shell("rm /marker")


def _on_disk(disk: str, path: str) -> bool:
    command = ["debugfs", "-R", f"stat {path}", disk]
    return "Inode:" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.on("bookworm")
def test_status_and_output(guest: Guest) -> None:
    done = guest.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert guest.run(["sh", "-c", "kill -TERM $$"]).returncode == -signal.SIGTERM
    assert guest.run(["no-such-command"]).returncode == 127
    with pytest.raises(CommandFailed, match=r"status 1\n(.|\n)*No such file"):
        guest.check(["cat", "/no/such/file"])
    with pytest.raises(CommandFailed):
        guest.shell("false\ntrue")


@pytest.mark.on("bookworm")
def test_environment_user_and_directory(guest: Guest) -> None:
    show = ["sh", "-c", "pwd; id -un; echo $COLOUR"]
    done = guest.run(show, user="nobody", env={"COLOUR": "red"}, cwd="/usr")
    assert done.stdout == "/usr\nnobody\nred\n"
    assert "systemd" not in guest.check(["env"]).lower()


@pytest.mark.on("bookworm")
def test_much_text_goes_in_and_out(guest: Guest) -> None:
    text = "".join(f"{number:07}\n" for number in range(131072))
    assert guest.check(["cat"], input=text) == text
    digest = guest.check(["sha256sum"], input=text).split()[0]
    assert digest == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.on("bookworm")
def test_too_much_output_is_an_error(guest: Guest) -> None:
    with pytest.raises(LabError, match="16 MB"):
        guest.run(["head", "-c", "18000000", "/dev/zero"])


@pytest.mark.on("bookworm")
def test_files_and_the_shared_directory(guest: Guest) -> None:
    guest.write("/run/lab-file", "a\nb")
    assert guest.read("/run/lab-file") == "a\nb"
    (guest.share / "from-host").write_text("hello\n")
    assert guest.read("/mnt/host/from-host") == "hello\n"
    guest.write("/mnt/host/from-guest", "hi\n")
    assert (guest.share / "from-guest").read_text() == "hi\n"
    guest.check(["rm", "/run/lab-file", "/mnt/host/from-host", "/mnt/host/from-guest"])


@pytest.mark.on("bookworm")
def test_commands_at_once(guest: Guest) -> None:
    reader = guest.start(["sh", "-c", "mkfifo /run/lab-pipe; cat /run/lab-pipe"])
    sleeper = guest.start(["sleep", "1000"])
    wait_until(lambda: guest.exists("/run/lab-pipe"), "the pipe")
    guest.write("/run/lab-pipe", "met\n")
    assert reader.wait().stdout == "met\n"
    assert guest.read(f"/proc/{sleeper.pid}/comm") == "sleep\n"
    sleeper.signal(signal.SIGINT)
    assert sleeper.wait().returncode == -signal.SIGINT
    guest.check(["rm", "/run/lab-pipe"])


@pytest.mark.on("bookworm")
def test_timeout_kills_the_whole_group(guest: Guest) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        guest.run(["sh", "-c", "sleep 4321 & sleep 4321"], timeout=2)
    assert guest.run(["pgrep", "-f", "^sleep 4321"]).returncode == 1


@pytest.mark.on("bookworm")
def test_reclaim_ends_what_a_test_left(guest: Guest) -> None:
    called: list[Guest] = []
    guest.on_reclaim.append(called.append)
    left = guest.start(["sh", "-c", "sleep 5432 & sleep 5432"])
    guest.reclaim()
    guest.on_reclaim.remove(called.append)
    assert left.wait().returncode == -signal.SIGKILL
    assert guest.run(["pgrep", "-f", "^sleep 5432"]).returncode == 1
    assert called == [guest]


@pytest.mark.on("bookworm")
def test_refused_qmp_command(guest: Guest) -> None:
    with pytest.raises(LabError, match="no-such-device"):
        guest.qmp("device_add", driver="no-such-device", id="x")


@pytest.mark.on("bookworm")
@pytest.mark.spoils
def test_dead_guest_is_lab_lost(guest: Guest) -> None:
    process = guest.start(["sleep", "1000"])
    guest.machine.process.kill()
    with pytest.raises(LabLost, match="console"):
        process.wait()
    with pytest.raises(LabLost):
        guest.run(["true"])
    with pytest.raises(LabLost):
        guest.qmp("query-status")


OWNER = """
import sys
from pathlib import Path
from tests.lab.harness.image import get_image
from tests.lab.harness.qemu import Machine
from tests.lab.harness.topology import ONE_NODE
machine = Machine(get_image(sys.argv[1]), ONE_NODE, Path(sys.argv[2]), acceleration="tcg")
print(machine.process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.on("bookworm")
def test_qemu_dies_with_its_owner(guest: Guest, release: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, release, str(tmp_path / "machine")]
    with subprocess.Popen(
        command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout
        qemu = psutil.Process(int(owner.stdout.readline()))
        assert "qemu" in qemu.name()
        owner.kill()
    wait_until(lambda: not qemu.is_running() or qemu.status() == psutil.STATUS_ZOMBIE, "its end")
