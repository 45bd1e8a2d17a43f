# SPDX-License-Identifier: Apache-2.0
"""Choosing between KVM and emulation, by booting.

/dev/kvm may be there and still not run a stock kernel (seen: QEMU aborts on a model-specific
register, or an instruction-emulation failure right after the boot), so only a boot tells.
"""

import json
import logging
import os
import subprocess
import tempfile
from pathlib import Path

from tests.lab.harness.errors import LabError, LabLost
from tests.lab.harness.guest import Guest
from tests.lab.harness.image import Image
from tests.lab.harness.places import cache_folder
from tests.lab.harness.qemu import ACCELERATION, PROGRAM, Machine
from tests.lab.harness.topology import ONE_NODE

logger = logging.getLogger(__name__)

_PROBE_SECONDS = 45


def choose_acceleration(image: Image) -> str:
    """Return "kvm" or "tcg".

    $ZONED_LAB_ACCEL decides; else the result of a trial boot, which the cache remembers for
    this host, kernel and QEMU.
    """
    if wanted := os.environ.get("ZONED_LAB_ACCEL"):
        if wanted not in ACCELERATION:
            msg = f"ZONED_LAB_ACCEL={wanted}: must be one of {', '.join(ACCELERATION)}"
            raise LabError(msg)
        return wanted
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    memory = cache_folder() / "acceleration.json"
    known = json.loads(memory.read_text()) if memory.exists() else {}
    key = _host_key()
    if key not in known:
        known[key] = "kvm" if _kvm_boots(image) else "tcg"
        _remember(memory, known)
    return str(known[key])


def _host_key() -> str:
    host = os.uname()
    version = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
    return f"{host.nodename} {host.release} {version.stdout.splitlines()[0]}"


def _kvm_boots(image: Image) -> bool:
    with tempfile.TemporaryDirectory(prefix="zoned-lab-") as name:
        try:
            machine = Machine(image, ONE_NODE, Path(name, "probe"), acceleration="kvm")
            with Guest(machine, boot_seconds=_PROBE_SECONDS):
                return True
        except (LabLost, TimeoutError, subprocess.TimeoutExpired) as error:
            logger.info("KVM does not boot a guest here, so that it is emulated: %s", error)
            return False


def _remember(memory: Path, known: dict[str, str]) -> None:
    if os.access(memory.parent, os.W_OK):
        new = memory.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(known, indent=1))
        new.replace(memory)
