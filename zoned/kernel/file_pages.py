# SPDX-License-Identifier: Apache-2.0
"""Where in memory the pages of a file lie.

Sources: Documentation/admin-guide/mm/pagemap.rst, madvise(2) (MADV_POPULATE_READ).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from typing import TYPE_CHECKING

from zoned.errors import MachineError
from zoned.kernel.syscalls import address_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoned.kernel.root import Root

_WORD = 8
_PRESENT = 1 << 63
_PFN = (1 << 55) - 1
# include/uapi/asm-generic/mman-common.h; Python knows neither.
_MADV_POPULATE_READ = 22
_MAP_NORESERVE = 0x4000


def addresses(root: Root, file: int, page: int, size: int) -> tuple[int, ...]:
    """Return the physical address of every `page` bytes of the file's first `size`.

    They have to be there. An address is 0 where the kernel does not tell, which it does only to who
    has CAP_SYS_ADMIN. Raises MachineError.
    """
    return _addresses(root, file, page, size, lambda mapped, place: mapped[place])


def addresses_in_use(root: Root, file: int, page: int, size: int) -> tuple[int, ...]:
    """Return the same of a file that others have, and may have made holes in.

    A hole gets a page where the kernel has one to give; the address is 0 where it has none, and
    everywhere on kernels before 5.14. Raises MachineError.
    """

    def bring(mapped: mmap.mmap, place: int) -> None:
        # A page that is only touched would end this process where the kernel has none to give.
        with contextlib.suppress(OSError):
            mapped.madvise(_MADV_POPULATE_READ, place, page)

    return _addresses(root, file, page, size, bring)


def _addresses(
    root: Root, file: int, page: int, size: int, bring: Callable[[mmap.mmap, int], object]
) -> tuple[int, ...]:
    """Return the addresses; `bring` brings a page into this process's page table."""
    try:
        pagemap = os.open(root.proc / "self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise MachineError(f"cannot see where pages lie: {error.strerror}") from error
    try:
        # Without NORESERVE the mapping would lay claim to huge pages for holes.
        with mmap.mmap(file, size, flags=mmap.MAP_SHARED | _MAP_NORESERVE) as mapped:
            return tuple(_address(pagemap, mapped, place, bring) for place in range(0, size, page))
    except OSError as error:
        raise MachineError(f"cannot map a file of {size} bytes: {error.strerror}") from error
    finally:
        os.close(pagemap)


def _address(
    pagemap: int, mapped: mmap.mmap, place: int, bring: Callable[[mmap.mmap, int], object]
) -> int:
    bring(mapped, place)
    start = address_of(mapped, place)
    word = int.from_bytes(os.pread(pagemap, _WORD, start // mmap.PAGESIZE * _WORD), sys.byteorder)
    return (word & _PFN) * mmap.PAGESIZE if word & _PRESENT else 0
