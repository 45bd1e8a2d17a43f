# SPDX-License-Identifier: Apache-2.0
"""How far devices reach: what the policy says, what their drivers said, and what nobody knows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoned.errors import DmaContradiction
from zoned.model.dma.device import Bus, Device
from zoned.model.dma.limit import (
    Limit,
    LimitSource,
    bits_mask,
    device_limit,
    mask_bits,
    mask_text,
)
from zoned.model.dma.match import Match
from zoned.model.dma.wish import Quirk

IDS = st.sampled_from(["1028:0001", "1028:0002", "1028:*", "1234:11e8"])
MATCHES = st.builds(
    Match,
    id=st.lists(IDS, max_size=2).map(tuple),
    driver=st.sampled_from([(), ("aacraid",), ("edu", "aacraid")]),
    class_=st.sampled_from([(), ("01",), ("0104",)]),
)
QUIRKS = st.lists(
    st.builds(Quirk, match=MATCHES, limit=st.integers(28, 32).map(bits_mask), place=st.text("ab"))
)
MASKS = st.none() | st.integers(0, 70)
DEVICES = st.builds(
    Device,
    bus=st.just(Bus.PCI),
    address=st.just("0000:00:01.0"),
    vendor=st.sampled_from([None, 0x1028, 0x1234]),
    device=st.sampled_from([None, 1, 2, 0x11E8]),
    class_code=st.sampled_from([None, 0x010400, 0x010000]),
    driver=st.sampled_from([None, "aacraid", "edu"]),
    mask_bits=MASKS,
    coherent_bits=MASKS,
)


def device(driver: str | None, mask: int | None, coherent: int | None) -> Device:
    """Return a device of which nothing else is known."""
    return Device(
        bus=Bus.PCI,
        address="0000:00:01.0",
        vendor=0x1234,
        device=0x11E8,
        driver=driver,
        mask_bits=mask,
        coherent_bits=coherent,
    )


@pytest.mark.parametrize(
    ("mask", "coherent", "bits"), [(32, 32, 32), (32, 31, 31), (31, 32, 31), (64, 64, 64)]
)
def test_the_smaller_mask_of_a_driver_counts(mask: int, coherent: int, bits: int) -> None:
    found = device_limit(device("aacraid", mask, coherent), [])
    assert found == Limit(mask=(1 << bits) - 1, source=LimitSource.DRIVER, place="aacraid")
    assert (found.bits, str(found)) == (bits, f"{bits} bits")


@pytest.mark.parametrize("masks", [(32, 32), (40, 32), (None, None), (24, 24)])
def test_without_a_driver_masks_say_nothing(masks: tuple[int | None, int | None]) -> None:
    found = device_limit(device(None, *masks), [])
    assert (found.mask, found.bits, found.source) == (None, None, LimitSource.UNKNOWN)
    assert "no driver" in found.reason
    assert str(found) == "unknown"


@pytest.mark.parametrize("masks", [(None, 32), (32, None), (0, 32), (32, 65), (None, None)])
def test_masks_that_are_not_told_are_unknown(masks: tuple[int | None, int | None]) -> None:
    found = device_limit(device("x", *masks), [])
    assert found.source is LimitSource.UNKNOWN
    assert "does not tell" in found.reason


@pytest.mark.parametrize("driver", [None, "edu"])
def test_the_policy_counts_first(driver: str | None) -> None:
    quirk = Quirk(match=Match(id=("1234:11e8",)), limit=0xFFFFFFF, place="f:3", reason="edu.c")
    assert device_limit(device(driver, 24, 24), [quirk]) == Limit(
        mask=0xFFFFFFF, source=LimitSource.POLICY, place="f:3", reason="edu.c"
    )


def test_text_of_a_mask() -> None:
    assert (mask_bits(0xBFFFFFFF), mask_text(0xBFFFFFFF)) == (None, "0xbfffffff")
    assert (mask_bits(0x7FFFFFFF), mask_text(0x7FFFFFFF)) == (31, "31 bits")
    assert mask_bits(bits_mask(64)) == 64


@given(DEVICES, QUIRKS)
def test_a_limit_is_what_somebody_says(seen: Device, quirks: list[Quirk]) -> None:
    fits = [(fit, quirk) for quirk in quirks if (fit := quirk.match.fit(seen)) is not None]
    best = [quirk for fit, quirk in fits if fit == max(fit for fit, _ in fits)]
    if len({quirk.limit for quirk in best}) > 1:
        with pytest.raises(DmaContradiction):
            device_limit(seen, quirks)
        return
    found = device_limit(seen, quirks)
    if best:
        assert {quirk.limit for quirk in best} == {found.mask}
        assert found.source is LimitSource.POLICY
    elif found.source is LimitSource.DRIVER:
        assert seen.driver is not None
        assert found.bits == min(seen.mask_bits or 0, seen.coherent_bits or 0)
    else:
        assert found.mask is None
        assert found.reason


@given(DEVICES, QUIRKS, st.randoms())
def test_the_order_of_the_policy_does_not_matter(
    seen: Device, quirks: list[Quirk], random: object
) -> None:
    mixed = list(quirks)
    random.shuffle(mixed)  # type: ignore[attr-defined]

    def mask(some: list[Quirk]) -> object:
        try:
            return device_limit(seen, some).mask
        except DmaContradiction:
            return "contradiction"

    assert mask(quirks) == mask(mixed)
