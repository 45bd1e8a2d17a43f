# SPDX-License-Identifier: Apache-2.0
"""Writes that never end: the child that does them, its deadline, and how it dies."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_sys import add_block
from tests.unit.kernel.block_state.block import LONG, SIZE, block_file
from zoned.errors import BlockBusy, BlockStuck, BlockTimeout, MachineError
from zoned.kernel import block_state
from zoned.kernel.block_state import BlockSwitch, deadline_of
from zoned.model.block import BlockWord
from zoned.model.topology import Block, BlockState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zoned.kernel.root import Root

AT_ONCE = 0.05


def child_of(switch: BlockSwitch) -> int:
    assert switch._child is not None
    return switch._child.pid


def lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(probe: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + LONG
    while not probe():
        assert time.monotonic() < until, what
        time.sleep(0.01)


@pytest.fixture
def full_pipe(root: Root) -> Iterator[int]:
    """Make `state` a pipe that is full: whoever writes to it waits in the kernel."""
    block_file(root, "state").unlink()
    os.mkfifo(block_file(root, "state"))
    pipe = os.open(block_file(root, "state"), os.O_RDWR | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe, bytes(4096))
    yield pipe
    os.close(pipe)


@pytest.fixture
def endless(full_pipe: int, monkeypatch: pytest.MonkeyPatch) -> list[Block]:
    """Let the child wait in the kernel.

    What the block reads is what the list says, the last for good.
    """
    assert full_pipe
    shown = [Block(id=3, start=3 * SIZE, size=SIZE, state=BlockState.ONLINE, zones=("Normal",))]
    monkeypatch.setattr(
        block_state, "read_block", lambda *_: shown.pop(0) if len(shown) > 1 else shown[0]
    )
    return shown


def test_one_child_serves_for_all(root: Root, switch: BlockSwitch, tmp_path: Path) -> None:
    add_block(tmp_path, 4, state="online", zones="Normal")
    switch.switch(3, BlockWord.OFFLINE, deadline=LONG)
    first = child_of(switch)
    switch.switch(4, BlockWord.OFFLINE, deadline=LONG)
    assert child_of(switch) == first
    switch.close()
    assert not lives(first)


@pytest.mark.usefixtures("endless")
def test_the_kernel_is_stopped_at_the_deadline(switch: BlockSwitch) -> None:
    with pytest.raises(BlockTimeout, match=r"not done after \d+\.\d s"):
        switch.switch(3, BlockWord.OFFLINE, deadline=AT_ONCE)
    assert switch._child is None
    assert switch._lost == []


@pytest.mark.usefixtures("endless")
def test_the_kernel_is_stopped_when_the_caller_gives_up(switch: BlockSwitch) -> None:
    seen: list[int] = []

    def third_time() -> bool:
        seen.append(child_of(switch))
        assert lives(seen[0])
        return len(seen) == 3

    with pytest.raises(BlockTimeout):
        switch.switch(3, BlockWord.OFFLINE, deadline=LONG, give_up=third_time)
    assert len(seen) == 3
    assert not lives(seen[0])


@pytest.mark.usefixtures("endless")
def test_a_caller_that_is_interrupted_leaves_no_child(switch: BlockSwitch) -> None:
    seen: list[int] = []

    def interrupted() -> bool:
        seen.append(child_of(switch))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        switch.switch(3, BlockWord.OFFLINE, deadline=LONG, give_up=interrupted)
    assert not lives(seen[0])


def test_done_at_the_last_moment_is_done(switch: BlockSwitch, endless: list[Block]) -> None:
    endless.append(replace(endless[0], state=BlockState.OFFLINE))
    switch.switch(3, BlockWord.OFFLINE, deadline=AT_ONCE)


def test_putting_the_block_back_is_waited_for(switch: BlockSwitch, endless: list[Block]) -> None:
    going = replace(endless[0], state=BlockState.GOING_OFFLINE)
    endless += [going, going, going, endless[0]]
    with pytest.raises(BlockTimeout):
        switch.switch(3, BlockWord.OFFLINE, deadline=AT_ONCE)
    assert len(endless) == 1


def test_a_block_that_never_comes_back(root: Root, endless: list[Block]) -> None:
    endless.append(replace(endless[0], state=BlockState.GOING_OFFLINE))
    with (
        BlockSwitch(root, grace=0.1) as switch,
        pytest.raises(BlockStuck, match="block 3 is on its way out"),
    ):
        switch.switch(3, BlockWord.OFFLINE, deadline=AT_ONCE)


def writes(child: int, root: Root) -> bool:
    """Tell whether the child has opened the block's `state`, which it does just to write."""
    files = Path(f"/proc/{child}/fd").iterdir()
    with contextlib.suppress(FileNotFoundError):  # closed while we looked
        return str(block_file(root, "state")) in [str(file.readlink()) for file in files]
    return False


def test_signals_of_the_daemon_do_not_end_a_write(
    root: Root, switch: BlockSwitch, endless: list[Block], full_pipe: int
) -> None:
    asked: list[int] = []

    def ask() -> bool:
        if not asked:
            asked.append(child_of(switch))
            wait_until(lambda: writes(asked[0], root), "the child writes")
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(asked[0], number)
            endless[0] = replace(endless[0], state=BlockState.OFFLINE)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.read(full_pipe, 4096)
        return False

    switch.switch(3, BlockWord.OFFLINE, deadline=LONG, give_up=ask)
    assert lives(asked[0])


def test_a_new_child_comes_after_one_that_was_killed(
    switch: BlockSwitch, play: Callable[..., None]
) -> None:
    play("hang")
    with pytest.raises(BlockTimeout):
        switch.switch(3, BlockWord.OFFLINE, deadline=AT_ONCE)
    play(0, "offline")
    switch.switch(3, BlockWord.OFFLINE, deadline=LONG)


def test_a_child_that_died_is_said_and_replaced(
    switch: BlockSwitch, play: Callable[..., None]
) -> None:
    play("die")
    with pytest.raises(MachineError, match="has died"):
        switch.switch(3, BlockWord.OFFLINE, deadline=LONG)
    play(errno.EBUSY)
    with pytest.raises(BlockBusy):
        switch.switch(3, BlockWord.OFFLINE, deadline=LONG)
    killed = child_of(switch)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not lives(killed), "the child is dead")
    play(0, "offline")
    switch.switch(3, BlockWord.OFFLINE, deadline=LONG)


_PARENT = """
import sys
from pathlib import Path
from zoned.kernel import block_state
from zoned.kernel.root import Root
from zoned.model.block import BlockWord
from zoned.model.topology import Block, BlockState
block = Block(id=3, start=0, size=1, state=BlockState.ONLINE)
block_state.read_block = lambda *_: block
switch = block_state.BlockSwitch(Root(sys=Path(sys.argv[1])))
said = []
def say():
    if not said:
        said.append(print(switch._child.pid, flush=True))
    return False
switch.switch(3, BlockWord.OFFLINE, deadline=600, give_up=say)
"""


@pytest.mark.usefixtures("endless")
def test_the_child_dies_with_its_parent(root: Root) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(root.sys)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[4],
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        wait_until(lambda: writes(child, root), "the child writes")
        parent.kill()
    wait_until(lambda: not lives(child), "the child is gone")


def test_another_thread_may_be_where_the_child_is_started(
    root: Root, switch: BlockSwitch, tmp_path: Path
) -> None:
    """The child dies with the thread that started it, which the next write must survive."""
    first = threading.Thread(
        target=switch.switch, args=(3, BlockWord.OFFLINE), kwargs={"deadline": LONG}
    )
    first.start()
    first.join()
    wait_until(lambda: not lives(child_of(switch)), "the child went with its thread")
    add_block(tmp_path, 4, state="online", zones="Normal")
    switch.switch(4, BlockWord.OFFLINE, deadline=LONG)


@pytest.mark.parametrize(("size", "seconds"), [(128 << 20, 31.25), (2 << 30, 50.0)])
def test_larger_blocks_get_more_time(size: int, seconds: float) -> None:
    assert deadline_of(size) == seconds
