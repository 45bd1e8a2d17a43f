# SPDX-License-Identifier: Apache-2.0
"""The varlink interface of memory for devices. As `zoned.api.interfaces`."""

from asyncvarlink import VarlinkInterface, varlinkmethod

from zoned.api.backend import Backend
from zoned.api.failed import Failed
from zoned.api.types import AlertInfo, JobInfo
from zoned.api.types_dma import ReservationInfo


class Dma(VarlinkInterface, name="io.zoned.Dma"):
    """Memory for devices that cannot reach all of it. Sizes and addresses are bytes."""

    errors = (Failed,)

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @varlinkmethod(return_parameter="reservations")
    async def List(self) -> list[ReservationInfo]:
        """List what is wanted for devices, and what is reserved for them."""
        return await self._backend.dma_list()

    @varlinkmethod(return_parameter="job")
    async def Reserve(
        self,
        *,
        device: str,
        size: int,
        name: str | None = None,
        limit: str | None = None,
        rungs: list[str] | None = None,
    ) -> JobInfo:
        """Reserve memory for a device, and again whenever it is there.

        limit is a number of address bits or the highest address, like "31" or "0x7fffffff".
        """
        return await self._backend.dma_reserve(
            device=device, size=size, name=name, limit=limit, rungs=rungs
        )

    @varlinkmethod(return_parameter="job")
    async def Release(self, *, name: str) -> JobInfo:
        """Give back what Reserve reserved: name is of the reservation, or of its device."""
        return await self._backend.dma_release(name)

    @varlinkmethod(return_parameter="alerts")
    async def Check(self) -> list[AlertInfo]:
        """Look at all that is reserved, and tell what is missing or broken."""
        return await self._backend.dma_check()

    @varlinkmethod(return_parameter="job")
    async def Prepare(self, *, device: str) -> JobInfo | None:
        """Tell which job a driver of the device should wait for; null where there is none."""
        return await self._backend.dma_prepare(device)
