# SPDX-License-Identifier: Apache-2.0
"""Taking memory blocks offline and back, with a deadline.

Sources: Documentation/admin-guide/mm/memory-hotplug.rst, drivers/base/memory.c and
mm/memory_hotplug.c (offline_pages).

The kernel tries for ever to move the pages of a block away: one that is pinned is tried again and
again, and all other blocks wait meanwhile. Only a signal ends it, and then the block is online as
before. So a child process does the writing, which is killed when the time is over.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from zoned.errors import (
    BlockBusy,
    BlockRefused,
    BlockStuck,
    BlockTimeout,
    KernelRefused,
    MachineError,
    NotAsWritten,
    Unsupported,
    ZonedError,
)
from zoned.kernel.memory_block import block_size, read_block
from zoned.model.block import MOVABLE, BlockWord
from zoned.model.topology import BlockState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

    from zoned.kernel.root import Root
    from zoned.model.topology import Block

GRACE = 120.0
"""Seconds that the kernel gets to put a block back after it was stopped. It looks for a signal
only between two rounds over the whole block, which on a busy machine take their time; all other
blocks wait meanwhile, so it is of no use to go on before."""
_TICK = 0.2
_PAUSE = 0.05

# Signals meant for the daemon must not end a write, which would look like a refusal; the parent
# ends it where it wants that, and the kernel does when the parent is gone (PR_SET_PDEATHSIG).
_PROGRAM = """
import ctypes, os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))
if os.getppid() != int(sys.argv[1]):
    sys.exit()
for line in sys.stdin.buffer:
    word, _, path = line[:-1].partition(b" ")
    code = 0
    try:
        file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(file, word)
        finally:
            os.close(file)
    except OSError as error:
        code = error.errno
    os.write(1, b"%d\\n" % code)
"""

# include/uapi/asm-generic/errno.h; Python knows it from 3.14 on.
_EHWPOISON = 133

_REASONS = {
    errno.EBUSY: (BlockBusy, "the kernel cannot move all of its pages away"),
    errno.ENOMEM: (BlockBusy, "the kernel has too little memory left for it"),
    errno.EINTR: (BlockTimeout, "a signal ended it, and the block is as it was"),
    errno.EPERM: (BlockRefused, "the kernel has offlining disabled for it"),
    _EHWPOISON: (BlockRefused, "a page in it is damaged (hwpoison)"),
    errno.ENOENT: (BlockRefused, "there is no such memory block"),
    errno.ENODEV: (BlockRefused, "there is no such memory block"),
    errno.ENXIO: (BlockRefused, "there is no such memory block"),
}


def deadline_of(size: int) -> float:
    """Return how many seconds to give a block of `size` bytes: 30, and 10 for each GiB."""
    return 30.0 + 10.0 * size / (1 << 30)


def _never() -> bool:
    return False


class BlockSwitch:
    """Changes the state of memory blocks, one at a time. A context manager, for one thread.

    The child is started with the first write, and replaced after it had to be killed. It dies
    with the thread that started it.
    """

    def __init__(self, root: Root, *, grace: float = GRACE) -> None:
        """`grace` is how many seconds the kernel gets to put a block back after a deadline."""
        self._root = root
        self._grace = grace
        self._child: subprocess.Popen[bytes] | None = None
        self._lost: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child. A write that the kernel does not let go of is left to it."""
        if self._child is not None:
            self._end(self._child)
            self._child = None
        self._lost = [child for child in self._lost if child.poll() is None]

    def switch(
        self,
        number: int,
        word: BlockWord,
        *,
        deadline: float,
        give_up: Callable[[], bool] = _never,
    ) -> None:
        """Write `word` to the block's `state`; return when the block reads as asked.

        A block that is so already is left alone. After `deadline` seconds, or when `give_up`
        (asked about five times a second) says so, the kernel is stopped.

        Raises BlockBusy, BlockRefused, BlockTimeout (stopped; the block is as it was), BlockStuck
        (stopped, but the block still reads `going-offline`), NotAsWritten (the kernel took the
        word, and somebody else changed the block back), KernelRefused for any other answer,
        Unsupported without memory hotplug, and MachineError where the state cannot be read.
        """
        block = self._read(number)
        if _is_as_asked(block, word):
            return
        if block.state is BlockState.ONLINE and word is not BlockWord.OFFLINE:
            raise BlockRefused(
                f"memory block {number} is online as {' '.join(block.zones) or 'unknown'}, so it"
                f" cannot take {word}",
                hint="take it offline first",
            )
        began = time.monotonic()
        code = self._write(number, word, began + deadline, give_up)
        block = self._read(number)
        if not _is_as_asked(block, word):
            raise _error(block, word, code, time.monotonic() - began)

    def _read(self, number: int) -> Block:
        block = read_block(self._root, number)
        if block is None and block_size(self._root) is None:
            raise Unsupported("this kernel or machine has no memory hotplug")
        if block is None:
            raise BlockRefused(f"there is no memory block {number}")
        return block

    def _write(
        self, number: int, word: BlockWord, until: float, give_up: Callable[[], bool]
    ) -> int | None:
        """Return the kernel's errno, 0 for none; None where it was stopped."""
        child = self._ready()
        path = self._root.sys / f"devices/system/memory/memory{number}/state"
        code = None
        try:
            _tell(child, word, path)
            code = _answer(child, until, give_up)
        finally:
            if code is None:
                self._stop(number)
        return code

    def _ready(self) -> subprocess.Popen[bytes]:
        """Return the child, a new one where there is none that lives."""
        if self._child is not None and self._child.poll() is not None:
            self._end(self._child)
            self._child = None
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-E", "-c", _PROGRAM, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                cwd="/",
            )
        return self._child

    def _stop(self, number: int) -> None:
        """Kill the child, and give the kernel time to put the block back."""
        until = time.monotonic() + self._grace
        if self._child is not None:
            self._end(self._child)
            self._child = None
        while self._read(number).state is BlockState.GOING_OFFLINE and time.monotonic() < until:
            time.sleep(_PAUSE)

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        child.kill()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
        try:
            child.wait(self._grace)
        except subprocess.TimeoutExpired:
            self._lost.append(child)


def _error(block: Block, word: BlockWord, code: int | None, seconds: float) -> ZonedError:
    what = f"memory block {block.id} cannot take {word}"
    if block.state is BlockState.GOING_OFFLINE:
        return BlockStuck(
            f"memory block {block.id} is on its way out and does not come back",
            hint="the kernel's log may say why",
        )
    if code is None:
        return BlockTimeout(f"{what}: the kernel was not done after {seconds:.1f} s")
    if code == errno.EINVAL:
        return BlockRefused(f"{what}: {_why_not(block, word)}")
    if code in _REASONS:
        kind, why = _REASONS[code]
        return kind(f"{what}: {why}")
    if code:
        return KernelRefused(f"{what}: {os.strerror(code)}")
    shown = " ".join([str(block.state or "unknown"), *block.zones])
    return NotAsWritten(
        f"memory block {block.id} reads {shown} after {word} was written to it",
        hint="a udev rule or another program may have changed it back",
    )


def _is_as_asked(block: Block, word: BlockWord) -> bool:
    if word is BlockWord.OFFLINE:
        return block.state is BlockState.OFFLINE
    if block.state is not BlockState.ONLINE:
        return False
    if word is BlockWord.ONLINE or not block.zones:
        return True
    return (block.zones == (MOVABLE,)) == (word is BlockWord.MOVABLE)


def _why_not(block: Block, word: BlockWord) -> str:
    """Return what EINVAL means, as far as the block tells."""
    if word is BlockWord.OFFLINE and "none" in block.zones:
        return "it has memory of several zones or nodes, or holes"
    if word is BlockWord.OFFLINE:
        return "it has holes, or memory that the firmware keeps"
    return f"the zones it can come back to are {' and '.join(block.zones) or 'unknown'}"


def _tell(child: subprocess.Popen[bytes], word: BlockWord, path: Path) -> None:
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # the answer will be missing, too
        child.stdin.write(b"%s %s\n" % (word.encode(), os.fsencode(path)))


def _answer(
    child: subprocess.Popen[bytes], until: float, give_up: Callable[[], bool]
) -> int | None:
    """Return the errno that the child tells; None when time is over. Raises MachineError."""
    assert child.stdout is not None
    poll = select.poll()
    poll.register(child.stdout, select.POLLIN)
    while (left := until - time.monotonic()) > 0 and not give_up():
        if poll.poll(min(_TICK, left) * 1000):
            # One short write: it comes whole.
            text = os.read(child.stdout.fileno(), 64)
            if not text:
                raise MachineError("the process that was to write to a memory block has died")
            return int(text)
    return None
