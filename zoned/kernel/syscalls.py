# SPDX-License-Identifier: Apache-2.0
"""System calls that Python has no function for. A call and a check, no policy.

Sources: migrate_pages(2), move_pages(2), pidfd_open(2), include/uapi/linux/mempolicy.h, and each
architecture's table of system calls.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Buffer: TypeAlias = Any
"""An object with the buffer protocol. Before Python 3.12 no type can say so of all that have it."""

# include/uapi/linux/mempolicy.h
MPOL_MF_MOVE = 1 << 1
MPOL_MF_MOVE_ALL = 1 << 2

NOT_TRIED = -4096
"""Status of a page that the kernel left alone; no errno is that large."""
_NOT_TRIED = NOT_TRIED.to_bytes(4, sys.byteorder, signed=True)

# machine -> (migrate_pages, move_pages)
_GENERIC = (238, 239)
_NUMBERS = {
    "x86_64": (256, 279),
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
    "loongarch64": _GENERIC,
    "ppc64": (258, 301),
    "ppc64le": (258, 301),
    "s390x": (287, 310),
}
_NR_MIGRATE_PAGES, _NR_MOVE_PAGES = _NUMBERS.get(os.uname().machine, (-1, -1))

_BITS = 8 * ctypes.sizeof(ctypes.c_ulong)

_libc = ctypes.CDLL(None, use_errno=True)
# A variadic function: without argtypes, pointers and 64-bit numbers would be cut to an int.
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = [ctypes.c_long] * 7


def migrate_pages(pid: int, old_nodes: Iterable[int], new_nodes: Iterable[int]) -> int:
    """Move all pages of a process on `old_nodes` to `new_nodes`; return how many did not move.

    One uninterruptible call. Pages keep their relative order among the nodes, and with
    CAP_SYS_NICE shared pages move too. The kernel ands `new_nodes` with what the caller's own
    cpuset allows.

    Raises OSError: EINVAL (no such node, or nothing left of `new_nodes`), EPERM, ESRCH.
    """
    old, new = set(old_nodes), set(new_nodes)
    highest = max(old | new, default=0)
    masks = [_mask(nodes, highest) for nodes in (old, new)]
    # The kernel takes one off the number of bits that it is given.
    bits = len(masks[0]) * _BITS + 1
    return _call(
        "migrate_pages", _NR_MIGRATE_PAGES, pid, bits, *(ctypes.addressof(m) for m in masks)
    )


def move_pages_raw(
    pid: int, addresses: Buffer, nodes: Buffer | None, status: Buffer, flags: int = MPOL_MF_MOVE
) -> int:
    """Move single pages, or with `nodes` None tell where they are; return how many did not move.

    `addresses` has 8 bytes for each page, `nodes` and `status` have 4; all are writable and
    contiguous, and nothing is copied. Each status becomes the node that the page is on, a negative
    errno, or NOT_TRIED. No result is the truth: the call can fail although most pages moved, pages
    that it never tried count as not moved, and more. Ask again with `nodes` None.

    Raises OSError: EACCES (the target's cpuset forbids a node), EINVAL (no memory: a kernel
    thread or a process that ends), ENODEV (a node without memory), ENOMEM, EPERM, ESRCH.
    Raises ValueError where the buffers do not match.
    """
    pages, result = memoryview(addresses), memoryview(status)
    target = None if nodes is None else memoryview(nodes)
    count = pages.nbytes // 8
    if any(
        view.nbytes != count * size or not view.c_contiguous
        for view, size in ((pages, 8), (result, 4), (target, 4))
        if view is not None
    ):
        raise ValueError("addresses, nodes and statuses differ in number")
    result.cast("B")[:] = _NOT_TRIED * count
    places = [0 if view is None else _address(view) for view in (pages, target, result)]
    return _call("move_pages", _NR_MOVE_PAGES, pid, count, *places, flags)


def pidfd_open(pid: int) -> int:
    """Return a file descriptor of the process; it becomes readable when the process has ended.

    Raises OSError: ESRCH.
    """
    return os.pidfd_open(pid)


def _mask(nodes: set[int], highest: int) -> ctypes.Array[ctypes.c_ulong]:
    mask = (ctypes.c_ulong * (highest // _BITS + 1))()
    for node in nodes:
        mask[node // _BITS] |= 1 << node % _BITS
    return mask


def _address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view)) if view.nbytes else 0


def _call(name: str, number: int, *arguments: int) -> int:
    if number < 0:
        raise OSError(errno.ENOSYS, f"{name}: its number on {os.uname().machine} is not known")
    padded = arguments + (0,) * (6 - len(arguments))
    result = int(_libc.syscall(number, *padded))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result
