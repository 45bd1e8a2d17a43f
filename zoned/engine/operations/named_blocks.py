# SPDX-License-Identifier: Apache-2.0
"""Memory blocks that somebody names: parked, and brought back."""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoned.engine.blocks.size import require_block_size
from zoned.engine.blocks.take import Wish
from zoned.engine.operations.park import bring_back, parked_by, refuse_promised, take_and_park
from zoned.errors import WrongBlock
from zoned.idset import format_ids, parse_ids
from zoned.kernel.memory_block import read_blocks
from zoned.model.block import PARKED
from zoned.model.job import JobKind, JobRequest
from zoned.model.topology import BlockState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.engine.jobs.control import Body, JobControl
    from zoned.engine.machine import Machine
    from zoned.engine.operations.context import Context
    from zoned.model.block import HeldBlock
    from zoned.model.topology import Block

_HINT = "zonectl blocks list shows state and owner of each"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offline:
    """`zonectl blocks offline`."""

    context: Context

    def prepare(self, parameters: Mapping[str, Any]) -> JobRequest:
        """See Operation. Raises BadList, WrongBlock, NodeTaken, NoCapacity, Unsupported."""
        machine = self.context.machine
        size = require_block_size(machine.root)
        numbers = parse_ids(parameters["blocks"])
        for node, count in _by_node(_free(machine, numbers)).items():
            refuse_promised(machine, node, count * size)
        return JobRequest(
            kind=JobKind.OFFLINE,
            what=f"take memory blocks {format_ids(numbers)} offline",
            parameters={
                "blocks": format_ids(numbers),
                # So that what another job takes at the same time is told apart.
                "token": secrets.token_hex(4),
            },
        )

    def body(self, request: JobRequest) -> Body:
        """See Operation."""
        machine, token = self.context.machine, request.parameters["token"]
        numbers = parse_ids(request.parameters["blocks"])

        owner = f"parking:{token}"

        def run(control: JobControl) -> None:
            left = numbers - parked_by(machine, owner)
            if left:
                blocks = _by_node(_free(machine, left))
                wish = Wish(owner=owner, blocks=blocks, online=False, only=left)
                take_and_park(machine, control, wish)

        return run


@dataclass(frozen=True, slots=True, kw_only=True)
class Online:
    """`zonectl blocks online`."""

    context: Context

    def prepare(self, parameters: Mapping[str, Any]) -> JobRequest:
        """See Operation. Raises BadList, WrongBlock."""
        numbers = parse_ids(parameters["blocks"])
        _named(self.context.machine, numbers)
        left = numbers - {each.number for each in self._parked(numbers)}
        if left:
            raise WrongBlock(
                f"memory block {min(left)} is not parked, so it is not for this to bring back",
                hint=_HINT,
            )
        return JobRequest(
            kind=JobKind.ONLINE,
            what=f"bring memory blocks {format_ids(numbers)} back",
            parameters={"blocks": format_ids(numbers)},
        )

    def body(self, request: JobRequest) -> Body:
        """See Operation."""
        numbers = parse_ids(request.parameters["blocks"])

        def run(control: JobControl) -> None:
            bring_back(self.context.machine, control, lambda: self._parked(numbers))

        return run

    def _parked(self, numbers: frozenset[int]) -> list[HeldBlock]:
        held = self.context.machine.ledger.touched.blocks
        return [each for each in held.values() if each.number in numbers and each.owner == PARKED]


def _named(machine: Machine, numbers: frozenset[int]) -> list[Block]:
    """Return the blocks of these numbers. Raises WrongBlock where one is not there."""
    if not numbers:
        raise WrongBlock("no memory block is named", hint=_HINT)
    blocks = [block for block in read_blocks(machine.root) if block.id in numbers]
    left = numbers - {block.id for block in blocks}
    if left:
        raise WrongBlock(f"there is no memory block {min(left)}", hint=_HINT)
    return blocks


def _free(machine: Machine, numbers: frozenset[int]) -> list[Block]:
    """Return the blocks of these numbers. Raises WrongBlock where one is not there, not online, or
    in somebody's hands.
    """
    blocks, held = _named(machine, numbers), machine.ledger.touched.blocks
    for block in blocks:
        if block.id in held:
            raise WrongBlock(
                f"memory block {block.id} is held already: {held[block.id].owner}", hint=_HINT
            )
        if block.state is not BlockState.ONLINE or block.node is None:
            raise WrongBlock(
                f"memory block {block.id} of node {block.node} is {block.state}", hint=_HINT
            )
    return blocks


def _by_node(blocks: list[Block]) -> dict[int, int]:
    return dict(Counter(block.node for block in blocks if block.node is not None))
