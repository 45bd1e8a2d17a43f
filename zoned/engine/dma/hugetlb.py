# SPDX-License-Identifier: Apache-2.0
"""The rung `hugetlb`: memory blocks below the limit become movable memory, and huge pages are made
of them. Each page's address is looked up.

Sources: Documentation/admin-guide/mm/hugetlbpage.rst, and mm/hugetlb.c: pages of a node's pool come
from its highest zone that has some, which is the movable one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from zoned.engine.blocks.size import require_block_size
from zoned.engine.blocks.take import bring_movable
from zoned.engine.dma.low_blocks import give, nodes_below, own_blocks, spans_of, take_below
from zoned.engine.jobs.control import Cancelled
from zoned.errors import NoCapacity, NoRoom, TooFewBlocks, TryLater, Unsupported, ZonedError
from zoned.kernel.block_state import BlockSwitch
from zoned.kernel.hugetlb import merged, read_pool, set_pool
from zoned.kernel.memory_block import read_block, read_blocks
from zoned.kernel.node import read_topology
from zoned.model.block import MOVABLE
from zoned.model.dma.offer import without
from zoned.model.topology import BlockState
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from zoned.engine.blocks.hands import Hands
    from zoned.engine.machine import Machine
    from zoned.kernel.hugetlb import HugePool
    from zoned.model.dma.held import Held
    from zoned.model.dma.offer import Span

_USUAL = 2 << 20
"""The page size that is looked for: the one nearest to it."""
_KEPT = 32
"""One page in so many, and one more: what the kernel keeps free of a zone and makes no huge pages
of (its watermarks)."""
_ROUNDS = 4


class Hugetlb:
    """See Holder."""

    def hold(self, machine: Machine, hands: Hands, held: Held) -> Held:
        """See Holder. Raises TooFewBlocks, NoCapacity, NoRoom, Unsupported, MachineError."""
        if held.standing:
            _bring_back(machine, hands, held)
            return _Work(machine, hands, held).fill()
        _take_down(machine, hands, held)
        try:
            return _set_up(machine, hands, held)
        except (ZonedError, Cancelled):
            _take_down(machine, hands, machine.ledger.touched.reservations.get(held.name, held))
            raise

    def faults(self, machine: Machine, held: Held) -> list[str]:
        """See Holder."""
        return [*_faults_of_blocks(machine, held), *_faults_of_pages(machine, held)]

    def release(self, machine: Machine, hands: Hands, held: Held) -> None:
        """See Holder. Raises TryLater where a program has a buffer of it."""
        if any(each.reservation == held.name for each in machine.ledger.touched.leases.values()):
            raise TryLater(f"programs have buffers of reservation {held.name}")
        _take_down(machine, hands, held)


def _set_up(machine: Machine, hands: Hands, held: Held) -> Held:
    page = held.page or _page_size(machine)
    pages = -(-held.size // page)
    refusals: list[ZonedError] = []
    for node in nodes_below(machine, held):
        planned = replace(held, node=node, page=page)
        for count in _block_counts(machine, pages, page):
            try:
                taken = take_below(machine, hands, planned, node, count, online=True, low=False)
            except (TooFewBlocks, NoCapacity, NoRoom) as error:
                refusals.append(error)
                continue
            return _Work(machine, hands, replace(planned, blocks=tuple(sorted(taken)))).fill()
    if refusals:
        raise refusals[0]
    raise TooFewBlocks("no memory block lies where the device reaches all of it")


def _bring_back(machine: Machine, hands: Hands, held: Held) -> None:
    """Have its blocks online that somebody else took offline."""
    with machine.turn.taken(hands), BlockSwitch(machine.root) as switch:
        for number in held.blocks:
            block = read_block(machine.root, number)
            if block is not None and block.state is BlockState.OFFLINE:
                hands.note(f"memory block {number} was taken offline by somebody else")
                bring_movable(machine, switch, number)


def _page_size(machine: Machine) -> int:
    block = require_block_size(machine.root)
    sizes = {each.size for node in read_topology(machine.root).nodes for each in node.hugepages}
    fitting = [size for size in sizes if size <= block]
    if not fitting:
        raise Unsupported("the kernel has no huge pages that fit in a memory block")
    return min(fitting, key=lambda size: abs(size - _USUAL))


def _block_counts(machine: Machine, pages: int, page: int) -> list[int]:
    """Return how many blocks to ask for, first with what the kernel keeps, then without."""
    block = require_block_size(machine.root)
    counts = (-(-each * page // block) for each in (pages + pages // _KEPT + 1, pages))
    return list(dict.fromkeys(counts))


class _Work:
    """Pages being made of the blocks of one reservation, and fetched."""

    def __init__(self, machine: Machine, hands: Hands, held: Held) -> None:
        self._machine, self._hands, self._held = machine, hands, held
        assert held.node is not None
        assert held.page is not None
        self._node, self._page = held.node, held.page
        self._root = machine.root
        leases = machine.ledger.touched.leases.values()
        self._leases = [each for each in leases if each.reservation == held.name]
        self._lent = [span for each in self._leases for span in each.segments]
        self._here = _pages(held, held.page)
        """pages that the node's pool has for it: the kernel can move some to another node's"""
        self._blocks = spans_of(held.blocks, require_block_size(machine.root))

    def fill(self) -> Held:
        """Have all pages; return the reservation with where they lie.

        Raises MachineError where the kernel has no huge page left there.
        """
        with self._machine.turn.taken(self._hands):
            pool = self._machine.pools.pool(self._root, self._held, self._leases)
            moved = [span for span in pool.spans if without([span], self._blocks)]
            away = _elsewhere(self._machine, self._held, moved)
            pool.drop(moved)
            self._here -= _leave(self._machine, away, self._page)
            self._gather(pool)
            if self._missing(pool) > 0:
                self._grow(pool)
        found = replace(self._held, spans=merged([*pool.spans, *self._lent]), pool=None)
        self._hands.change(lambda: _note_pages(self._machine, found, self._node, self._page))
        short = self._missing(pool)
        if short > 0:
            if found.standing:
                self._hands.change(lambda: self._machine.ledger.reserved(found))
            raise TooFewBlocks(
                f"{short} huge pages of {format_size(self._page)} could not be had in memory blocks"
                " below the limit",
                hint="other programs may have been faster, or the kernel keeps them free",
            )
        return found

    def _gather(self, pool: HugePool) -> None:
        pool.gather(without(self._blocks, self._lent), max(0, self._missing(pool)))

    def _missing(self, pool: HugePool) -> int:
        """Return how many pages are missing, negative where there are too many."""
        wanted = -(-self._held.size // self._page)
        return wanted - sum(span.size for span in (*pool.spans, *self._lent)) // self._page

    def _grow(self, pool: HugePool) -> None:
        """Have the kernel make pages until enough of them lie in the blocks; the others go again.

        Others may have pages of the same node that came and went meanwhile.
        """
        found = read_pool(self._root, self._node, self._page)
        missing = self._missing(pool)
        if found is None:
            return
        without_it = max(0, found.lasting - self._here)
        self._note(without_it, missing)
        self._hands.phase(f"making {missing} huge pages of node {self._node}")
        size = found.lasting
        for _ in range(_ROUNDS):
            grown = set_pool(self._root, self._node, self._page, size + missing)
            self._gather(pool)
            missing = max(0, self._missing(pool))
            if not missing or grown == size:
                break
            size = grown
        self._trim(without_it + -(-self._held.size // self._page) - missing)

    def _trim(self, size: int) -> None:
        """Have the node's pool be of that size, or of what of it is in use: more would leave it as
        soon as it came free.
        """
        found = read_pool(self._root, self._node, self._page)
        if found is not None:
            size = max(size, found.total - found.free)
            set_pool(self._root, self._node, self._page, size)

    def _note(self, without_it: int, missing: int) -> None:
        """Have on record what the node's pool is without the reservation, and what with it."""
        ledger, mine = self._machine.ledger, _pages(self._held, self._page)
        planned = replace(self._held, pool=without_it)
        total = _pages_of_others(self._machine, self._held) + mine + missing

        def write() -> None:
            ledger.reserved(planned)
            ledger.huge_added(self._node, self._page, total)

        self._hands.change(write)


def _pages(held: Held, page: int) -> int:
    return sum(span.size for span in held.spans) // page


def _note_pages(machine: Machine, held: Held, node: int, page: int) -> None:
    """Have on record how many pages the reservation and all others have, if that has changed."""
    total = _pages_of_others(machine, held) + _pages(held, page)
    if machine.ledger.touched.huge.get((node, page), 0) != total:
        machine.ledger.huge_added(node, page, total)


def _pages_of_others(machine: Machine, held: Held) -> int:
    """Return how many pages of the same pool other reservations have."""
    return sum(
        _pages(each, each.page or 1)
        for each in machine.ledger.touched.reservations.values()
        if (each.node, each.page) == (held.node, held.page) and each.name != held.name
    )


def _take_down(machine: Machine, hands: Hands, held: Held) -> None:
    """Give pages and blocks back; what is not there any more is fine."""
    if held.node is not None and held.page is not None:
        pool = machine.pools.known(held.name)
        away = {} if pool is None else _elsewhere(machine, held, pool.spans)
        machine.pools.end(held.name)
        with machine.turn.taken(hands):
            here = _pages(held, held.page) - _leave(machine, away, held.page)
            _shrink(machine, hands, held, held.node, held.page, here)
    give(machine, hands, own_blocks(machine, held).values())


def _elsewhere(machine: Machine, held: Held, spans: Iterable[Span]) -> dict[int, int]:
    """Return how many of these pages lie on which other nodes: whoever takes a block offline has
    the kernel move them there, from one node's pool to another's.
    """
    size = require_block_size(machine.root)
    nodes = {block.id: block.node for block in read_blocks(machine.root)}
    found = Counter(nodes.get(span.start // size) for span in spans)
    return {node: pages for node, pages in found.items() if node is not None and node != held.node}


def _leave(machine: Machine, away: Mapping[int, int], page: int) -> int:
    """Have the pools of other nodes be without pages that were moved there; return how many."""
    for node, pages in away.items():
        found = read_pool(machine.root, node, page)
        if found is not None:
            set_pool(machine.root, node, page, max(0, found.lasting - pages))
    return sum(away.values())


def _shrink(machine: Machine, hands: Hands, held: Held, node: int, page: int, pages: int) -> None:
    """Have the node's pool as it would be without the reservation's `pages` there."""
    ledger, found = machine.ledger, read_pool(machine.root, node, page)
    if found is None or (held.pool is None and not pages):
        return
    target = held.pool if held.pool is not None else max(0, found.lasting - pages)
    # Begun a second time it must not take as much again.
    hands.change(lambda: ledger.reserved(replace(held, pool=target)))
    if found.lasting > target:
        set_pool(machine.root, node, page, target)
    hands.change(lambda: ledger.huge_added(node, page, _pages_of_others(machine, held)))


def _faults_of_blocks(machine: Machine, held: Held) -> Iterator[str]:
    mine = own_blocks(machine, held)
    for number in held.blocks:
        block = read_block(machine.root, number)
        if block is None or number not in mine:
            yield f"memory block {number} is not held any more"
        elif block.zones != (MOVABLE,) or block.state is not BlockState.ONLINE:
            state = " ".join([str(block.state), *block.zones])
            yield f"memory block {number} is {state}, and should be online as movable memory"


def _faults_of_pages(machine: Machine, held: Held) -> Iterator[str]:
    pool = machine.pools.known(held.name)
    if pool is None:
        yield "its huge pages are not held"
        return
    spans = pool.spans
    for span in spans:
        if span.end - 1 > held.mask:
            yield f"a huge page lies at {span.start:#x} now, above the limit"
        elif without([span], held.spans):
            yield f"a huge page has moved, to {span.start:#x}"
    leases = machine.ledger.touched.leases.values()
    lent = [span for each in leases if each.reservation == held.name for span in each.segments]
    size = sum(span.size for span in (*spans, *lent))
    if size < held.size:
        yield f"{size >> 20}MiB are held instead of {held.size >> 20}MiB"
