# SPDX-License-Identifier: Apache-2.0
"""Memory of each kind, on a node of choice. Call numbers are those of x86-64."""

import contextlib
import ctypes
import fcntl
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

PAGE = 4096
HUGE_PAGE = 2 << 20

_MAP_HUGETLB = 0x40000  # linux/mman.h
_MPOL_DEFAULT, _MPOL_BIND = 0, 2  # linux/mempolicy.h
_SET_MEMPOLICY, _VMSPLICE, _IO_URING_SETUP, _IO_URING_REGISTER = 238, 278, 425, 427
_IORING_REGISTER_BUFFERS = 0  # linux/io_uring.h
_IO_URING_PARAMS_SIZE = 120
_LONGEST_PIPE = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


@contextlib.contextmanager
def memory_from(node: int) -> Iterator[None]:
    """Let new memory of this process come from `node` alone; afterwards from anywhere again."""
    mask = ctypes.c_ulong(1 << node)
    _check(_libc.syscall(_SET_MEMPOLICY, _MPOL_BIND, ctypes.byref(mask), 64), "set_mempolicy")
    try:
        yield
    finally:
        _check(_libc.syscall(_SET_MEMPOLICY, _MPOL_DEFAULT, None, 0), "set_mempolicy")


def address_of(view: memoryview) -> int:
    """Return where the memory of `view` is."""
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def _anonymous(size: int, advice: int) -> memoryview:
    mapping = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    mapping.madvise(advice)
    whole = memoryview(mapping)
    begin = -address_of(whole) % HUGE_PAGE
    return whole[begin : begin + size]


def small(size: int, name: str) -> memoryview:
    """Anonymous memory that stays in 4 KiB pages."""
    return _anonymous(size, mmap.MADV_NOHUGEPAGE)


def thp(size: int, name: str) -> memoryview:
    """Anonymous memory that begins where a huge page can."""
    return _anonymous(size, mmap.MADV_HUGEPAGE)


def hugetlb(size: int, name: str) -> memoryview:
    """Pages of the hugetlb pool, which must have them."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_HUGETLB
    return memoryview(mmap.mmap(-1, size, flags=flags))


def shared(size: int, name: str) -> memoryview:
    """Memory that children have in common with this process."""
    fd = os.memfd_create(name)
    os.ftruncate(fd, size)
    return memoryview(mmap.mmap(fd, size, flags=mmap.MAP_SHARED))


def locked(size: int, name: str) -> memoryview:
    """Anonymous memory that cannot be swapped."""
    view = small(size, name)
    _check(
        _libc.mlock(ctypes.c_void_p(address_of(view)), ctypes.c_size_t(size)),
        "mlock",
    )
    return view


def shared_file(size: int, name: str) -> memoryview:
    """A file's own pages."""
    path = Path("/var/tmp", f"load-{name}")
    path.unlink(missing_ok=True)
    with path.open("xb+") as file:
        file.truncate(size)
        return memoryview(mmap.mmap(file.fileno(), size, flags=mmap.MAP_SHARED))


def private_file(size: int, name: str) -> memoryview:
    """A file's pages until they are written to. Put the file's content there first."""
    with Path("/var/tmp", f"load-{name}").open("rb+") as file:
        return memoryview(mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE))


KINDS: dict[str, Callable[[int, str], memoryview]] = {
    "small": small,
    "thp": thp,
    "hugetlb": hugetlb,
    "shared": shared,
    "locked": locked,
    "shared-file": shared_file,
    "private-file": shared_file,
}
"""Each kind with what makes it; a private file begins as a shared one, which fills it."""


def pin(view: memoryview) -> str:
    """Have the kernel hold the pages of `view` where they are; return by what means."""
    vector = _Iovec(address_of(view), len(view))
    try:
        ring = _check(
            _libc.syscall(_IO_URING_SETUP, 4, ctypes.create_string_buffer(_IO_URING_PARAMS_SIZE)),
            "io_uring_setup",
        )
        _check(
            _libc.syscall(
                _IO_URING_REGISTER, ring, _IORING_REGISTER_BUFFERS, ctypes.byref(vector), 1
            ),
            "io_uring_register",
        )
    except OSError:
        pin_by_pipe(view)
        return "pipe"
    return "io_uring"


def pin_by_pipe(view: memoryview) -> None:
    """Put references to the pages into pipes that nobody reads; also of movable memory."""
    address, left = address_of(view), len(view)
    while left:
        _, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _LONGEST_PIPE)
        size = min(left, _LONGEST_PIPE)
        vector = _Iovec(address, size)
        done = _check(
            _libc.syscall(_VMSPLICE, writing, ctypes.byref(vector), ctypes.c_ulong(1), 0),
            "vmsplice",
        )
        address, left = address + done, left - done


HEADER = struct.Struct("<QQ")
"""What the first bytes of a page tell: the page's number and how often it was written."""
