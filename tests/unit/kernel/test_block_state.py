# SPDX-License-Identifier: Apache-2.0
"""Memory blocks that change their state, or do not, or never end.

The child is the real one where a file can stand for the kernel's. What only the kernel does (an
errno, a state on the way) is played by a child that does what a file beside the block says.
"""

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

from tests.unit.fake_sys import MEMORY, add_block, write
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
from zoned.kernel import block_state
from zoned.kernel.block_state import BlockSwitch, deadline_of
from zoned.kernel.root import Root
from zoned.model.block import BlockWord
from zoned.model.topology import Block, BlockState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZE = 128 << 20
LONG = 60.0
"""Seconds: a deadline that no test waits for"""
AT_ONCE = 0.05

_PLAYED = """
import os, signal, sys
for line in sys.stdin.buffer:
    word, _, path = line[:-1].decode().partition(" ")
    folder = os.path.dirname(path)
    with open(folder + "/plan") as file:
        code, state, zones = file.read().split(",")
    if state:
        with open(path, "w") as file:
            file.write(state)
    if zones:
        with open(folder + "/valid_zones", "w") as file:
            file.write(zones)
    if code == "die":
        sys.exit(3)
    if code == "hang":
        signal.pause()
    print(code, flush=True)
"""


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A machine with block 3, online as Normal memory."""
    write(tmp_path, {f"{MEMORY}/block_size_bytes": f"{SIZE:x}"})
    add_block(tmp_path, 3, state="online", zones="Normal")
    return Root(sys=tmp_path / "sys")


@pytest.fixture
def switch(root: Root) -> Iterator[BlockSwitch]:
    with BlockSwitch(root, grace=5) as made:
        yield made


def block_file(root: Root, name: str) -> Path:
    return root.sys / f"devices/system/memory/memory3/{name}"


@pytest.fixture
def play(root: Root, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have a child answer `code`, after it wrote `state` and `zones` into the block's files."""
    monkeypatch.setattr(block_state, "_PROGRAM", _PLAYED)

    def plan(code: int | str, state: str = "", zones: str = "") -> None:
        block_file(root, "plan").write_text(f"{code},{state},{zones}")

    return plan


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


def test_the_word_is_written_and_read_back(root: Root, switch: BlockSwitch) -> None:
    switch.switch(3, BlockWord.OFFLINE, deadline=LONG)
    assert block_file(root, "state").read_text() == "offline"


def test_one_child_serves_for_all(root: Root, switch: BlockSwitch, tmp_path: Path) -> None:
    add_block(tmp_path, 4, state="online", zones="Normal")
    switch.switch(3, BlockWord.OFFLINE, deadline=LONG)
    first = child_of(switch)
    switch.switch(4, BlockWord.OFFLINE, deadline=LONG)
    assert child_of(switch) == first
    switch.close()
    assert not lives(first)


@pytest.mark.parametrize(
    ("state", "zones", "word"),
    [
        ("offline", "Normal Movable", BlockWord.OFFLINE),
        ("online", "Normal", BlockWord.ONLINE),
        ("online", "Movable", BlockWord.ONLINE),
        ("online", "Movable", BlockWord.MOVABLE),
        ("online", "DMA32", BlockWord.KERNEL),
    ],
)
def test_a_block_that_is_so_already_is_left_alone(
    root: Root, switch: BlockSwitch, state: str, zones: str, word: BlockWord
) -> None:
    block_file(root, "state").write_text(state)
    block_file(root, "valid_zones").write_text(zones)
    switch.switch(3, word, deadline=LONG)
    assert switch._child is None


@pytest.mark.parametrize(
    ("zones", "word"), [("Normal", BlockWord.MOVABLE), ("Movable", BlockWord.KERNEL)]
)
def test_online_in_another_zone_has_to_go_offline_first(
    root: Root, switch: BlockSwitch, zones: str, word: BlockWord
) -> None:
    block_file(root, "valid_zones").write_text(zones)
    with pytest.raises(BlockRefused, match=f"block 3 is online as {zones}.*{word}"):
        switch.switch(3, word, deadline=LONG)
    assert switch._child is None


@pytest.mark.parametrize(
    ("word", "zones"),
    [(BlockWord.MOVABLE, "Movable"), (BlockWord.KERNEL, "Normal"), (BlockWord.ONLINE, "DMA32")],
)
def test_back_online(
    root: Root, switch: BlockSwitch, play: Callable[..., None], word: BlockWord, zones: str
) -> None:
    block_file(root, "state").write_text("offline")
    block_file(root, "valid_zones").write_text("Normal Movable")
    play(0, "online", zones)
    switch.switch(3, word, deadline=LONG)
    assert block_file(root, "state").read_text() == "online"


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (errno.EBUSY, BlockBusy, "cannot move all of its pages away"),
        (errno.ENOMEM, BlockBusy, "too little memory"),
        (errno.EINVAL, BlockRefused, "holes"),
        (errno.EPERM, BlockRefused, "offlining disabled"),
        (errno.ENOENT, BlockRefused, "no such memory block"),
        (errno.EINTR, BlockTimeout, "signal"),
        (errno.EIO, KernelRefused, "Input/output error"),
        (0, NotAsWritten, "reads online Normal after offline was written"),
    ],
)
def test_each_answer_of_the_kernel(
    switch: BlockSwitch,
    play: Callable[..., None],
    code: int,
    kind: type[ZonedError],
    words: str,
) -> None:
    play(code)
    with pytest.raises(kind, match=words) as caught:
        switch.switch(3, BlockWord.OFFLINE, deadline=LONG)
    assert type(caught.value) is kind
    assert "memory block 3" in caught.value.message


def test_a_block_with_memory_of_several_zones(
    root: Root, switch: BlockSwitch, play: Callable[..., None]
) -> None:
    block_file(root, "valid_zones").write_text("none")
    play(errno.EINVAL)
    with pytest.raises(BlockRefused, match="several zones or nodes"):
        switch.switch(3, BlockWord.OFFLINE, deadline=LONG)


def test_damaged_memory_does_not_come_back(
    root: Root, switch: BlockSwitch, play: Callable[..., None]
) -> None:
    block_file(root, "state").write_text("offline")
    play(133)
    with pytest.raises(BlockRefused, match="damaged"):
        switch.switch(3, BlockWord.MOVABLE, deadline=LONG)


def test_a_zone_that_the_block_cannot_come_back_to(
    root: Root, switch: BlockSwitch, play: Callable[..., None]
) -> None:
    block_file(root, "state").write_text("offline")
    block_file(root, "valid_zones").write_text("Normal Movable")
    play(errno.EINVAL)
    with pytest.raises(BlockRefused, match="come back to are Normal and Movable"):
        switch.switch(3, BlockWord.KERNEL, deadline=LONG)


def test_somebody_else_was_faster(switch: BlockSwitch, play: Callable[..., None]) -> None:
    play(errno.EINVAL, "offline")
    switch.switch(3, BlockWord.OFFLINE, deadline=LONG)


def test_the_real_child_tells_the_errno(root: Root, switch: BlockSwitch) -> None:
    # This device takes nothing, and what is read from it is no state.
    block_file(root, "state").unlink()
    block_file(root, "state").symlink_to("/dev/full")
    with pytest.raises(KernelRefused, match="No space left on device"):
        switch.switch(3, BlockWord.OFFLINE, deadline=LONG)


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
        cwd=Path(__file__).parents[3],
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        wait_until(lambda: writes(child, root), "the child writes")
        parent.kill()
    wait_until(lambda: not lives(child), "the child is gone")


def test_a_block_that_is_not_there(switch: BlockSwitch) -> None:
    with pytest.raises(BlockRefused, match="no memory block 4"):
        switch.switch(4, BlockWord.OFFLINE, deadline=LONG)


def test_a_machine_without_memory_hotplug(tmp_path: Path) -> None:
    with BlockSwitch(Root(sys=tmp_path)) as switch, pytest.raises(Unsupported, match="hotplug"):
        switch.switch(3, BlockWord.OFFLINE, deadline=LONG)


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
