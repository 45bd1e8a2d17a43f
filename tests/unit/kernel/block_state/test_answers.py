# SPDX-License-Identifier: Apache-2.0
"""Memory blocks that change their state, or do not, and what the kernel says to it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from tests.unit.kernel.block_state.block import LONG, block_file
from zoned.errors import (
    BlockBusy,
    BlockRefused,
    BlockTimeout,
    KernelRefused,
    NotAsWritten,
    Unsupported,
    ZonedError,
)
from zoned.kernel.block_state import BlockSwitch
from zoned.kernel.root import Root
from zoned.model.block import BlockWord

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_the_word_is_written_and_read_back(root: Root, switch: BlockSwitch) -> None:
    switch.switch(3, BlockWord.OFFLINE, deadline=LONG)
    assert block_file(root, "state").read_text() == "offline"


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


def test_a_block_that_is_not_there(switch: BlockSwitch) -> None:
    with pytest.raises(BlockRefused, match="no memory block 4"):
        switch.switch(4, BlockWord.OFFLINE, deadline=LONG)


def test_a_machine_without_memory_hotplug(tmp_path: Path) -> None:
    with BlockSwitch(Root(sys=tmp_path)) as switch, pytest.raises(Unsupported, match="hotplug"):
        switch.switch(3, BlockWord.OFFLINE, deadline=LONG)
