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
from dataclasses import dataclass
from pathlib import Path

from zoned.daemon.backend import PeerBackend
from zoned.daemon.fence import FenceGuard
from zoned.daemon.jobs import JobDesk
from zoned.daemon.notify import notify, watchdog_interval
from zoned.daemon.server import Server
from zoned.daemon.worker import Worker
from zoned.engine.dma.manual import ManualStore
from zoned.engine.engine import Engine
from zoned.engine.jobs.book import JobBook
from zoned.engine.jobs.runner import JobRunner
from zoned.engine.ledger import Ledger
from zoned.engine.machine import Machine
from zoned.engine.store import Store
from zoned.errors import PolicyError, Unsupported, ZonedError
from zoned.kernel.cgroup.detect import choose_driver, choose_fence, choose_units
from zoned.kernel.own import boot_id
from zoned.kernel.own_policy import OwnMemory
from zoned.kernel.root import Root, sysroot
from zoned.kernel.state_file import lock_folder
from zoned.kernel.udev import EventMonitor
from zoned.policy.files import DIRECTORIES
from zoned.policy.load import load

_log = logging.getLogger(__name__)

RESYNC = 60.0
"""Seconds after which the machine is looked at again even if no event came."""

_SUBSYSTEMS = ("memory", "node")
_STATE = Path("/var/lib/zoned")
_RUNTIME = Path("/run/zoned")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line said."""

    config: Path | None
    socket: Path
    state: Path | None
    sysroot: Path | None
    group: str


def build_machine(options: Options) -> Machine:
    """Return the machine that the options point at. Raises Unsupported, StateDamaged."""
    root = sysroot(options.sysroot) if options.sysroot else Root()
    return Machine(
        root=root,
        groups=choose_driver(root, options.group),
        units=choose_units(root, options.group),
        store=Store(options.state or _STATE),
        ledger=Ledger(options.state or _RUNTIME, boot_id(root)),
        manual=ManualStore(options.state or _STATE),
        fence=choose_fence(root, options.group),
        own_memory=OwnMemory(root) if root.live else None,
    )


class Service:
    """One running daemon."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._worker = Worker()
        self._dirty = asyncio.Event()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Run until a signal says stop. Raises ZonedError where it cannot start."""
        lock = lock_folder(self._options.state or _RUNTIME)
        try:
            await self._run()
        finally:
            self._worker.stop()
            os.close(lock)

    async def _run(self) -> None:
        directories = (self._options.config,) if self._options.config else DIRECTORIES
        engine = Engine(build_machine(self._options), lambda: load(directories))
        if engine.machine.own_memory is not None:
            self._worker.prepare = engine.machine.own_memory.follow
        runner = engine.jobs = self._runner(engine)
        # Events first, the first look second: what changes in between is not missed.
        monitor = self._listen_to_events()
        guard = FenceGuard(engine.machine, self._dirty.set)
        await self._worker.change(engine.start)
        desk = JobDesk(runner)
        backend = functools.partial(PeerBackend, engine, self._worker, desk)
        server = Server(self._options.socket, backend)
        try:
            await self._worker.change(runner.resume_all)
            # With jobs possible: for what came while nobody was there to see it.
            self._dirty.set()
            server.start()
            await self._until_told(engine)
        finally:
            # Jobs first: clients that follow one would keep the server from ending.
            await self._end_jobs(desk)
            await server.stop()
            guard.close()
        del monitor
        _log.info("stopped; zones stay as they are")

    async def _until_told(self, engine: Engine) -> None:
        self._listen_to_signals()
        notify("READY=1", f"STATUS={len(engine.machine.store.zones)} zones")
        _log.info("ready, listening on %s", self._options.socket)
        async with asyncio.TaskGroup() as tasks:
            loops = [tasks.create_task(self._keep(engine)), tasks.create_task(self._watchdog())]
            await self._stopping.wait()
            notify("STOPPING=1")
            for loop in loops:
                loop.cancel()

    def _runner(self, engine: Engine) -> JobRunner:
        """Return what runs jobs. Raises StateDamaged."""
        book = JobBook(self._options.state or _STATE, boot_id(engine.machine.root))
        runner = JobRunner(book, engine.bodies(), self._worker.change_and_wait)
        loop = asyncio.get_running_loop()

        def look_after(number: int) -> None:
            # What a job left half-way is an alert from its end on, not a minute later.
            if number not in runner.unfinished:
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(self._dirty.set)

        runner.subscribe(look_after)
        return runner

    async def _end_jobs(self, desk: JobDesk) -> None:
        desk.stop()
        # They may need the thread that changes the machine to get to where they can stop.
        await asyncio.to_thread(desk.runner.stop)

    def _listen_to_events(self) -> EventMonitor | None:
        try:
            monitor = EventMonitor(_SUBSYSTEMS)
        except Unsupported as error:
            _log.warning("%s; looking every %d s instead", error, RESYNC)
            return None

        def on_events() -> None:
            for event in monitor.drain():
                _log.info("event: %s", event)
                self._dirty.set()

        asyncio.get_running_loop().add_reader(monitor.fileno(), on_events)
        return monitor

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

    async def _tick(self, engine: Engine) -> None:
        try:
            if self._reload_wanted:
                self._reload_wanted = False
                await self._reload(engine)
            else:
                await self._worker.change(engine.tick)
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
