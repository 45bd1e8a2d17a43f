# SPDX-License-Identifier: Apache-2.0
"""The daemon's life: start, react to events and signals, stop and leave the zones as they are."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from zoned.daemon.backend import PeerBackend
from zoned.daemon.buffers import BufferDesk
from zoned.daemon.events import Events
from zoned.daemon.fence import FenceGuard
from zoned.daemon.jobs import JobDesk
from zoned.daemon.machine import RUNTIME, STATE, build_machine
from zoned.daemon.notify import notify, watchdog_interval
from zoned.daemon.server import Server
from zoned.daemon.stopwatch import Stopwatch
from zoned.daemon.worker import Worker
from zoned.engine.engine import Engine
from zoned.engine.jobs.book import JobBook
from zoned.engine.jobs.runner import JobRunner
from zoned.errors import MachineError, PolicyError, Unsupported, ZonedError
from zoned.kernel.dma_offer import load_page_readers
from zoned.kernel.mark_files import keep_marks
from zoned.kernel.own import boot_id
from zoned.kernel.state_file import lock_folder
from zoned.model.dma.marks import marks
from zoned.policy.files import DIRECTORIES
from zoned.policy.load import load

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from zoned.daemon.machine import Options
    from zoned.model.policy import Policy

_log = logging.getLogger(__name__)

RESYNC = 60.0
"""Seconds after which the machine is looked at again even if no event came."""

MARKS = "dma-wanted"
"""The folder in which udev's rule finds for which devices something is wanted."""


class Service:
    """One running daemon."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._worker = Worker()
        self._dirty = asyncio.Event()
        self._devices = asyncio.Event()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Run until a signal says stop. Raises ZonedError where it cannot start."""
        lock = lock_folder(self._options.state or RUNTIME)
        try:
            await self._run()
        finally:
            self._worker.stop()
            os.close(lock)

    async def _run(self) -> None:
        engine = Engine(build_machine(self._options), self._loader())
        if engine.machine.own_memory is not None:
            self._worker.prepare = engine.machine.own_memory.follow
        stopwatch = Stopwatch(lambda: engine.machine.ledger.touched.reservations.values())
        runner = engine.jobs = self._runner(engine, stopwatch)
        # Events first, the first look second: what changes in between is not missed.
        events = self._listen_to_events(stopwatch)
        guard = FenceGuard(engine.machine, self._dirty.set)
        await self._worker.change(engine.start)
        desk = JobDesk(runner)
        buffers = BufferDesk(engine.machine, self._worker, self._freed(engine))
        backend = functools.partial(PeerBackend, engine, self._worker, desk, buffers)
        server = Server(self._options.socket, backend)
        try:
            await self._worker.change(runner.resume_all)
            await buffers.start()
            # With jobs possible: for what came while nobody was there to see it.
            self._dirty.set()
            self._devices.set()
            server.start()
            await self._until_told(engine)
        finally:
            # Jobs first: clients that follow one would keep the server from ending.
            await self._end_jobs(desk)
            await server.stop()
            await buffers.stop()
            engine.machine.pools.close()
            guard.close()
            if events is not None:
                events.close()
        _log.info("stopped; zones stay as they are")

    async def _until_told(self, engine: Engine) -> None:
        self._listen_to_signals()
        notify("READY=1", f"STATUS={len(engine.machine.store.zones)} zones")
        _log.info("ready, listening on %s", self._options.socket)
        async with asyncio.TaskGroup() as tasks:
            endless = self._keep(engine), self._keep_devices(engine), self._watchdog()
            loops = [tasks.create_task(each) for each in endless]
            await self._stopping.wait()
            notify("STOPPING=1")
            for loop in loops:
                loop.cancel()

    def _loader(self) -> Callable[[], Policy]:
        """Return what loads the policy, and has the devices looked at once it is in force."""
        directories = (self._options.config,) if self._options.config else DIRECTORIES
        loop = asyncio.get_running_loop()

        def load_policy() -> Policy:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                # The look waits for the thread that is loading.
                loop.call_soon_threadsafe(self._devices.set)
            return load(directories)

        return load_policy

    def _freed(self, engine: Engine) -> Callable[[Mapping[str, bool]], None]:
        """Return what is told of buffers that are over."""
        loop = asyncio.get_running_loop()

        def look_again(reservations: Mapping[str, bool]) -> None:
            if engine.dma_freed(reservations):
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(self._devices.set)

        return look_again

    def _runner(self, engine: Engine, stopwatch: Stopwatch) -> JobRunner:
        """Return what runs jobs. Raises StateDamaged."""
        book = JobBook(self._options.state or STATE, boot_id(engine.machine.root))
        runner = JobRunner(book, engine.bodies(), self._worker.change_and_wait)
        loop = asyncio.get_running_loop()

        def look_after(number: int) -> None:
            # What a job left half-way is an alert from its end on, not a minute later.
            if number not in runner.unfinished:
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(stopwatch.look)
                    loop.call_soon_threadsafe(self._dirty.set)

        runner.subscribe(look_after)
        return runner

    async def _end_jobs(self, desk: JobDesk) -> None:
        desk.stop()
        # They may need the thread that changes the machine to get to where they can stop.
        await asyncio.to_thread(desk.runner.stop)

    def _listen_to_events(self, stopwatch: Stopwatch) -> Events | None:
        try:
            return Events(self._dirty.set, self._devices.set, stopwatch)
        except Unsupported as error:
            _log.warning("%s; looking every %d s instead", error, RESYNC)
            return None

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)

    def _on_hangup(self) -> None:
        self._reload_wanted = True
        self._dirty.set()

    _reload_wanted = False

    async def _keep(self, engine: Engine) -> None:
        """Look again whenever something happened, and every minute."""
        while True:
            with contextlib.suppress(TimeoutError):
                # Not wait_for: before Python 3.12 it forgets that it was cancelled where the event
                # comes at the same moment, and the daemon would not end.
                async with asyncio.timeout(RESYNC):
                    await self._dirty.wait()
            self._dirty.clear()
            await self._tick(engine)

    async def _keep_devices(self, engine: Engine) -> None:
        """Look at the devices again when one came or went: the rest of a look would take longer
        than the driver does.
        """
        while True:
            await self._devices.wait()
            self._devices.clear()
            await self._guarded(self._worker.change(functools.partial(self._look, engine)))

    def _look(self, engine: Engine) -> None:
        """Look at the devices, and tell udev's rule for which of them it is to wait."""
        machine = engine.machine
        wanted = marks(machine.policy.dma.wishes) | machine.manual.wishes.keys()
        try:
            keep_marks((self._options.state or RUNTIME) / MARKS, wanted)
        except MachineError as error:
            _log.error("[%s] %s", error.code, error)
        engine.dma_look()
        if wanted:
            load_page_readers()

    async def _tick(self, engine: Engine) -> None:
        if self._reload_wanted:
            self._reload_wanted = False
            await self._guarded(self._reload(engine))
        else:
            await self._guarded(self._worker.change(engine.tick))

    async def _guarded(self, look: Coroutine[Any, Any, None]) -> None:
        """Look at something; a failure is written down, and does not end the daemon."""
        try:
            await look
        except ZonedError as error:
            _log.error("[%s] %s", error.code, error)
        except Exception:
            _log.exception("looking at the machine failed in an unexpected way")

    async def _reload(self, engine: Engine) -> None:
        notify(
            "RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
        )
        try:
            await self._worker.change(engine.reload)
        except PolicyError as error:
            _log.error("%s", error)
        finally:
            notify("READY=1", f"STATUS={len(engine.machine.store.zones)} zones")

    async def _watchdog(self) -> None:
        interval = watchdog_interval()
        while interval is not None:
            notify("WATCHDOG=1")
            await asyncio.sleep(interval)
