# SPDX-License-Identifier: Apache-2.0
"""The commands of scripts/lab."""

import argparse
import fcntl
import logging
import os
import struct
import sys
import tempfile
import termios
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.lab.harness.accel import choose_acceleration
from tests.lab.harness.errors import LabError, LabLost
from tests.lab.harness.guest import Guest
from tests.lab.harness.image import get_image
from tests.lab.harness.places import PROJECT
from tests.lab.harness.plugin import LAB_LOST
from tests.lab.harness.qemu import Machine, check_can_run
from tests.lab.harness.recipe import RECIPES
from tests.lab.harness.topology import TOPOLOGIES

_DESCRIPTION = """\
A NUMA machine anywhere: a QEMU guest with a real Debian kernel, systemd and udev, several nodes
with distances, room for hot-plugged DIMMs and a device with a narrow DMA window.

  sudo scripts/lab build                    make the Debian 13 image (a minute, then cached)
  sudo scripts/lab run                      run the tests in tests/lab on Debian 13 and 12
  sudo scripts/lab run --release trixie -- -k edu -x
  sudo scripts/lab run --release trixie -- --lab-kernel newest    with the kernel of its backports
  sudo scripts/lab shell                    look around; /mnt/host is shared with this machine
"""
_EPILOG = f"""\
environment:
  ZONED_LAB         0: skip lab tests; 1: a missing lab is a failure; unset: skip with a reason
                    (`run` sets 1 unless it is set)
  ZONED_LAB_CACHE   where images are kept (default /var/cache/zoned-lab)
  ZONED_LAB_MIRROR  Debian mirror for images (default: that of mmdebstrap)
  ZONED_LAB_ACCEL   kvm or tcg (default: tried once by booting, and remembered)

exit status: that of pytest for `run`; {LAB_LOST} when a guest died under a test ("lab lost").
Packages that the lab needs on this machine: tests/lab/harness/packages.txt
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run scripts/lab; return its exit status."""
    options = _parse(arguments)
    logging.basicConfig(format="lab: %(message)s", level=logging.INFO)
    try:
        status: int = options.command(options)
    except LabLost as error:
        print(f"lab: lost: {error}", file=sys.stderr)
        return LAB_LOST
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return status


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/lab",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="build|run|shell")
    build = commands.add_parser("build", help="make an image unless it is in the cache")
    build.add_argument("--release", choices=[*RECIPES], default="trixie")
    build.set_defaults(command=_build)
    run = commands.add_parser("run", help="run the lab's tests, building images as needed")
    run.add_argument("--release", choices=[*RECIPES], action="append", help="default: all")
    run.add_argument("--topology", choices=[*TOPOLOGIES], help="only tests on this machine")
    run.add_argument("rest", nargs="*", metavar="-- PYTEST-ARGUMENT")
    run.set_defaults(command=_run)
    shell = commands.add_parser("shell", help="boot a guest and give a root shell in it")
    shell.add_argument("--release", choices=[*RECIPES], default="trixie")
    shell.add_argument("--topology", choices=[*TOPOLOGIES], default="four_nodes")
    shell.set_defaults(command=_shell)
    return parser.parse_args(arguments)


def _build(options: argparse.Namespace) -> int:
    print(get_image(options.release).folder)
    return 0


def _run(options: argparse.Namespace) -> int:
    os.environ.setdefault("ZONED_LAB", "1")
    os.chdir(PROJECT)
    arguments = ["-m", "lab"]
    if not any(Path(word.partition("::")[0]).exists() for word in options.rest):
        arguments.append("tests/lab")
    if options.release:
        arguments.append(f"--lab-releases={','.join(options.release)}")
    if options.topology:
        arguments.append(f"--lab-topology={options.topology}")
    return int(pytest.main([*arguments, *options.rest]))


def _shell(options: argparse.Namespace) -> int:
    check_can_run()
    image = get_image(options.release)
    acceleration = choose_acceleration(image)
    with tempfile.TemporaryDirectory(prefix="zoned-lab-") as name:
        folder = Path(name, "guest")
        topology = TOPOLOGIES[options.topology]
        print(f"lab: booting {options.release}, {topology.name}, {acceleration} …", flush=True)
        machine = Machine(image, topology, folder, acceleration=acceleration, terminal=True)
        with Guest(machine) as guest:
            print(f"lab: {machine.share} is /mnt/host; leave with `exit` or Ctrl-D\r", flush=True)
            return _converse(guest)


def _converse(guest: Guest) -> int:
    """A shell on the guest's end of this terminal, until it ends."""
    rows, columns = _terminal_size()
    script = f"stty rows {rows} cols {columns}; exec bash --login -i"
    terminal = {"TERM": os.environ.get("TERM", "dumb")}
    line = 'exec setsid --ctty --wait sh -c "$1" <>/dev/hvc0 >&0 2>&0'
    return (
        guest.start(["sh", "-c", line, "sh", script], env=terminal).wait(7 * 24 * 3600).returncode
    )


def _terminal_size() -> tuple[int, int]:
    if not sys.stdin.isatty():
        return 24, 80
    rows, columns, *_ = struct.unpack("4H", fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))
    return rows or 24, columns or 80
