# SPDX-License-Identifier: Apache-2.0
"""Memory that is asked for by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.engine.dma.conftest import CARD, policy, wish
from tests.unit.engine.dma.test_keeper import lease
from tests.unit.fake_low_memory import GIB, MIB, RATIO
from tests.unit.fakes import control_of
from zoned.engine.dma.manual import Manual, ManualStore
from zoned.engine.jobs.control import Cancelled, Suspended
from zoned.errors import (
    AlreadyReserved,
    InPolicy,
    KernelRefused,
    LimitTooLow,
    LimitUnknown,
    NoRung,
    NoSuchReservation,
    PendingReboot,
    ReservationInUse,
    StateDamaged,
    TooLittleBelow,
    UnknownDevice,
    ZoneBusy,
)
from zoned.model.dma.limit import bits_mask
from zoned.model.dma.rung import Rung
from zoned.model.job import JobKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.engine.dma.conftest import Scene
    from zoned.engine.jobs.control import Body
    from zoned.model.job import JobRequest

NAME = f"mine@{CARD}"
ASKED = Manual(name="mine", device=CARD, size=64 * MIB, limit=bits_mask(31))


def asked(scene: Scene, **more: Any) -> tuple[JobRequest, Body]:
    """Ask for memory; return the job that would get it."""
    fields = {"name": "mine", "device": "00:02.0", "size": 64 * MIB, "limit": bits_mask(31)}
    manual = Manual(**{**fields, **more})
    return scene.engine.prepare(JobKind.DMA_RESERVE, {"manual": manual})


def reserve(scene: Scene, **more: Any) -> tuple[str, ...]:
    """Ask for memory and get it; return what was told."""
    control = control_of()
    _, body = asked(scene, **more)
    body(control)
    return control.progress.notes


def release(scene: Scene, name: str) -> None:
    """Give memory back."""
    _, body = scene.engine.prepare(JobKind.DMA_RELEASE, {"name": name})
    body(control_of())


def nothing_is_left(scene: Scene) -> bool:
    """Return whether nothing tells of a reservation any more."""
    machine = scene.engine.machine
    touched = machine.ledger.touched
    return (
        not scene.held
        and touched.ratio is None
        and scene.memory.ratio == RATIO
        and not machine.manual.all
    )


def test_what_is_asked_for_is_there_and_goes_when_that_is_asked(scene: Scene) -> None:
    request, body = asked(scene)
    assert request.what == f"reserve 64MiB for device {CARD}"
    assert request.zones == (f"dma:{NAME}",)
    json.dumps(dict(request.parameters))
    assert nothing_is_left(scene)
    notes = reserve(scene)
    assert notes[-1].startswith("64MiB on lowmem. Allocations that could come from elsewhere")
    assert " Not: Particular addresses" in notes[-1]
    assert scene.held[NAME].standing
    assert scene.tick() == []
    release(scene, NAME)
    assert nothing_is_left(scene)
    body(control_of())  # as a job that is taken up again
    body(control_of())
    assert scene.memory.protects() == 64 * MIB


def test_it_outlives_the_daemon_and_follows_the_device(scene: Scene) -> None:
    reserve(scene)
    scene.start()
    assert scene.tick() == []
    scene.pull()
    assert scene.tick() == [f"give back memory: {NAME}"]
    assert scene.alerts == {}
    assert list(scene.engine.machine.manual.all) == [NAME]
    (scene.folder / f"sys/devices/pci0000:00/{CARD}").rename(scene.folder / "gone")
    scene.plug()
    assert scene.tick() == [f"reserve memory: {NAME}"]


@pytest.mark.parametrize("name", [NAME, CARD, "00:02.0", "mine"])
def test_ways_to_name_it(scene: Scene, name: str) -> None:
    reserve(scene)
    release(scene, name)
    assert nothing_is_left(scene)


def test_it_can_be_given_up_while_the_device_is_away(scene: Scene) -> None:
    reserve(scene)
    scene.pull()
    scene.tick()
    release(scene, "mine")
    assert nothing_is_left(scene)


def test_names_that_nobody_has(scene: Scene) -> None:
    with pytest.raises(NoSuchReservation, match=r"no reservation is called 'x'.*: none"):
        release(scene, "x")
    scene.plug("0000:00:03.0")
    reserve(scene)
    reserve(scene, device="0000:00:03.0")
    with pytest.raises(NoSuchReservation, match="2 reservations are called 'mine'"):
        release(scene, "mine")


def test_two_cannot_be_had_for_one_device(scene: Scene) -> None:
    reserve(scene)
    with pytest.raises(AlreadyReserved, match=f"{NAME} is for {CARD} already"):
        asked(scene, name="more")
    release(scene, "mine")
    scene.want(wish())
    with pytest.raises(AlreadyReserved, match=f"teach@{CARD} is for {CARD} already"):
        asked(scene)


def test_what_was_asked_for_by_hand_comes_before_the_policy(scene: Scene) -> None:
    reserve(scene)
    assert scene.want(wish(size=128 * MIB)) == []
    assert list(scene.held) == [NAME]
    release(scene, "mine")
    assert scene.tick() == [f"reserve memory: teach@{CARD}"]


def test_what_the_policy_wants_is_not_released_by_hand(scene: Scene) -> None:
    scene.want(wish())
    with pytest.raises(InPolicy, match=f"teach@{CARD} is defined by the policy"):
        release(scene, CARD)
    scene.policy = policy()
    scene.engine.machine.policy = scene.policy
    release(scene, CARD)
    assert nothing_is_left(scene)


def test_what_programs_use_is_not_released(scene: Scene) -> None:
    reserve(scene)
    scene.engine.machine.ledger.leased(lease(NAME))
    with pytest.raises(ReservationInUse, match=r"1 buffers of reservation .* \(pid 77\)"):
        release(scene, "mine")
    assert scene.held[NAME].standing


def test_a_job_is_at_it(scene: Scene) -> None:
    reserve(scene)
    scene.memory.set(*RATIO)
    scene.engine.tick()
    with pytest.raises(ZoneBusy):
        release(scene, "mine")


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"device": "00:09.0"}, UnknownDevice),
        ({"limit": None}, LimitUnknown),
        ({"limit": 4095}, LimitTooLow),
        ({"size": 3 * GIB}, TooLittleBelow),
    ],
)
def test_nonsense_is_refused_at_once(
    scene: Scene, more: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        asked(scene, **more)
    assert nothing_is_left(scene)


def test_where_nothing_is_needed_that_is_told(scene: Scene) -> None:
    assert reserve(scene, limit=bits_mask(60)) == (
        "nothing is reserved: with 60 bits all memory of this machine can be reached",
    )
    assert scene.held == {}
    release(scene, "mine")


def test_only_another_boot_helps(scene: Scene) -> None:
    scene.memory.free["DMA32"] = 0
    scene.memory.tell()
    with pytest.raises(PendingReboot, match="only after a reboot") as caught:
        reserve(scene)
    assert "memmap=80M!1968M" in caught.value.hint
    assert list(scene.engine.machine.manual.all) == [NAME]
    assert scene.held == {}
    scene.memory.free["DMA32"] = GIB
    scene.memory.tell()
    assert scene.tick() == [f"reserve memory: {NAME}"]


def test_nothing_helps(scene: Scene) -> None:
    with pytest.raises(NoRung, match=f"reservation {NAME}: devdax: no device-dax region"):
        reserve(scene, rungs=(Rung.DEVDAX,))
    assert nothing_is_left(scene)


def test_the_next_rung_is_tried(scene: Scene) -> None:
    scene.memory.deaf = True
    with pytest.raises(PendingReboot):
        reserve(scene)
    assert scene.held == {}
    assert scene.engine.machine.ledger.touched.ratio is None


def test_low_memory_that_filled_up_meanwhile(scene: Scene) -> None:
    _, body = asked(scene, rungs=(Rung.LOWMEM,))
    on_look(scene, lambda: scene.memory.free.update(DMA32=0))
    with pytest.raises(NoRung, match=f"{NAME}: lowmem: [^;]* of DMA32 are free$"):
        body(control_of())
    assert nothing_is_left(scene)


def on_look(scene: Scene, work: Callable[[], None]) -> None:
    """Have something happen now, before a job begins."""
    work()
    scene.memory.tell()


def test_the_device_goes_between_request_and_grant(scene: Scene) -> None:
    _, body = asked(scene)
    scene.pull()
    with pytest.raises(UnknownDevice):
        body(control_of())
    assert nothing_is_left(scene)


def test_the_device_goes_while_its_memory_is_set_up(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, body = asked(scene)
    ledger = scene.engine.machine.ledger
    real = ledger.ratio_was

    def pulled(former: tuple[int, ...] | None) -> None:
        real(former)
        if not gone:
            gone.append(CARD)
            scene.pull()

    gone: list[str] = []
    monkeypatch.setattr(ledger, "ratio_was", pulled)
    with pytest.raises(UnknownDevice):
        body(control_of())
    assert gone
    assert nothing_is_left(scene)


@pytest.mark.parametrize("times", [1, 2])
def test_cancelled(scene: Scene, times: int) -> None:
    _, body = asked(scene)
    control = control_of()
    for _ in range(times):
        control.cancel()
    with pytest.raises(Cancelled):
        body(control)
    assert nothing_is_left(scene)


def test_cancelled_in_the_midst(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def cancelled(*_: object) -> None:
        raise Cancelled

    _, body = asked(scene)
    monkeypatch.setattr("zoned.engine.dma.lowmem.Lowmem.faults", cancelled)
    with pytest.raises(Cancelled):
        body(control_of())
    assert nothing_is_left(scene)


def test_the_daemon_stops_in_the_midst(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def suspended(*_: object) -> None:
        raise Suspended

    request, body = asked(scene)
    monkeypatch.setattr("zoned.engine.dma.lowmem.Lowmem.faults", suspended)
    with pytest.raises(Suspended):
        body(control_of())
    assert not scene.held[NAME].standing
    monkeypatch.undo()
    scene.memory.answer(monkeypatch)
    scene.start()
    scene.engine.bodies()[JobKind.DMA_RESERVE](request)(control_of())
    assert scene.held[NAME].standing
    release(scene, "mine")
    assert nothing_is_left(scene)


def test_what_cannot_be_tidied_up_stays_on_record(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise KernelRefused("it does not go back")

    _, body = asked(scene)
    monkeypatch.setattr("zoned.engine.dma.lowmem.Lowmem.faults", lambda *_: ["it leaks"])
    monkeypatch.setattr("zoned.engine.dma.lowmem.Lowmem.release", refuse)
    # No other rung may take over the record of what is left.
    with pytest.raises(KernelRefused, match="it does not go back"):
        body(control_of())
    assert not scene.held[NAME].standing
    assert f"reservation {NAME}: [kernel-refused] it does not go back" in caplog.text
    monkeypatch.undo()
    scene.memory.answer(monkeypatch)
    scene.tick()
    assert nothing_is_left(scene)


def test_the_store_comes_back(tmp_path: Path) -> None:
    store = ManualStore(tmp_path)
    store.put(ASKED)
    other = Manual(name="b", device="x", size=1, rungs=(Rung.CMA,))
    store.put(other)
    assert ManualStore(tmp_path).all == {NAME: ASKED, "b@x": other}
    store.drop(NAME)
    store.drop(NAME)
    assert ManualStore(tmp_path).all == {"b@x": other}
    assert ManualStore(tmp_path).wishes["x"].rungs == (Rung.CMA,)


@pytest.mark.parametrize(
    "text",
    [
        "5",
        '{"version": 2, "reservations": []}',
        '{"version": 1, "reservations": [5]}',
        '{"version": 1, "reservations": [{"name": "a"}]}',
        '{"version": 1, "reservations": [{"name": "a", "device": "b", "size": "c", "limit": 1}]}',
    ],
)
def test_a_damaged_store_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "dma.json").write_text(text)
    with pytest.raises(StateDamaged, match=r"dma\.json"):
        ManualStore(tmp_path)
