# SPDX-License-Identifier: Apache-2.0
"""What a kernel would have to be started with, where nothing else gives memory below a limit."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fake_sys import write
from tests.unit.model.dma.offers import GIB, MIB, SMALL, step
from zoned.model.base import DaxDevice, DaxMode
from zoned.model.dma.boot_line import (
    ALIGNED,
    FIRST,
    KEPT,
    afterwards,
    boot_span,
    boot_words,
    to_do,
)
from zoned.model.dma.limit import bits_mask
from zoned.model.dma.offer import Offer, Span, without
from zoned.model.dma.rung import Rung

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.model.dma.ladder import Step


def words(offer: Offer, size: int, bits: int) -> str:
    """Return the words for the command line, or why there are none."""
    found = boot_span(bits_mask(bits), size, offer)
    return found if isinstance(found, str) else boot_words(found)


def test_command_line_is_exact() -> None:
    assert words(SMALL, GIB, 31) == "memmap=1040M!1008M"
    assert words(SMALL, 100 * MIB, 28) == "memmap=128M!128M"
    assert words(SMALL, GIB, 36) == "memmap=1040M!15344M"
    found = step(Rung.PENDING_REBOOT, SMALL, size=GIB)
    assert found.why == "add to the kernel: memmap=1040M!1008M"
    assert found.span == Span(1008 * MIB, 1040 * MIB)


def test_command_line_keeps_clear_of_what_the_kernel_has() -> None:
    crash = Span(1500 * MIB, 256 * MIB)
    offer = dataclasses.replace(SMALL, claimed=(*SMALL.claimed, crash))
    assert words(offer, GIB, 31) == "memmap=1040M!448M"
    offer = dataclasses.replace(offer, pending=(Span(448 * MIB, 1040 * MIB),))
    assert words(offer, 256 * MIB, 31) == "memmap=272M!1776M"
    assert words(offer, 512 * MIB, 31).startswith("no 528MiB in one piece lie between 16MiB and")


@pytest.mark.parametrize("what", ["pending", "pmem"])
def test_command_line_touches_no_other_region(what: str) -> None:
    """Two that touch would be one region, which begins where the lower one does."""
    other: dict[str, Any] = {what: (Span(1776 * MIB, 272 * MIB),)}
    offer = dataclasses.replace(SMALL, **other)
    assert words(offer, 256 * MIB, 31) == "memmap=272M!1488M"
    above = dataclasses.replace(offer, ram=(Span(GIB, GIB // 4), Span(2 * GIB, 272 * MIB)))
    assert words(above, 256 * MIB, 32).startswith("no 272MiB in one piece")


MADE = Span(1008 * MIB, 1040 * MIB)


def step_after_boot(**offer: Any) -> Step:
    there = dataclasses.replace(SMALL, pmem=(MADE,), set_aside=(MADE,))
    return step(Rung.PENDING_REBOOT, dataclasses.replace(there, **offer), size=GIB)


def test_what_this_boot_has_set_aside_needs_no_other_boot() -> None:
    found = step_after_boot()
    assert (found.holds, found.span, found.booted) == (True, MADE, True)
    assert found.why == "set aside at this boot (memmap=1040M!1008M), and no device-dax region yet"
    assert to_do(MADE, booted=True) == f"if nobody has made use of it: {afterwards(MADE)}"


@pytest.mark.parametrize(
    "offer",
    [
        {"pending": (MADE,)},
        {"set_aside": (Span(MADE.start, GIB),)},
        {"set_aside": ()},
        {
            "regions": (
                DaxDevice(
                    name="dax0.0",
                    size=MIB,
                    node=0,
                    mode=DaxMode.SYSTEM_RAM,
                    ranges=((MADE.start + MIB, MIB),),
                ),
            )
        },
    ],
    ids=["another's", "too small", "of firmware", "in use"],
)
def test_what_was_set_aside_and_does_not_serve(offer: dict[str, Any]) -> None:
    assert step_after_boot(**offer).booted is False


def test_command_that_makes_a_region_finds_it_by_its_address(tmp_path: Path) -> None:
    regions = {"region0": 0x3F0000000, "region12": 0x3F000000, "region3": 0x13F000000}
    for name, start in regions.items():
        write(tmp_path, {f"{name}/resource": f"{start:#x}\n"})
    command = afterwards(Span(0x3F000000, GIB)).replace("/sys/bus/nd/devices", ".")
    assert "./region*/resource" in command
    command = command.replace("ndctl", "echo", 1)
    found = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, check=True, text=True
    )
    assert found.stdout == "create-namespace -f -m devdax -M mem -e namespace12.0\n"


@pytest.mark.parametrize(
    ("offer", "size", "bits", "why"),
    [
        (SMALL, 4 * MIB, 24, "no 32MiB in one piece"),
        (SMALL, 250 * MIB, 28, "no 272MiB in one piece"),
        (dataclasses.replace(SMALL, x86=False), GIB, 31, "only kernels for x86"),
        (
            dataclasses.replace(SMALL, ram=(Span(0, GIB),)),
            800 * MIB,
            31,
            "it would leave 208MiB below 4GiB, and 256MiB have to stay",
        ),
    ],
)
def test_no_command_line_helps(offer: Offer, size: int, bits: int, why: str) -> None:
    assert words(offer, size, bits).startswith(why)
    assert step(Rung.PENDING_REBOOT, offer, size=size, bits=bits).holds is False


def test_no_command_line_where_memory_is_not_known() -> None:
    offer = dataclasses.replace(SMALL, ram=None)
    assert step(Rung.PENDING_REBOOT, offer).holds is None


SPANS = st.builds(Span, st.integers(0, 64), st.integers(1, 32))


@given(st.lists(SPANS, max_size=4), st.lists(SPANS, max_size=6))
def test_without(some: list[Span], holes: list[Span]) -> None:
    spans = without([], [])
    for span in some:
        spans = tuple(sorted((*spans, *without([span], spans))))
    left = without(spans, holes)
    bytes_left = [byte for span in left for byte in range(span.start, span.end)]
    gone = {byte for hole in holes for byte in range(hole.start, hole.end)}
    there = {byte for span in spans for byte in range(span.start, span.end)}
    assert sorted(bytes_left) == sorted(there - gone)


AMOUNTS = st.integers(1, 4096).map(lambda mib: mib * MIB)
PLACES = st.builds(Span, AMOUNTS, AMOUNTS)


@given(
    st.lists(PLACES, min_size=1, max_size=3),
    st.lists(PLACES, max_size=4),
    AMOUNTS,
    st.integers(20, 40),
)
def test_what_is_set_aside_at_boot_is_where_it_may_be(
    ram: list[Span], claimed: list[Span], size: int, bits: int
) -> None:
    offer = dataclasses.replace(SMALL, ram=without(ram, ()), claimed=tuple(claimed))
    found = boot_span(bits_mask(bits), size, offer)
    if isinstance(found, str):
        return
    assert found.start % ALIGNED == found.size % ALIGNED == 0
    assert found.size >= size + ALIGNED
    assert found.end <= 1 << bits
    assert found.start >= FIRST
    assert any(each.start <= found.start and found.end <= each.end for each in ram)
    assert all(found.end <= each.start or each.end <= found.start for each in claimed)
    match = re.fullmatch(r"memmap=(\d+)M!(\d+)M", boot_words(found))
    assert match is not None
    assert Span(int(match[2]) << 20, int(match[1]) << 20) == found
    low = sum(each.below(bits_mask(32)) for each in without(ram, [found]))
    assert found.start > bits_mask(32) or low >= KEPT
