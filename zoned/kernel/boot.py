# SPDX-License-Identifier: Apache-2.0
"""What the boot loader told the kernel about memory.

Sources: Documentation/arch/x86/boot.rst and zero-page.rst (`ramdisk_image`, `ramdisk_size` and
their upper halves), Documentation/ABI/testing/sysfs-kernel-boot_params.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from zoned.kernel.attribute import attribute
from zoned.model.dma.offer import Span

if TYPE_CHECKING:
    from zoned.kernel.root import Root

_UPPER = struct.Struct("<II")
_UPPER_AT = 0xC0
_LOWER_AT = 0x218
_X86 = re.compile(r"x86_64|i[3-6]86")


def read_initrd(root: Root) -> Span | None:
    """Return where the boot loader put the initial ramdisk; None without one, or elsewhere than on
    x86. The kernel has long freed it, but the next boot will put it there again.
    """
    try:
        raw = (root.sys / "kernel/boot_params/data").read_bytes()
        upper = _UPPER.unpack_from(raw, _UPPER_AT)
        lower = _UPPER.unpack_from(raw, _LOWER_AT)
    except (OSError, struct.error):
        return None
    start, size = (low + (high << 32) for low, high in zip(lower, upper, strict=True))
    return Span(start, size) if size else None


def is_x86(root: Root) -> bool | None:
    """Return whether the kernel is one for x86; None where it does not say (before 6.1)."""
    name = attribute(root.proc / "sys/kernel/arch")
    if name is not None:
        return _X86.fullmatch(name) is not None
    # Nobody else has these.
    return True if (root.sys / "kernel/boot_params").is_dir() else None
