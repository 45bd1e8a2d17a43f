# SPDX-License-Identifier: Apache-2.0
"""What clients are told of memory for devices, and how what they ask for is judged."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.engine.dma.conftest import ANY_EDU, CARD, Scene, make_scene, policy, wish
from tests.unit.engine.dma.test_devdax import add_region
from tests.unit.fakes import control_of
from zoned.api.types_dma import ReservationInfo, SpanInfo
from zoned.daemon.dma import list_reservations, manual
from zoned.engine.dma.manual import Manual
from zoned.errors import BadInput, ZonedError
from zoned.model.dma.limit import bits_mask
from zoned.model.dma.rung import Rung
from zoned.model.dma.wish import Quirk
from zoned.model.job import JobKind

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
NAME = f"teach@{CARD}"
MINE = Manual(name="mine", device=CARD, size=64 * MIB, limit=bits_mask(31))


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return make_scene(tmp_path, monkeypatch)


def told(scene: Scene) -> list[ReservationInfo]:
    """Return what the daemon tells."""
    return list_reservations(scene.engine.machine, scene.jobs.busy_zones.get)


def test_nothing_is_told_where_there_is_nothing(scene: Scene) -> None:
    assert told(scene) == []


def test_what_stands(scene: Scene) -> None:
    add_region(scene.folder, (1 << 30, 64 * MIB))
    scene.want(wish(size=16 * MIB))
    assert told(scene) == [
        ReservationInfo(
            name=NAME,
            wish="teach",
            by_hand=False,
            devices=[CARD],
            size=16 * MIB,
            limit=bits_mask(31),
            state="reserved",
            rung="devdax",
            reserved=16 * MIB,
            why="",
            error="",
            hint="",
            at_boot=None,
            booted=False,
            standing=True,
            node=None,
            region="dax0.0",
            spans=[SpanInfo(start=1 << 30, size=16 * MIB)],
            blocks=[],
            above=[],
            page=None,
            job=None,
        )
    ]


def test_what_could_be_and_who_is_at_it(scene: Scene) -> None:
    scene.policy = policy(wish())
    scene.engine.reload()
    (found,) = told(scene)
    assert (found.state, found.rung, found.reserved, found.job) == ("possible", "lowmem", 0, 1)
    assert found.why.startswith("1GiB of DMA32 are free")


def test_what_only_another_boot_gives(scene: Scene) -> None:
    scene.memory.free["DMA32"] = 0
    scene.memory.tell()
    scene.want(wish(size=64 * MIB))
    (found,) = told(scene)
    assert (found.state, found.rung) == ("pending-reboot", "pending-reboot")
    assert found.at_boot == SpanInfo(start=1968 * MIB, size=80 * MIB)


def test_of_a_pool_those_that_need_nothing_are_told_apart(scene: Scene) -> None:
    scene.plug("0000:00:03.0")
    (scene.folder / "sys/kernel/iommu_groups/1").mkdir(parents=True)
    group = scene.folder / "sys/devices/pci0000:00/0000:00:03.0/iommu_group"
    group.symlink_to("../../../kernel/iommu_groups/1")
    (scene.folder / "sys/kernel/iommu_groups/1/type").write_text("DMA\n")
    scene.want(wish(pool="p"))
    one, other = told(scene)
    assert (one.name, one.devices, one.state, one.standing) == ("p", [CARD], "reserved", True)
    assert (other.name, other.devices, other.state) == ("p", ["0000:00:03.0"], "satisfied")
    assert (other.standing, other.rung) == (False, "iommu")


def test_what_was_asked_for_by_hand(scene: Scene) -> None:
    _, body = scene.engine.prepare(JobKind.DMA_RESERVE, {"manual": MINE})
    body(control_of())
    (found,) = told(scene)
    assert (found.name, found.by_hand, found.state) == (f"mine@{CARD}", True, "reserved")
    scene.pull()
    (found,) = told(scene)
    assert (found.state, found.reserved, found.by_hand) == ("leaving", 64 * MIB, False)
    assert found.why == "nobody wants it any more"
    scene.tick()
    (found,) = told(scene)
    assert (found.state, found.reserved, found.devices) == ("waiting", 0, [CARD])
    assert (found.by_hand, found.why) == (True, "its device is not there")


def test_each_device_is_told_of_which_the_policy_says_two_things(scene: Scene) -> None:
    scene.plug("0000:00:03.0")
    second = Quirk(match=ANY_EDU, limit=bits_mask(28), place="q.yaml:2")
    both = policy(wish(match=replace(ANY_EDU, id=("1:2",)), hold=True, limit=bits_mask(64)))
    dma = replace(both.dma, quirks=(*both.dma.quirks, second))
    scene.engine.machine.policy = replace(both, dma=dma)
    one, other, held = told(scene)
    assert (one.name, one.wish, one.state, one.error) == ("", "", "refused", "dma-contradiction")
    assert (one.devices, other.devices) == ([CARD], ["0000:00:03.0"])
    assert "0000:00:03.0" in other.why
    # So many bits are in no number of JSON's.
    assert (held.name, held.limit, held.state) == ("teach", None, "satisfied")


def asked(**more: Any) -> Manual:
    fields = {"device": "x", "size": MIB, "name": None, "limit": None, "rungs": None}
    return manual(**{**fields, **more})


def test_what_is_asked_for() -> None:
    assert asked() == Manual(name="manual", device="x", size=MIB)
    assert asked(name="a", limit="31", rungs=["hugetlb", "devdax"]) == Manual(
        name="a",
        device="x",
        size=MIB,
        limit=bits_mask(31),
        rungs=(Rung.DEVDAX, Rung.HUGETLB),
    )
    assert asked(limit="0x7fffffff").limit == bits_mask(31)


@pytest.mark.parametrize(
    "more",
    [
        {"name": "A/B"},
        {"size": 0},
        {"size": -1},
        {"limit": "x"},
        {"limit": "9"},
        {"limit": "9" * 5000},
        {"rungs": []},
        {"rungs": ["x"]},
    ],
)
def test_nonsense_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(BadInput) as caught:
        asked(**more)
    assert isinstance(caught.value, ZonedError)
