# SPDX-License-Identifier: Apache-2.0
"""A file of huge pages: which places of it have a page, and where in memory that page lies.

Sources: memfd_create(2), fallocate(2), fcntl(2) (file sealing), madvise(2) (MADV_POPULATE_READ),
fs/hugetlbfs/inode.c (hugetlbfs_fallocate), Documentation/admin-guide/mm/pagemap.rst.

The pages come by fallocate, which fails where the node has none left; a page that is only touched
would come as well, or end the process with SIGBUS.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import sys
from typing import TYPE_CHECKING

from zoned.errors import KernelRefused, MachineError, Unsupported
from zoned.kernel.syscalls import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    MPOL_BIND,
    address_of,
    fallocate,
    get_mempolicy,
    set_mempolicy,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned.kernel.root import Root

_NAME = "zoned"
_SMALL = mmap.PAGESIZE
_WORD = 8
_PRESENT = 1 << 63
_PFN = (1 << 55) - 1
_TRIES = 5
"""A page on its way from one place to another reads as absent."""
# include/uapi/asm-generic/mman-common.h; Python knows neither.
_MADV_POPULATE_READ = 22
_MAP_NORESERVE = 0x4000
_NONE_LEFT = frozenset({errno.ENOSPC, errno.ENOMEM})


class HugeFile:
    """A file in memory, of pages of one node and one size. For one thread at a time."""

    def __init__(
        self, root: Root, node: int, page: int, places: int = 0, *, huge: bool = True
    ) -> None:
        """Make a file that has room for so many pages of `page` bytes, and none of them yet.

        Without `huge` they are ordinary pages. Raises Unsupported where the kernel has no files of
        such pages, or does not show where they lie.
        """
        self._node, self._page = node, page
        self._map: mmap.mmap | None = None
        self.places = 0
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        if huge:
            flags |= os.MFD_HUGETLB | page.bit_length() - 1 << os.MFD_HUGE_SHIFT
        try:
            self._fd = os.memfd_create(_NAME, flags)
        except OSError as error:
            raise Unsupported(
                f"the kernel makes no file of pages of {page >> 10} KiB: {error.strerror}"
            ) from error
        try:
            self._pages = os.open(root.proc / "self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            os.close(self._fd)
            raise Unsupported("the kernel does not show where pages lie (pagemap)") from error
        self.resize(places)

    def close(self) -> None:
        """Close it. Its pages are free when nobody else has it open or mapped."""
        self._unmap()
        os.close(self._pages)
        if self._fd >= 0:
            os.close(self._fd)

    def detach(self) -> int:
        """Close all but the file's descriptor, and return that."""
        fd, self._fd = self._fd, -1
        self.close()
        return fd

    def seal(self) -> None:
        """Have the file stay as long as it is, whoever gets it."""
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        try:
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, seals)
        except OSError as error:
            raise KernelRefused(f"cannot seal a file of huge pages: {error.strerror}") from error

    def resize(self, places: int) -> None:
        """Give it room for so many pages. Raises KernelRefused."""
        self._unmap()
        self.places = places
        if not places:
            return
        size = places * self._page
        try:
            os.ftruncate(self._fd, size)
            # Without NORESERVE the mapping would lay claim to pages for its holes.
            self._map = mmap.mmap(self._fd, size, flags=mmap.MAP_SHARED | _MAP_NORESERVE)
        except OSError as error:
            raise KernelRefused(
                f"cannot map a file of {places} huge pages: {error.strerror}"
            ) from error

    def take(self, place: int) -> bool:
        """Have a free page of the node there; return False where the node has none left.

        What was in the page before is wiped. Raises KernelRefused.
        """
        with self._on_node():
            code = self._fallocate(0, place)
        if code and code not in _NONE_LEFT:
            raise KernelRefused(
                f"cannot take a huge page of node {self._node}: {os.strerror(code)}"
            )
        return not code

    def free(self, place: int) -> None:
        """Give the page there back to the node. Raises KernelRefused."""
        code = self._fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, place)
        if code:
            raise KernelRefused(f"cannot free a huge page: {os.strerror(code)}")

    def address(self, place: int) -> int | None:
        """Return the physical address of the page there, which has to be one; None where the
        kernel does not tell.

        Raises Unsupported where it hides addresses: it shows them only to who has CAP_SYS_ADMIN.
        """
        for _ in range(_TRIES):
            self._touch(place)
            word = self._word(place)
            if not word & _PRESENT:
                continue
            if not word & _PFN:
                raise Unsupported(
                    "the kernel hides the addresses of pages", hint="this needs CAP_SYS_ADMIN"
                )
            return (word & _PFN) * _SMALL
        return None

    def _unmap(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None

    def _fallocate(self, mode: int, place: int) -> int:
        """Return the kernel's errno, 0 for none."""
        while True:
            try:
                fallocate(self._fd, mode, place * self._page, self._page)
            except OSError as error:
                if error.errno != errno.EINTR:
                    return error.errno or errno.EIO
            else:
                return 0

    @contextlib.contextmanager
    def _on_node(self) -> Iterator[None]:
        """Have this thread's memory come from the node: the kernel asks no other policy here."""
        try:
            former = get_mempolicy()
            set_mempolicy(MPOL_BIND, {self._node})
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise Unsupported(f"cannot ask for memory of node {self._node}: {error}") from error
            # A kernel that knows no nodes.
            yield
            return
        try:
            yield
        finally:
            set_mempolicy(*former)

    def _touch(self, place: int) -> None:
        """Bring the page into this process's page table."""
        assert self._map is not None
        offset = place * self._page
        try:
            self._map.madvise(_MADV_POPULATE_READ, offset, self._page)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise MachineError(f"a huge page cannot be read: {error.strerror}") from error
            # Kernels before 5.14.
            self._map[offset]

    def _word(self, place: int) -> int:
        assert self._map is not None
        start = address_of(self._map, place * self._page)
        data = os.pread(self._pages, _WORD, start // _SMALL * _WORD)
        return int.from_bytes(data, sys.byteorder)
