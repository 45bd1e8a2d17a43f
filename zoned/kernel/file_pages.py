# SPDX-License-Identifier: Apache-2.0
"""Where in memory the pages of a file lie. Source: Documentation/admin-guide/mm/pagemap.rst."""

from __future__ import annotations

import mmap
import os
import sys
from typing import TYPE_CHECKING

from zoned.errors import MachineError
from zoned.kernel.syscalls import address_of

if TYPE_CHECKING:
    from zoned.kernel.root import Root

_WORD = 8
_PRESENT = 1 << 63
_PFN = (1 << 55) - 1


def addresses(root: Root, file: int, page: int, size: int) -> tuple[int, ...]:
    """Return the physical address of every `page` bytes of the file's first `size`.

    They have to be there. An address is 0 where the kernel does not tell, which it does only to who
    has CAP_SYS_ADMIN. Raises MachineError.
    """
    try:
        pagemap = os.open(root.proc / "self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise MachineError(f"cannot see where pages lie: {error.strerror}") from error
    try:
        with mmap.mmap(file, size) as mapped:
            return tuple(_address(pagemap, mapped, place) for place in range(0, size, page))
    except OSError as error:
        raise MachineError(f"cannot map a file of {size} bytes: {error.strerror}") from error
    finally:
        os.close(pagemap)


def _address(pagemap: int, mapped: mmap.mmap, place: int) -> int:
    mapped[place]  # brings the page into this process's page table
    start = address_of(mapped, place)
    word = int.from_bytes(os.pread(pagemap, _WORD, start // mmap.PAGESIZE * _WORD), sys.byteorder)
    return (word & _PFN) * mmap.PAGESIZE if word & _PRESENT else 0
