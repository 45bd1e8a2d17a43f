# SPDX-License-Identifier: Apache-2.0
"""How long it took from a device's event until its memory stood, or was back."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from zoned.daemon.stopwatch import LONGEST, Stopwatch
from zoned.kernel.udev import DeviceEvent
from zoned.model.dma.held import Held
from zoned.model.dma.rung import Rung

EDU = "0000:01:00.0"
OTHER = "0000:02:00.0"


def event(action: str, name: str = EDU) -> DeviceEvent:
    return DeviceEvent(action=action, subsystem="pci", name=name)


def reservation(*devices: str, standing: bool = True) -> Held:
    return Held(
        name="teach", rung=Rung.LOWMEM, size=1 << 20, mask=1, devices=devices, standing=standing
    )


class Bench:
    """A stopwatch with its clock, and the reservations that it sees."""

    def __init__(self) -> None:
        self.now = 100.0
        self.held: list[Held] = []
        self.stopwatch = Stopwatch(lambda: self.held, lambda: self.now)

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.stopwatch.look()


@pytest.fixture
def bench(caplog: pytest.LogCaptureFixture) -> Bench:
    caplog.set_level(logging.INFO)
    return Bench()


def test_it_tells_once_when_a_reservation_stands(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.stopwatch.start(event("add"))
    bench.after(0.25)
    bench.held = [reservation(EDU, standing=False)]
    bench.after(0.25)
    assert caplog.messages == []
    bench.held = [reservation(OTHER, EDU)]
    bench.after(0.25)
    bench.after(1)
    assert caplog.messages == [f"event: add {EDU}: reservation teach stands, 0.750 s later"]


def test_a_driver_that_binds_does_not_start_it_anew(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.stopwatch.start(event("add"))
    bench.after(2)
    bench.stopwatch.start(event("bind"))
    bench.held = [reservation(EDU)]
    bench.after(1)
    assert caplog.messages == [f"event: add {EDU}: reservation teach stands, 3.000 s later"]
    bench.stopwatch.start(event("bind"))
    bench.after(1)
    assert len(caplog.messages) == 1


def test_it_tells_when_the_memory_is_back(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.held = [reservation(EDU, OTHER)]
    bench.stopwatch.start(event("remove"))
    bench.held = [replace(bench.held[0], standing=False)]
    bench.after(1)
    assert caplog.messages == []
    bench.held = [reservation(OTHER)]
    bench.after(0.5)
    told = f"event: remove {EDU}: nothing is reserved for it any more, 1.500 s later"
    assert caplog.messages == [told]


def test_a_device_that_left_again_is_not_waited_for(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.stopwatch.start(event("add"))
    bench.held = [reservation(EDU, standing=False)]
    bench.stopwatch.start(event("remove"))
    bench.after(1)
    bench.held = []
    bench.after(1)
    assert caplog.messages == [
        f"event: remove {EDU}: nothing is reserved for it any more, 2.000 s later"
    ]


def test_nothing_is_wanted_for_most_devices(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.stopwatch.start(event("add"))
    bench.stopwatch.start(event("remove", OTHER))
    bench.after(LONGEST)
    bench.stopwatch.start(event("add", OTHER))
    bench.held = [reservation(EDU)]
    bench.after(1)
    assert caplog.messages == []
