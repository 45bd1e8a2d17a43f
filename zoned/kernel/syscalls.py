# SPDX-License-Identifier: Apache-2.0
"""System calls that Python has no function for. A call and a check, no policy.

Sources: migrate_pages(2), move_pages(2), set_mempolicy(2), get_mempolicy(2), fallocate(2),
pidfd_open(2), inotify(7), include/uapi/linux/mempolicy.h, and each architecture's table of system
calls.
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
MPOL_DEFAULT, MPOL_BIND = 0, 2
MPOL_F_STATIC_NODES = 1 << 15
MPOL_MF_MOVE = 1 << 1
MPOL_MF_MOVE_ALL = 1 << 2

NOT_TRIED = -4096
"""Status of a page that the kernel left alone; no errno is that large."""
_NOT_TRIED = NOT_TRIED.to_bytes(4, sys.byteorder, signed=True)

# include/uapi/linux/inotify.h
IN_MODIFY, IN_CREATE = 0x2, 0x100

# include/uapi/linux/falloc.h
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 0x1, 0x2

# machine -> (migrate_pages, move_pages, set_mempolicy, get_mempolicy)
_GENERIC = (238, 239, 237, 236)
_PPC64 = (258, 301, 261, 260)
_NUMBERS = {
    "x86_64": (256, 279, 238, 239),
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
    "loongarch64": _GENERIC,
    "ppc64": _PPC64,
    "ppc64le": _PPC64,
    "s390x": (287, 310, 270, 269),
}
_NR_MIGRATE_PAGES, _NR_MOVE_PAGES, _NR_SET_MEMPOLICY, _NR_GET_MEMPOLICY = _NUMBERS.get(
    os.uname().machine, (-1, -1, -1, -1)
)

_BITS = 8 * ctypes.sizeof(ctypes.c_ulong)
_MOST_NODES = 1024
"""MAX_NUMNODES of the largest kernels (CONFIG_NODES_SHIFT is 10 at most)."""

_libc = ctypes.CDLL(None, use_errno=True)
# A variadic function: without argtypes, pointers and 64-bit numbers would be cut to an int.
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = [ctypes.c_long] * 7
_libc.inotify_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
# On machines of 32 bits `fallocate` takes offsets of 32 bits.
_libc.fallocate64.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


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


def set_mempolicy(mode: int, nodes: Iterable[int] = ()) -> None:
    """Say where this thread's memory comes from; `nodes` are none with MPOL_DEFAULT.

    Raises OSError: EINVAL (none of the nodes has memory, or may be used), ENOSYS.
    """
    wanted = set(nodes)
    if not wanted:
        _call("set_mempolicy", _NR_SET_MEMPOLICY, mode, 0, 0)
        return
    mask = _mask(wanted, max(wanted))
    # The kernel takes one off the number of bits that it is given.
    bits = len(mask) * _BITS + 1
    _call("set_mempolicy", _NR_SET_MEMPOLICY, mode, ctypes.addressof(mask), bits)


def get_mempolicy() -> tuple[int, frozenset[int]]:
    """Return the mode and the nodes of this thread's memory policy, as `set_mempolicy` takes them.

    Raises OSError: ENOSYS.
    """
    mode = ctypes.c_int()
    mask = (ctypes.c_ulong * (_MOST_NODES // _BITS))()
    places = ctypes.addressof(mode), ctypes.addressof(mask)
    _call("get_mempolicy", _NR_GET_MEMPOLICY, *places, _MOST_NODES)
    nodes = (node for node in range(_MOST_NODES) if mask[node // _BITS] >> node % _BITS & 1)
    return mode.value, frozenset(nodes)


def fallocate(descriptor: int, mode: int, offset: int, size: int) -> None:
    """Give a part of a file memory, or with FALLOC_FL_PUNCH_HOLE take it away.

    Raises OSError: EINTR, ENOMEM, ENOSPC (no memory left for it), EOPNOTSUPP, EPERM (a seal).
    """
    _checked("fallocate", int(_libc.fallocate64(descriptor, mode, offset, size)))


def address_of(buffer: Buffer, offset: int = 0) -> int:
    """Return where in this process's memory a writable buffer is, or a byte of it."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer, offset))


def inotify_open() -> int:
    """Return a descriptor for `inotify_add`; it does not block. Raises OSError: EMFILE."""
    return _checked("inotify_init1", int(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)))


def inotify_add(descriptor: int, path: bytes, events: int) -> int:
    """Watch a file or folder for these events; return the watch's number, the same for each path.

    Raises OSError: ENOENT, ENOSPC (more watches than the user may have).
    """
    return _checked("inotify_add_watch", int(_libc.inotify_add_watch(descriptor, path, events)))


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
    return address_of(view) if view.nbytes else 0


def _call(name: str, number: int, *arguments: int) -> int:
    if number < 0:
        raise OSError(errno.ENOSYS, f"{name}: its number on {os.uname().machine} is not known")
    padded = arguments + (0,) * (6 - len(arguments))
    return _checked(name, int(_libc.syscall(number, *padded)))


def _checked(name: str, result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result
