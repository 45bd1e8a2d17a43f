# SPDX-License-Identifier: Apache-2.0
"""Where the kernel's areas for contiguous memory (CMA) lie.

No file says so. The kernel's log of the boot does, for as long as it is not overwritten, and the
command line sets bounds for one area. Either is relied on only where it accounts for all of the
areas: newer kernels may make one of that size for each node besides (seen on 7.3).

Sources: kernel/dma/contiguous.c, mm/cma.c ("Reserved … MiB at"),
Documentation/ABI/testing/dev-kmsg, Documentation/admin-guide/kernel-parameters.txt (`cma=`,
`hugetlb_cma=`).
"""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING

from zoned.kernel.attribute import attribute
from zoned.kernel.memparse import AMOUNT, amount
from zoned.model.dma.offer import Span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned.kernel.root import Root

_GIVEN = re.compile(rf"{AMOUNT}@{AMOUNT}(?:-{AMOUNT})?")
_RESERVED = re.compile(r"[;\s]cma: Reserved (\d+) MiB at (0x[0-9a-f]+)")
_RECORD = 8192
"""bytes, more than any record of the log has (CONSOLE_EXT_LOG_MAX)"""


def find_areas(root: Root, total: int) -> tuple[Span, ...] | None:
    """Return where areas of `total` bytes in all lie, each at the highest that it may.

    None where that is not known of all of them, or some are for huge pages alone.
    """
    words = (attribute(root.proc / "cmdline") or "").split()
    if not total or any(word.startswith("hugetlb_cma=") for word in words):
        return None
    for found in (_logged(root), _given(words)):
        if sum(span.size for span in found) == total:
            return found
    return None


def _given(words: Sequence[str]) -> tuple[Span, ...]:
    """Return the area that the command line asks for; none where it does not say where."""
    given = [word.removeprefix("cma=") for word in words if word.startswith("cma=")]
    match = _GIVEN.fullmatch(given[-1]) if given else None
    if match is None:
        return ()
    size, start, end = (amount(*match.group(at, at + 1)) for at in (1, 3, 5))
    return (Span((end or start + size) - size, size),)


@functools.cache
def _logged(root: Root) -> tuple[Span, ...]:
    """Return the areas that the log of this boot tells of. They never change while it lasts."""
    text = "".join(_records(root))
    return tuple(Span(int(at, 16), int(size) << 20) for size, at in _RESERVED.findall(text))


def _records(root: Root) -> Iterator[str]:
    """Yield what is left of the kernel's log; nothing to those who may not know it."""
    try:
        file = os.open(root.dev / "kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        while record := _record(file):
            yield record.decode(errors="replace")
    finally:
        os.close(file)


def _record(file: int) -> bytes:
    while True:
        try:
            return os.read(file, _RECORD)
        except BrokenPipeError:
            continue  # Records were overwritten meanwhile; the next read is of what is left.
        except OSError:
            return b""  # The end (EAGAIN), or nobody may know more.
