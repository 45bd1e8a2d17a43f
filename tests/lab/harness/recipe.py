# SPDX-License-Identifier: Apache-2.0
"""What goes into a guest's image, as data: it is rebuilt when anything in this file changes."""

import hashlib
import json
from dataclasses import asdict, dataclass, field

_PACKAGES = (
    "acl",
    "busybox-static",
    "daxctl",
    "dbus",
    "hwloc-nox",
    "iproute2",
    "kmod",
    "libcap2-bin",
    "linux-image-amd64",
    "man-db",
    "ndctl",
    "numactl",
    "pciutils",
    "procps",
    "python3",
    "python3-venv",
    "qemu-guest-agent",
    "stress-ng",
    "systemd-sysv",
    "udev",
    "util-linux",
)

# Emulated boots are slow, so that units without a part in any test stay out.
_MASKED = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "cxl-monitor.service",
    "daxdev-reconfigure@.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@.service",
    "man-db.timer",
    "modprobe@drm.service",
    "modprobe@fuse.service",
    "ndctl-monitor.service",
    "proc-sys-fs-binfmt_misc.automount",
    "serial-getty@.service",
    "sys-fs-fuse-connections.mount",
    "systemd-binfmt.service",
    "systemd-networkd.service",
    "systemd-pcrphase.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
)

_FILES = {
    # The mount fails when udev is still loading the transport, so that it waits for the modules.
    "etc/fstab": (
        "host /mnt/host 9p trans=virtio,version=9p2000.L,msize=512000,_netdev,"
        "x-systemd.requires=systemd-modules-load.service 0 0\n"
    ),
    "etc/modules-load.d/lab.conf": "9pnet_virtio\n9p\n",
    "etc/hostname": "lab\n",
    "etc/hosts": "127.0.0.1 localhost lab\n",
    # A known id: an empty one would make each boot a first boot.
    "etc/machine-id": "6c61626c61626c61626c61626c61626c\n",
    "etc/systemd/journald.conf.d/lab.conf": "[Journal]\nStorage=volatile\n",
    # The agent is the only way in; it must outlive any shortage that a test makes.
    "etc/systemd/system/qemu-guest-agent.service.d/lab.conf": (
        "[Service]\nOOMScoreAdjust=-1000\nOOMPolicy=continue\n"
    ),
}

# insmod takes no dependencies and no compression: initrd.py orders and unpacks the modules.
_INIT = """#!/bin/busybox sh
B=/bin/busybox
$B mount -t devtmpfs dev /dev
for module in /modules/*; do $B insmod "$module"; done
tries=0
until [ -b /dev/vda ] || [ $tries = 1000 ]; do $B usleep 10000; tries=$((tries + 1)); done
$B mount -t ext4 /dev/vda /root
$B mount --move /dev /root/dev
exec $B switch_root /root /sbin/init
"""


STOCK = "stock"
"""The release's own kernel."""
NEWEST = "newest"
"""The kernel of the release's backports: the newest there is for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One image. `disk_size` is in MiB; `files` maps a path in the image to its text.

    `kernels` are those that it can be booted with, oldest first.
    """

    release: str
    kernels: tuple[str, ...] = (STOCK,)
    packages: tuple[str, ...] = _PACKAGES
    masked: tuple[str, ...] = _MASKED
    files: dict[str, str] = field(default_factory=lambda: dict(_FILES))
    modules: tuple[str, ...] = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")
    init: str = _INIT
    disk_size: int = 4096

    @property
    def digest(self) -> str:
        """A short hash of everything above, the image's name in the cache."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


PYTHON = {"trixie": "3.13", "bookworm": "3.11"}
"""The version of /usr/bin/python3 in each release that the lab can boot."""

RECIPES = {
    "trixie": Recipe(release="trixie", kernels=(STOCK, NEWEST), packages=(*_PACKAGES, "cxl")),
    "bookworm": Recipe(release="bookworm"),
}
