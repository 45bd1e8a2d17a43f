# SPDX-License-Identifier: Apache-2.0
"""Devices come and go, the policy changes, others write settings, and the daemon is killed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.engine.dma.conftest import ANY_EDU, CARD, policy, wish
from tests.unit.fake_low_memory import GIB, MIB, RATIO
from zoned.engine.dma.keeper import AGAIN
from zoned.engine.dma.manual import Manual
from zoned.engine.engine import Engine
from zoned.errors import PolicyError, UnknownDevice
from zoned.model.dma.held import Lease, dma_owner
from zoned.model.dma.limit import bits_mask
from zoned.model.dma.match import Match
from zoned.model.dma.offer import Span
from zoned.model.dma.rung import Rung
from zoned.model.dma.wish import Quirk

if TYPE_CHECKING:
    from tests.unit.engine.dma.conftest import Scene
    from zoned.model.policy import Policy

NAME = f"teach@{CARD}"
OTHER = "0000:00:03.0"
LOWMEM: dict[str, Any] = {"rungs": (Rung.LOWMEM,)}


def lease(name: str = NAME) -> Lease:
    """Return a buffer of a reservation."""
    return Lease(
        number=1,
        reservation=name,
        pid=77,
        start_time=1,
        uid=0,
        size=4096,
        segments=(Span(0, 4096),),
    )


def devices_of(scene: Scene, name: str) -> tuple[str, ...]:
    """Return whom a reservation is for."""
    return scene.held[name].devices


def elapse(scene: Scene, seconds: float) -> None:
    """Let time pass."""
    keeper = scene.engine._dma
    now = keeper._clock()
    keeper._clock = lambda: now + seconds


def test_nothing_is_looked_at_where_nothing_is_wanted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("zoned.engine.dma.sight.read_offer", fail)
    assert scene.tick() == []
    assert scene.want(wish(match=Match(driver=("x",)))) == []


def test_what_stands_as_wanted_takes_no_look_at_pages(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.want(wish())
    monkeypatch.setattr("zoned.kernel.dma_offer.outlooks", lambda *_: 1 / 0)
    assert scene.tick() == []


def test_memory_is_held_for_a_device_that_comes(scene: Scene) -> None:
    scene.pull()
    spare = wish("spare", hold=True, limit=bits_mask(31), **LOWMEM)
    assert scene.want(spare) == ["reserve memory: spare"]
    assert devices_of(scene, "spare") == ()
    (scene.folder / f"sys/devices/pci0000:00/{CARD}").rename(scene.folder / "gone")
    scene.plug()
    assert scene.tick() == ["reserve memory: spare"]
    assert devices_of(scene, "spare") == (CARD,)
    scene.pull()
    scene.tick()
    assert devices_of(scene, "spare") == ()
    assert scene.memory.protects() == 64 * MIB


def test_devices_share_a_pool(scene: Scene) -> None:
    scene.plug(OTHER)
    assert scene.want(wish(pool="both", size=GIB // 2)) == ["reserve memory: both"]
    assert devices_of(scene, "both") == (CARD, OTHER)
    scene.pull()
    scene.tick()
    assert devices_of(scene, "both") == (OTHER,)
    scene.pull(OTHER)
    scene.tick()
    assert scene.held == {}


def test_a_reload_makes_it_otherwise(scene: Scene) -> None:
    scene.want(wish(size=64 * MIB))
    assert scene.want(wish(size=128 * MIB)) == [f"reserve memory: {NAME}"]
    assert (scene.held[NAME].size, scene.memory.protects()) == (128 * MIB, 128 * MIB)
    assert scene.want(wish("else")) == [
        f"give back memory: {NAME}",
        f"reserve memory: else@{CARD}",
    ]
    assert list(scene.held) == [f"else@{CARD}"]


def test_what_cannot_be_had_leaves_what_there_is(scene: Scene) -> None:
    scene.want(wish(**LOWMEM))
    assert scene.want(wish(size=GIB + GIB // 2, **LOWMEM)) == []
    assert scene.held[NAME].size == 64 * MIB
    assert scene.memory.protects() == 64 * MIB
    assert scene.alerts == {
        f"reservation {NAME}": "[reservation-missing] no rung that may be tried holds"
    }


def test_what_others_write_is_put_right(scene: Scene) -> None:
    scene.want(wish())
    scene.memory.set(*RATIO)
    assert scene.tick() == [f"reserve memory: {NAME}"]
    assert scene.memory.protects() == 64 * MIB
    assert scene.alerts == {}


def test_what_cannot_be_put_right_is_an_alert_and_tried_again_later(scene: Scene) -> None:
    scene.want(wish())
    scene.memory.set(*RATIO)
    scene.memory.deaf = True
    assert scene.tick() == [f"reserve memory: {NAME} [rung-fails]"]
    told = "the kernel keeps 24MiB of DMA32 from ordinary allocations, and 64MiB are needed"
    assert scene.alerts == {
        f"reservation {NAME}": f"[reservation-broken] {told} (vm.lowmem_reserve_ratio)"
    }
    assert scene.held[NAME].standing
    assert scene.tick() == []
    scene.memory.deaf = False
    elapse(scene, AGAIN + 1)
    assert scene.tick() == [f"reserve memory: {NAME}"]
    assert scene.alerts == {}


def test_what_fails_is_tried_again_after_a_while_and_at_each_reload(scene: Scene) -> None:
    scene.memory.refuses = "No"
    assert scene.want(wish(**LOWMEM)) == [f"reserve memory: {NAME} [no-rung]"]
    assert (scene.held, scene.memory.ratio) == ({}, RATIO)
    assert scene.engine.machine.ledger.touched.ratio is None
    assert scene.tick() == []
    (told,) = scene.alerts.values()
    assert told.startswith(f"[reservation-missing] reservation {NAME}: lowmem: echo '256 96")
    assert scene.want(wish(**LOWMEM)) == [f"reserve memory: {NAME}"]
    assert scene.alerts == {}


def test_a_device_that_went_and_came_is_tried_at_once(scene: Scene) -> None:
    scene.memory.refuses = "No"
    scene.want(wish(**LOWMEM))
    scene.pull()
    assert scene.tick() == []
    (scene.folder / f"sys/devices/pci0000:00/{CARD}").rename(scene.folder / "gone")
    scene.plug()
    assert scene.tick() == [f"reserve memory: {NAME}"]


def test_the_next_boot_is_told_where_only_that_helps(scene: Scene) -> None:
    scene.memory.free["DMA32"] = MIB
    scene.memory.tell()
    assert scene.want(wish(size=64 * MIB)) == []
    assert scene.tick() == []
    assert scene.alerts == {
        f"reservation {NAME}": "[reservation-missing] add to the kernel: memmap=80M!1968M (add to"
        " the kernel's command line: memmap=80M!1968M; and once after that boot: ndctl"
        " create-namespace -f -m devdax -M mem -e namespace$(grep -lx 0x7b000000"
        " /sys/bus/nd/devices/region*/resource | tr -dc 0-9).0)"
    }
    assert (scene.held, scene.memory.ratio) == ({}, RATIO)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"size": 3 * GIB}, "[too-little-below] 3072MiB are wanted below 31 bits, and 2047MiB"),
        ({"limit": bits_mask(12) - 4095}, "[limit-too-low] a limit of 0 bits lies below the"),
    ],
)
def test_nonsense_is_an_alert(scene: Scene, more: dict[str, Any], told: str) -> None:
    assert scene.want(wish(**more)) == []
    (found,) = scene.alerts.values()
    assert found.startswith(f"[reservation-missing] {told}")
    assert scene.held == {}


def test_a_contradiction_is_an_alert(scene: Scene) -> None:
    scene.want(wish())
    second = Quirk(match=ANY_EDU, limit=bits_mask(28), place="q.yaml:2")
    dma = replace(scene.policy.dma, quirks=(*scene.policy.dma.quirks, second))
    scene.policy = replace(scene.policy, dma=dma)
    scene.engine.reload()
    (told,) = scene.alerts.values()
    assert told.startswith("[reservation-missing] [dma-contradiction] q.yaml:1 and q.yaml:2 name")
    assert scene.jobs.run() == []
    assert scene.held[NAME].standing


def test_one_that_has_two_wishes_is_named_itself(scene: Scene) -> None:
    assert scene.want(wish("a"), wish("b")) == []
    assert list(scene.alerts) == [f"device {CARD}"]


def test_no_alert_while_a_job_is_at_it(scene: Scene) -> None:
    scene.policy = policy(wish(limit=5000))
    scene.engine.reload()
    assert list(scene.alerts)
    scene.policy = policy()
    scene.want(wish())
    scene.memory.set(*RATIO)
    scene.engine.tick()
    assert scene.alerts == {}
    assert list(scene.jobs.busy_zones) == [dma_owner(NAME)]
    scene.jobs.run()


def test_what_programs_use_stays(scene: Scene) -> None:
    scene.want(wish())
    ledger = scene.engine.machine.ledger
    ledger.leased(lease())
    assert scene.want() == []
    assert scene.held[NAME].standing
    assert scene.memory.protects() == 64 * MIB
    ledger.lease_ended(1)
    scene.engine.reload()
    assert scene.jobs.run() == [f"give back memory: {NAME}"]


def test_what_programs_used_goes_as_soon_as_they_let_go(scene: Scene) -> None:
    scene.want(wish())
    ledger = scene.engine.machine.ledger
    ledger.leased(lease())
    scene.want()
    ledger.lease_ended(1)
    scene.engine.dma_look()
    assert scene.jobs.run() == []  # it was tried a moment ago
    assert not scene.engine.dma_freed({"another": False})
    assert scene.engine.dma_freed({NAME: False})
    scene.engine.dma_look()
    assert scene.jobs.run() == [f"give back memory: {NAME}"]
    assert scene.held == {}


def test_lost_memory_is_looked_for_at_once(scene: Scene) -> None:
    scene.want(wish())
    scene.engine.dma_look()
    assert not scene.engine.dma_freed({NAME: False})
    assert scene.engine.dma_freed({NAME: True})


def test_what_is_wanted_again_stays(scene: Scene) -> None:
    scene.want(wish())
    scene.policy = policy()
    scene.engine.reload()
    scene.policy = policy(wish())
    scene.engine.reload()
    assert scene.jobs.run() == [f"give back memory: {NAME}"]
    assert scene.jobs.notes == ["it is wanted again, and stays"]
    assert scene.held[NAME].standing


def test_what_nobody_wants_any_more_is_not_set_up(scene: Scene) -> None:
    scene.policy = policy(wish())
    scene.engine.machine.policy = scene.policy
    scene.engine.dma_look()
    scene.pull()
    assert scene.jobs.run() == [f"reserve memory: {NAME}"]
    assert scene.jobs.notes == ["nobody wants it any more"]
    assert scene.held == {}


def test_a_driver_waits_for_the_job(scene: Scene) -> None:
    scene.want(wish(match=Match(driver=("x",))))
    assert scene.engine.dma_prepare(CARD) is None
    scene.policy = policy(wish())
    scene.engine.machine.policy = scene.policy
    number = scene.engine.dma_prepare("00:02.0")
    assert number is not None
    assert scene.engine.dma_prepare(CARD) == number
    scene.jobs.run()
    assert scene.engine.dma_prepare(CARD) is None
    with pytest.raises(UnknownDevice):
        scene.engine.dma_prepare("0000:00:09.0")


def test_before_there_are_jobs(scene: Scene) -> None:
    scene.policy = policy(wish())
    scene.start()
    scene.engine.jobs = None
    assert scene.engine.dma_prepare(CARD) is None
    assert scene.held == {}


def test_a_policy_that_cannot_be_read_takes_nothing_away(scene: Scene) -> None:
    def fail() -> Policy:
        raise PolicyError(("f:1: a mistake",))

    scene.want(wish())
    scene.load = fail
    scene.start()
    assert scene.tick() == []
    assert scene.held[NAME].standing
    # What was cut off does not stand for anybody.
    scene.engine.machine.ledger.reserved(replace(scene.held[NAME], standing=False))
    assert scene.tick() == [f"give back memory: {NAME}"]
    scene.load = policy
    scene.engine.reload()
    assert scene.held == {}


def test_reset_gives_everything_back(scene: Scene) -> None:
    scene.want(wish())
    assert scene.engine.reset() == []
    assert (scene.held, scene.memory.ratio) == ({}, RATIO)
    assert scene.tick() == []
    scene.engine.reload()
    assert scene.jobs.run() == [f"reserve memory: {NAME}"]


def test_reset_tells_what_it_could_not(scene: Scene) -> None:
    scene.want(wish())
    scene.engine.machine.ledger.leased(lease())
    (told,) = scene.engine.reset()
    assert told.startswith(f"reservation {NAME}: programs have 1 buffers of reservation {NAME}")


def test_check_looks_and_changes_nothing(scene: Scene) -> None:
    scene.want(wish())
    assert scene.engine.dma_check() == []
    scene.memory.set(*RATIO)
    (found,) = scene.engine.dma_check()
    assert (found.code, found.subject) == ("reservation-broken", f"reservation {NAME}")
    assert scene.jobs.busy_zones == {}
    assert scene.memory.ratio == RATIO


def test_a_machine_that_cannot_be_read_stops_nobody(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.policy = policy(wish())
    scene.engine.machine.policy = scene.policy
    folder = scene.folder / "sys/bus/pci/devices"
    folder.rename(scene.folder / "aside")
    folder.write_text("")
    folder.unlink()
    folder.symlink_to(folder)
    scene.engine.tick()
    assert "memory for devices: [machine]" in caplog.text


def test_reset_forgets_what_was_asked_for_by_hand(scene: Scene) -> None:
    scene.engine.machine.manual.put(Manual(name="mine", device=CARD, size=64 * MIB))
    scene.tick()
    assert scene.engine.reset() == []
    assert not scene.engine.machine.manual.all


def test_a_daemon_that_starts_leaves_the_first_move_to_jobs_of_before(scene: Scene) -> None:
    """Else two would work on one reservation: the one of before, and another for the same."""
    scene.policy = policy(wish())
    scene.engine = Engine(scene.world.machine(), lambda: scene.policy)
    scene.engine.jobs = scene.jobs  # type: ignore[assignment]
    scene.engine.start()
    assert not scene.jobs.waiting
    assert scene.tick()
