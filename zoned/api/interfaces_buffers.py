# SPDX-License-Identifier: Apache-2.0
"""The varlink interface for buffers of memory that is reserved for devices.

The library reads annotations at import, so they stay real objects here.
"""

from dataclasses import dataclass

from asyncvarlink import FileDescriptor, VarlinkInterface, varlinkmethod

from zoned.api.backend import Backend
from zoned.api.failed import Failed
from zoned.api.types_buffers import LeaseInfo, LeasesInfo


class _Handed(FileDescriptor):
    """A descriptor that is closed when it was sent, or could not be."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, should_close=True)

    def __del__(self) -> None:
        # Who wanted no reply gets none, and no warning is due for that.
        self.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """A buffer with its descriptors: `zoned.api.types_buffers.BufferInfo` as it is sent."""

    lease: LeaseInfo
    granule: int
    file: FileDescriptor
    dmabuf: FileDescriptor | None


class DmaBuffers(VarlinkInterface, name="io.zoned.DmaBuffers"):
    """Buffers of memory that is reserved for devices, for programs that drive them."""

    errors = (Failed,)

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @varlinkmethod(return_parameter="buffer")
    async def Alloc(
        self,
        *,
        size: int,
        reservation: str | None = None,
        device: str | None = None,
        align: int | None = None,
        segments: int | None = None,
        dmabuf: bool | None = None,
    ) -> Buffer:
        """Lend the calling process a buffer, of a reservation or of what there is for a device.

        It is wiped, and ends with the process. Each segment's address is a multiple of align;
        segments is the most that there may be. file and dmabuf are indices of the descriptors that
        come with the reply; a mapping of the file is shared, and begins where its segment does.
        """
        handed = await self._backend.alloc_buffer(
            reservation, device, size, align=align, segments=segments, dmabuf=bool(dmabuf)
        )
        return Buffer(
            lease=handed.lease,
            granule=handed.granule,
            file=_Handed(handed.file),
            dmabuf=None if handed.dmabuf is None else _Handed(handed.dmabuf),
        )

    @varlinkmethod
    async def Free(self, *, lease: int) -> None:
        """End a lease of the calling process, with root of any.

        The memory is free when no process has the file open or mapped.
        """
        await self._backend.free_buffer(lease)

    @varlinkmethod(return_parameter="found")
    async def Leases(self) -> LeasesInfo:
        """List the leases, with their reservations: those of the caller's user, or all."""
        return await self._backend.list_buffers()
