# SPDX-License-Identifier: Apache-2.0
"""Tries what zoned says of memory blocks. Runs with the interpreter that zoned is installed in.

PYTHON -m tests.lab.guest_programs.blocks try            every block, offline and back, as JSON
PYTHON -m tests.lab.guest_programs.blocks switch N WORD SECONDS      one change of one block
PYTHON -m tests.lab.guest_programs.blocks pin NODE BLOCK      hold a page in this block of the node
"""

import json
import mmap
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.lab.guest_programs import memory
from zoned.errors import ZonedError
from zoned.kernel.block_outlook import outlooks
from zoned.kernel.block_state import BlockSwitch, deadline_of
from zoned.kernel.memory_block import read_block, read_blocks
from zoned.kernel.pagemap import PageMap
from zoned.kernel.root import Root
from zoned.model.block import MOVABLE, BlockWord, Outlook
from zoned.model.topology import Block, BlockState

READY = Path("/run/blocks.pinned")
"""Is there as soon as a page is pinned."""
_ROOT = Root()


def former_word(block: Block) -> BlockWord:
    """Return the word that brings an online block back to where it is."""
    return BlockWord.MOVABLE if block.zones == (MOVABLE,) else BlockWord.KERNEL


def change(switch: BlockSwitch, number: int, word: BlockWord, seconds: float) -> dict[str, Any]:
    """Change a block; return what came of it and how the block reads then."""
    begin = time.monotonic()
    try:
        switch.switch(number, word, deadline=seconds)
        code, message = "", ""
    except ZonedError as error:
        code, message = error.code, error.message
    taken = time.monotonic() - begin
    block = read_block(_ROOT, number)
    assert block is not None
    state = str(block.state)
    return {
        "code": code,
        "message": message,
        "seconds": taken,
        "state": state,
        "zones": block.zones,
    }


def attempt(switch: BlockSwitch, seen: Outlook) -> dict[str, Any]:
    """Take a block offline and bring it back at once."""
    block = seen.block
    # A look of a moment ago, not of when the first block was tried.
    (seen,) = outlooks(_ROOT, [block])
    done = change(switch, block.id, BlockWord.OFFLINE, deadline_of(block.size or 0))
    back = None
    if not done["code"]:
        back = change(switch, block.id, former_word(block), 60)
    pages = seen.pages
    return {
        "number": block.id,
        "node": block.node,
        "zones": block.zones,
        "can": seen.can,
        "why": seen.why,
        "to_move": None if pages is None else pages.movable + pages.huge,
        "unmovable": None if pages is None else dict(pages.unmovable),
        "offline": done,
        "back": back,
    }


def try_all() -> list[dict[str, Any]]:
    """Try every block that is online, those at high addresses first."""
    online = [block for block in read_blocks(_ROOT) if block.state is BlockState.ONLINE]
    seen = list(outlooks(_ROOT, reversed(online)))
    with BlockSwitch(_ROOT) as switch:
        return [attempt(switch, each) for each in seen]


def pin(node: int, block: int) -> None:
    """Pin one page in a block of movable memory of the node, until SIGTERM."""
    size = next(each.size for each in read_blocks(_ROOT) if each.id == block)
    assert size is not None
    view = memory.small(size, "pin")
    with memory.memory_from(node):
        for place in range(0, size, memory.PAGE):
            view[place] = 1
    start = memory.address_of(view)
    with PageMap(_ROOT, os.getpid()) as page_map:
        found = page_map.pages(start, start + size)
    inside = found.addresses[found.pfns * mmap.PAGESIZE // size == block]
    place = int(inside[0]) - start
    # The kernel would move it out of movable memory if it were pinned for a device.
    memory.pin_by_pipe(view[place : place + memory.PAGE])
    READY.touch()
    signal.pause()


def main(what: str, *words: str) -> None:
    """Do one thing."""
    if what == "pin":
        pin(*map(int, words))
    elif what == "try":
        print(json.dumps(try_all()))
    else:
        number, word, seconds = words
        with BlockSwitch(_ROOT) as switch:
            print(json.dumps(change(switch, int(number), BlockWord(word), float(seconds))))


main(*sys.argv[1:])
