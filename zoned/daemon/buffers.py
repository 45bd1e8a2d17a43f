# SPDX-License-Identifier: Apache-2.0
"""Buffers for programs: who may have one, and that each ends with its program.

What takes long or waits for the kernel runs in threads beside the event loop: looking and handing
out in one that looks, what changes the ledger in the one that changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from functools import partial
from typing import TYPE_CHECKING

from zoned.daemon.peer import caller
from zoned.daemon.views_buffers import leases_info
from zoned.engine.dma.allot_buffer import usage
from zoned.engine.dma.leases import LeaseBook
from zoned.errors import NoSuchProcess, PoolBusy, PoolExhausted, TooManyLeases, ZonedError
from zoned.kernel.pidfd import open_pidfd
from zoned.kernel.process import Process, alive
from zoned.model.dma.rung import Rung
from zoned.model.dma.wish import lessees

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from zoned.api.types_buffers import LeasesInfo
    from zoned.daemon.peer import Peer
    from zoned.daemon.worker import Worker
    from zoned.engine.dma.allot_buffer import Asked, Usage
    from zoned.engine.dma.leases import Handed
    from zoned.engine.machine import Machine
    from zoned.model.dma.held import Held, Lease

_log = logging.getLogger(__name__)

FIRST_LOOK = 0.05
LAST_LOOK = 5.0
"""Seconds between looks whether memory is back: the first, and the most that it becomes."""
WAIT = 2.0
"""Seconds that a program waits for memory that is on its way back."""
BLIND = 0.5
"""Seconds between looks at programs of whose end the kernel does not tell."""

_Key = tuple[int, int]
"""pid and start time"""


class BufferDesk:
    """The leases of one machine, as the event loop sees them. For its thread alone."""

    def __init__(
        self,
        machine: Machine,
        worker: Worker,
        freed: Callable[[Mapping[str, bool]], None] = lambda _: None,
    ) -> None:
        """Take what is told, in the thread that changes, of which reservations buffers are over,
        and whether one has lost memory.
        """
        self._freed = freed
        self._machine = machine
        self._worker = worker
        self._book = LeaseBook(machine)
        self._watched: dict[_Key, int | None] = {}
        """program -> its pidfd"""
        self._asking: dict[_Key, int] = {}
        """programs whose requests are under way, and how many"""
        self._tasks: set[asyncio.Task[None]] = set()
        self._something_ends = asyncio.Event()
        self._back = asyncio.Event()
        """Set, and then another one, when memory is back."""

    async def start(self) -> None:
        """Go on with the leases on record: those of programs that are no more end."""
        for lease in self._book.all:
            if not lease.ending:
                await self._watch(_holder(lease))
        self._keep(asyncio.create_task(self._take_back()))
        self._something_ends.set()

    async def stop(self) -> None:
        """Watch no more. Leases stay as they are."""
        for key in list(self._watched):
            self._forget_program(key)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def alloc(
        self,
        peer: Peer,
        reservation: str | None,
        device: str | None,
        asked: Asked,
        *,
        dmabuf: bool,
    ) -> Handed:
        """Lend the caller a buffer. Whoever gets it closes its descriptors.

        Raises Denied, and what `LeaseBook` does.
        """
        held = self._book.find(reservation, device)
        allowed = lessees(self._machine.policy.dma, held.name)
        peer.require_lessee(allowed.users, allowed.groups, held.name)
        process = await self._worker.look(lambda: caller(self._machine.root, peer))
        key = (process.pid, process.start_time)
        self._asking[key] = self._asking.get(key, 0) + 1
        try:
            await self._watch(process)
            return await self._lend(held.name, process, peer.uid, asked, dmabuf=dmabuf)
        finally:
            self._asking[key] -= 1
            if not self._asking[key]:
                del self._asking[key]
            self._something_ends.set()

    async def _lend(
        self, name: str, process: Process, uid: int, asked: Asked, *, dmabuf: bool
    ) -> Handed:
        book = self._book
        lease = await self._begin(name, process, uid, asked)
        handed = await self._worker.look(lambda: book.hand_out(lease, dmabuf=dmabuf))
        try:
            await self._worker.change(lambda: book.confirm(handed))
        except ZonedError:
            handed.close()
            raise
        _log.debug(
            "lease %d: %d bytes of %s for process %d", lease.number, lease.size, name, process.pid
        )
        if (process.pid, process.start_time) not in self._watched:
            # It ended before the lease could end with it.
            handed.close()
            await self._worker.change(lambda: book.end_all_of(process.pid, process.start_time))
            raise NoSuchProcess(f"process {process.pid} has ended")
        return handed

    async def _begin(self, name: str, process: Process, uid: int, asked: Asked) -> Lease:
        """Set memory aside, and wait a little for what others, or it itself, have just given back.

        What was closed takes its time: the kernel frees it, and then it is fetched again.
        """
        book, loop = self._book, asyncio.get_running_loop()
        deadline = loop.time() + WAIT
        while True:
            # Before the look: what comes back while it is taken counts.
            back = self._back
            held = book.find(name, None)
            spans = await self._worker.look(partial(book.spans, held))
            begin = partial(book.begin, name, process, uid, asked, spans)
            try:
                return await self._worker.change(begin)
            except (PoolExhausted, PoolBusy, TooManyLeases):
                coming = back.is_set() or book.returning(name)
                if not coming or loop.time() >= deadline:
                    raise
            self._something_ends.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await back.wait()

    async def free(self, peer: Peer, number: int) -> None:
        """End a lease of the caller, or with root any. Raises LeaseGone."""
        pid = None if peer.is_root else peer.pid
        await self._worker.change(lambda: self._book.end(number, pid))
        self._something_ends.set()

    async def leases(self, peer: Peer) -> LeasesInfo:
        """Return the leases that the caller may see: those of its user, or all; and the
        reservations that it may see or have buffers of.
        """
        everything = peer.is_reader
        pools = await self._worker.look(lambda: self._pools(peer))
        lent = self._book.all
        seen = [each for each in lent if everything or each.uid == peer.uid]
        return leases_info(seen, pools, lent)

    def _pools(self, peer: Peer) -> list[tuple[Held, Usage | None]]:
        found: list[tuple[Held, Usage | None]] = []
        for _, held in sorted(self._machine.ledger.touched.reservations.items()):
            allowed = lessees(self._machine.policy.dma, held.name)
            may = peer.is_reader or peer.is_one_of(allowed.users, allowed.groups)
            if may and held.standing and held.rung in {Rung.DEVDAX, Rung.HUGETLB}:
                found.append((held, self._usage(held)))
        return found

    def _usage(self, held: Held) -> Usage | None:
        try:
            return usage(self._book.free(held, self._book.spans(held)))
        except ZonedError as error:
            _log.warning("cannot tell what is free of %s: [%s] %s", held.name, error.code, error)
            return None

    async def _watch(self, process: Process) -> None:
        """Have the program's leases end with it. Where it is no more, they end now."""
        key = (process.pid, process.start_time)
        if key in self._watched:
            return
        file = open_pidfd(self._machine.root, process)
        if file is None and not alive(self._machine.root, process):
            await self._worker.change(lambda: self._book.end_all_of(*key))
            self._something_ends.set()
            return
        self._watched[key] = file
        if file is None:
            self._keep(asyncio.create_task(self._poll(process)))
        else:
            asyncio.get_running_loop().add_reader(file, self._ended, key)

    async def _poll(self, process: Process) -> None:
        """Notice the end of a program for which there is no pidfd."""
        key = (process.pid, process.start_time)
        while key in self._watched and alive(self._machine.root, process):
            await asyncio.sleep(BLIND)
        if key in self._watched:
            self._ended(key)

    def _ended(self, key: _Key) -> None:
        self._forget_program(key)
        self._keep(asyncio.create_task(self._end_all_of(key)))

    async def _end_all_of(self, key: _Key) -> None:
        await self._worker.change(lambda: self._book.end_all_of(*key))
        self._something_ends.set()

    def _forget_program(self, key: _Key) -> None:
        file = self._watched.pop(key, None)
        if file is not None:
            asyncio.get_running_loop().remove_reader(file)
            os.close(file)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("looking after buffers failed in an unexpected way", exc_info=error)

    async def _take_back(self) -> None:
        """Have memory of leases that are over back, as soon as the programs let go of it."""
        while True:
            await self._something_ends.wait()
            pause = FIRST_LOOK
            while self._something_ends.is_set() or self._book.ending:
                self._something_ends.clear()
                await self._look_once()
                if not self._book.ending:
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._something_ends.wait()
                pause = FIRST_LOOK if self._something_ends.is_set() else min(2 * pause, LAST_LOOK)

    async def _look_once(self) -> None:
        try:
            numbers = await self._worker.look(self._book.take_back)
            if numbers:
                await self._worker.change(lambda: self._freed(self._book.forget(numbers)))
                self._back.set()
                self._back = asyncio.Event()
        except ZonedError as error:
            _log.error("cannot take memory back: [%s] %s", error.code, error)
        holders = {(each.pid, each.start_time) for each in self._book.all if not each.ending}
        for key in self._watched.keys() - holders - self._asking.keys():
            self._forget_program(key)


def _holder(lease: Lease) -> Process:
    return Process(pid=lease.pid, start_time=lease.start_time, name="", uid=lease.uid, ppid=0)
