# SPDX-License-Identifier: Apache-2.0
"""Files in memory as dma-bufs, which drivers of the kernel can take over.

Sources: drivers/dma-buf/udmabuf.c, include/uapi/linux/udmabuf.h: the file has to be sealed against
shrinking and not against writing, and is pinned for as long as the dma-buf is there.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import TYPE_CHECKING

from zoned.errors import KernelRefused, Unsupported
from zoned.kernel.root import read_int

if TYPE_CHECKING:
    from zoned.kernel.root import Root

# struct udmabuf_create: memfd, flags, offset, size. The ioctl is _IOW('u', 0x42, udmabuf_create).
_CREATE = struct.Struct("=IIQQ")
_UDMABUF_CREATE = 1 << 30 | _CREATE.size << 16 | ord("u") << 8 | 0x42
_FLAGS_CLOEXEC = 1


def export(root: Root, file: int, size: int) -> int:
    """Return the descriptor of a dma-buf of the file's first `size` bytes.

    Raises Unsupported where the kernel has no such thing, KernelRefused where it does not want this
    file: too large (see the hint), not sealed, or of a kind that this kernel does not take.
    """
    path = root.dev / "udmabuf"
    try:
        device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Unsupported(
            f"no dma-bufs here: cannot open {path}: {error.strerror}",
            hint="the kernel needs CONFIG_UDMABUF",
        ) from error
    try:
        # A bytearray: of bytes, Python would return the buffer and lose the descriptor.
        argument = bytearray(_CREATE.pack(file, _FLAGS_CLOEXEC, 0, size))
        return int(fcntl.ioctl(device, _UDMABUF_CREATE, argument))
    except OSError as error:
        raise KernelRefused(
            f"the kernel makes no dma-buf of {size} bytes: {error.strerror}", hint=_hint(root, size)
        ) from error
    finally:
        os.close(device)


def moves_to_pin(root: Root) -> bool:
    """Return whether the kernel moves pages out of movable memory to pin them for a dma-buf.

    It does where it has the function memfd_pin_folios; where its symbols cannot be read, it may.
    """
    try:
        with (root.proc / "kallsyms").open(encoding="ascii") as symbols:
            return any("memfd_pin_folios" in line.split() for line in symbols)
    except OSError:
        return True


def _hint(root: Root, size: int) -> str:
    parameter = root.sys / "module/udmabuf/parameters/size_limit_mb"
    most = read_int(parameter)
    if most is not None and size > most << 20:
        return f"at most {most} MiB: write more to {parameter}"
    return "the kernel may be too old to take huge pages"
