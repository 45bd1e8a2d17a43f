# SPDX-License-Identifier: Apache-2.0
"""What the tests of a block's state share.

The child is the real one where a file can stand for the kernel's. What only the kernel does (an
errno, a state on the way) is played by a child that does what a file beside the block says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_sys import MEMORY, add_block, write
from tests.unit.kernel.block_state.block import SIZE, block_file
from zoned.kernel import block_state
from zoned.kernel.block_state import BlockSwitch
from zoned.kernel.root import Root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

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


@pytest.fixture
def play(root: Root, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have a child answer `code`, after it wrote `state` and `zones` into the block's files."""
    monkeypatch.setattr(block_state, "_PROGRAM", _PLAYED)

    def plan(code: int | str, state: str = "", zones: str = "") -> None:
        block_file(root, "plan").write_text(f"{code},{state},{zones}")

    return plan
