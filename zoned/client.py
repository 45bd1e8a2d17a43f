# SPDX-License-Identifier: Apache-2.0
"""Buffers for programs that drive a device which cannot reach all memory.

    import zoned.client

    with zoned.client.allocate("4MiB", device="0000:3b:00.0") as buffer:
        for segment in buffer.segments:
            tell_the_device(segment.address, segment.size)
        with buffer.map() as memory:
            memory[:5] = b"hello"

The memory lies where the device reaches it, stays there, and is nobody else's; it ends with the
`with`, or with the process. Which reservations there are, and who besides root may have buffers of
them, the policy of zoned says (zoned.yaml(5), section dma).

All errors are ZonedError, with a `code` that stays the same from version to version (zonectl(1),
ERRORS): `denied`, `no-such-reservation`, `pool-exhausted`, `pool-busy`, `too-many-leases`,
`kernel-only`, `no-daemon` and others.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from types import NoneType
from typing import TYPE_CHECKING

from zoned.api.client import SOCKET, Client
from zoned.api.types_buffers import BufferInfo
from zoned.errors import LeaseGone, NoDaemon, UsageError, ZonedError
from zoned.units import parse_size

if TYPE_CHECKING:
    from typing import Self

__all__ = ("Buffer", "Segment", "ZonedError", "allocate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of a buffer at consecutive physical addresses. All in bytes."""

    address: int
    """physical: what the device is told"""
    size: int
    offset: int
    """where in the buffer's file it begins"""


class Buffer:
    """A buffer, open until it is closed. A context manager."""

    def __init__(self, found: BufferInfo, files: list[int], socket: str | os.PathLike[str]) -> None:
        """Take what the daemon said; for `allocate`."""
        self._socket = socket
        self._maps: list[mmap.mmap] = []
        self.lease = found.lease.number
        """its number, as in `zonectl dma leases`"""
        self.reservation = found.lease.reservation
        self.size = found.lease.size
        """bytes: what was asked for, rounded up"""
        self.granule = found.granule
        """bytes that offsets and lengths of mappings are multiples of"""
        self.segments = tuple(
            Segment(address=each.address, size=each.size, offset=each.offset or 0)
            for each in found.lease.segments
        )
        """in the order in which they follow each other in the buffer"""
        self.fd = files[found.file]
        """the file's descriptor; -1 once closed"""
        self.dmabuf_fd = None if found.dmabuf is None else files[found.dmabuf]
        """the descriptor of the dma-buf, where one was asked for"""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the file's descriptor."""
        return self.fd

    @property
    def contiguous(self) -> bool:
        """Whether it is one piece of its file, so that `map` can map it as a whole."""
        ends = [each.offset + each.size for each in self.segments]
        return all(
            each.offset == end for each, end in zip(self.segments[1:], ends[:-1], strict=True)
        )

    def map(self, segment: Segment | None = None) -> mmap.mmap:
        """Map one segment, or all of the buffer, to read and write. It is unmapped with `close`.

        Raises UsageError where the whole is not one piece of its file, which can be on a device-dax
        region: map the segments one by one then; and where it was closed. Raises OSError where the
        kernel does not map it.
        """
        if self.fd < 0:
            # With no file the kernel would map memory from anywhere.
            raise UsageError(f"lease {self.lease} was closed")
        if segment is None and not self.contiguous:
            raise UsageError(
                f"lease {self.lease} is in {len(self.segments)} pieces of its file",
                hint="map its segments one by one, or ask for one segment",
            )
        offset = (segment or self.segments[0]).offset
        mapped = mmap.mmap(self.fd, segment.size if segment else self.size, offset=offset)
        self._maps.append(mapped)
        return mapped

    def close(self) -> None:
        """Unmap it, close its descriptors and give it back. Again, it does nothing.

        The device must not use it any more. Raises BufferError, and nothing is given back, where
        somebody still has a memoryview of a mapping. The lease ends with the process where no
        daemon can be told of it now.
        """
        if self.fd < 0:
            return
        while self._maps:
            self._maps[-1].close()
            del self._maps[-1]
        os.close(self.fd)
        if self.dmabuf_fd is not None:
            os.close(self.dmabuf_fd)
        self.fd, self.dmabuf_fd = -1, None
        try:
            with Client(self._socket) as client:
                client.call("DmaBuffers.Free", NoneType, lease=self.lease)
        except (LeaseGone, NoDaemon):
            return


def allocate(
    size: int | str,
    *,
    device: str | None = None,
    reservation: str | None = None,
    align: int | str | None = None,
    segments: int | None = None,
    dmabuf: bool = False,
    socket: str | os.PathLike[str] | None = None,
) -> Buffer:
    """Return a buffer of so many bytes (or ``"4MiB"``), wiped.

    It is rounded up to whole pages of its kind, and is of the memory that is reserved for a device
    (its PCI address), or of a reservation by its name. Each segment's address is a multiple of
    `align`, a power of two; there are at most `segments` of them, and as few as what is free
    allows. With `dmabuf` it also comes as a dma-buf for drivers of the kernel (on huge pages only).
    `socket` is the daemon's; else what ``ZONED_SOCKET`` says, else the usual one.

    The lease is of the calling process: where a child inherits the descriptors it ends with the
    parent, and the memory is free when neither has it mapped any more.

    Raises ZonedError.
    """
    place = socket or os.environ.get("ZONED_SOCKET") or SOCKET
    asked = {
        "size": parse_size(size),
        "device": device,
        "reservation": reservation,
        "align": None if align is None else parse_size(align),
        "segments": segments,
        "dmabuf": dmabuf or None,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    with Client(place) as client:
        found, files = client.call_for_files("DmaBuffers.Alloc", BufferInfo, **given)
    return Buffer(found, files, place)
