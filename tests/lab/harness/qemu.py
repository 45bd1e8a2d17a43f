# SPDX-License-Identifier: Apache-2.0
"""One QEMU process with its monitor and its agent's channel."""

import contextlib
import logging
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qemu.qmp import ConnectError, ExecInterruptedError, QMPClient, QMPError, StateError
from qemu.qmp.events import EventListener
from qemu.qmp.message import Message

from tests.lab.harness.agent import Agent, new_client
from tests.lab.harness.errors import LabError, LabLost, LabUnavailable
from tests.lab.harness.image import Image
from tests.lab.harness.loop import Loop
from tests.lab.harness.runner import Runner
from tests.lab.harness.topology import Topology, qemu_arguments

# Whatever it logs as an error is raised as well.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)

PROGRAM = "qemu-system-x86_64"
_TOOLS = {PROGRAM: "qemu-system-x86", "qemu-img": "qemu-utils", "setpriv": "util-linux"}
# Emulated, what a newer processor can do costs more than it brings: a fifth level of page tables,
# and wide registers.
_EMULATED = "Nehalem,+pdpe1gb"
ACCELERATION = {
    "kvm": ("-accel", "kvm", "-cpu", "host"),
    "tcg": ("-accel", "tcg,thread=multi", "-cpu", _EMULATED),
}
# Where guests have to share processors, one thread for all of a guest's takes a fifth to a third
# less time of them: no processor waits in a loop for another one whose thread does not run.
_SHARED = {"tcg": ("-accel", "tcg,thread=single", "-cpu", _EMULATED)}
# tsc=reliable: else the kernel may find the emulated clock unstable and patch itself while it runs,
# which emulated processors do not always survive (oops: int3 in sched_clock_cpu).
# The rest takes out what protects a machine from its users: no test looks at it, and emulated it
# costs a third of the time that a command takes. Where each program lies at the same addresses as
# the one before, what the emulator translated for that one serves again. nokaslr: else the kernel's
# image lies in any node's memory blocks.
_QUIET_BOOT = (
    "root=/dev/vda rw console=ttyS0 quiet panic=-1 systemd.show_status=0 tsc=reliable "
    "mitigations=off init_on_alloc=0 apparmor=0 audit=0 "
    "norandmaps randomize_kstack_offset=off nokaslr"
)
_CONSOLE_LINES = 25
_DISK = "disk"
# Else QEMU takes any bus there is, also one that is made for others.
_BUS = "bus=pcie.0"


def check_can_run() -> None:
    """Raise LabUnavailable unless the programs that run a guest are here."""
    for tool, package in _TOOLS.items():
        if not shutil.which(tool):
            msg = f"no {tool} (apt-get install {package})"
            raise LabUnavailable(msg)


def lacks(topology: Topology) -> str | None:
    """Return what a machine needs that this QEMU does not have."""
    if topology.needs is None:
        return None
    device, wanted = topology.needs
    command = [PROGRAM, "-device", f"{device},help"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    names = {line.split("=")[0].strip() for line in told.splitlines()}
    return None if wanted in names else f"{device} with {wanted}"


class Machine:
    """A running QEMU, from construction to `close`.

    `folder` takes the console's log and the directory that the guest sees as /mnt/host. The
    process dies with this one, whatever ends it. A `terminal` machine has the terminal of this
    process as /dev/hvc0. A `shared` one is made for running beside others, on the same processors.
    """

    def __init__(
        self,
        image: Image,
        topology: Topology,
        folder: Path,
        *,
        acceleration: str,
        terminal: bool = False,
        shared: bool = False,
        disk: Path | None = None,
    ) -> None:
        self.topology = topology
        self.share = folder / "share"
        self.console = folder / "console.log"
        self.share.mkdir(parents=True)
        self._layers = [_upon(disk or image.disk, folder / "disk.qcow2")]
        self._qmp = QMPClient("monitor")
        self._agent_client = new_client()
        self.agent = Agent(self._agent_client)
        command = [
            *_process(image, topology.kernel, folder, self._layers[0]),
            *_processor(acceleration, topology, shared=shared),
            *(_TERMINAL if terminal else ()),
            *qemu_arguments(topology),
            *("-append", " ".join([_QUIET_BOOT, *topology.append])),
        ]
        self.began = time.monotonic()
        with contextlib.ExitStack() as undo:
            monitor, monitor_end = socket.socketpair()
            channel, channel_end = socket.socketpair()
            runner, runner_end = socket.socketpair()
            for mine in (monitor, channel, runner):
                undo.callback(mine.close)
            self.runner = Runner(runner)
            with monitor_end, channel_end, runner_end, (folder / "qemu.log").open("wb") as log:
                ends = (monitor_end.fileno(), channel_end.fileno(), runner_end.fileno())
                self.process = subprocess.Popen(
                    [*command, *_channels(*ends)],
                    pass_fds=ends,
                    stdin=None if terminal else subprocess.DEVNULL,
                    stdout=None if terminal else log,
                    stderr=log,
                    # A terminal's Ctrl-C is for pytest, which then closes its machines in order.
                    start_new_session=not terminal,
                )
            self.loop = Loop()
            self._connect(monitor, channel, folder / "qemu.log")
            undo.pop_all()

    def _connect(self, monitor: socket.socket, channel: socket.socket, log: Path) -> None:
        try:
            self.loop.run(self._qmp.connect(monitor))
            self.loop.run(self._agent_client.connect(channel))
        except ConnectError as error:
            self.close()
            msg = f"QEMU did not start:\n{log.read_text()}"
            raise LabLost(msg) from error

    def qmp(self, command: str, **words: Any) -> Any:
        """Execute a QMP command; raises LabError when QEMU refuses, LabLost when it is gone.

        The words go out as they are; one with a hyphen needs `**{"qom-type": …}`.
        """
        try:
            return self.loop.run(self._qmp.execute(command, words or None))
        except (ExecInterruptedError, StateError) as error:
            msg = f"QEMU went away during {command}{self.tail()}"
            raise LabLost(msg) from error
        except QMPError as error:
            msg = f"QEMU refused {command}: {error}"
            raise LabError(msg) from error

    def keep_disk(self) -> Path:
        """Return a file with the disk as it is now, which has this machine's image below.

        What the machine writes from now on goes elsewhere; the file is gone with it. The guest has
        to have its file systems frozen meanwhile. Raises LabError where it fails.
        """
        (kept,) = self._layers
        self._layers.append(kept.with_name("later.qcow2"))
        words = {"snapshot-file": str(self._layers[-1]), "format": "qcow2"}
        self.qmp("blockdev-snapshot-sync", device=_DISK, **words)
        return kept

    @contextlib.contextmanager
    def events(self, *names: str) -> Iterator[EventListener]:
        """Collect QMP events from now on; read them with `next_event`."""
        with self._qmp.listener(names) as listener:
            yield listener

    def next_event(self, listener: EventListener, timeout: float = 60) -> Message:
        """Return the next event, or raise TimeoutError after `timeout` seconds."""
        return self.loop.run(listener.get(), timeout)

    def tail(self) -> str:
        """The end of the console's log, worded to end a message."""
        lines = self.console.read_text(errors="replace").splitlines()[-_CONSOLE_LINES:]
        return "\n".join([f"; the console ({self.console}) ends with:", *lines])

    def close(self) -> None:
        """End QEMU without any ado, and all that belongs to it; its disk is gone."""
        self.process.kill()
        self.process.wait()
        for layer in self._layers:
            layer.unlink(missing_ok=True)
        self.loop.run(self.runner.close())
        for client in (self._agent_client, self._qmp):
            # Both report the hang-up that was just caused.
            with contextlib.suppress(EOFError, OSError, QMPError):
                self.loop.run(client.disconnect())
        self.loop.close()


_TERMINAL = (
    *("-chardev", "stdio,id=terminal,signal=off"),
    *("-device", "virtconsole,chardev=terminal"),
)


def _upon(below: Path, disk: Path) -> Path:
    """Make a disk that has what `below` has, and takes what is written."""
    form = "raw" if below.suffix == ".img" else "qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", form, "-b", str(below), str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        msg = f"cannot make {disk}: {done.stderr}"
        raise LabError(msg)
    return disk


def _process(image: Image, kernel: str, folder: Path, disk: Path) -> list[str]:
    return [
        *("setpriv", "--pdeathsig", "KILL", PROGRAM),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-kernel", str(image.kernel(kernel)), "-initrd", str(image.initrd(kernel))),
        *("-drive", f"file={disk},id={_DISK},if=none,format=qcow2,cache=unsafe"),
        *("-device", f"virtio-blk-pci,drive={_DISK},{_BUS}"),
        *("-serial", f"file:{folder / 'console.log'}"),
        *("-fsdev", f"local,id=share,path={folder / 'share'},security_model=none"),
        *("-device", f"virtio-9p-pci,fsdev=share,mount_tag=host,{_BUS}"),
        *("-device", f"virtio-rng-pci,{_BUS}"),
    ]


def _processor(acceleration: str, topology: Topology, *, shared: bool) -> list[str]:
    *words, kind = (_SHARED if shared else {}).get(acceleration) or ACCELERATION[acceleration]
    return [*words, ",".join(filter(None, (kind, topology.processor)))]


def _channels(monitor: int, agent: int, runner: int) -> list[str]:
    return [
        *("-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"),
        *("-chardev", f"socket,id=agent,fd={agent}", "-device", f"virtio-serial,{_BUS}"),
        *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
        *("-chardev", f"socket,id=runner,fd={runner}"),
        *("-device", "virtserialport,chardev=runner,name=org.zoned.lab"),
    ]
