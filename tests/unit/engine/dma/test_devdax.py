# SPDX-License-Identifier: Apache-2.0
"""Parts of device-dax regions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.engine.dma.conftest import CARD, wish
from tests.unit.fake_sys import MEMORY, link, write
from tests.unit.fakes import control_of
from zoned.engine.blocks.hands import Direct
from zoned.engine.dma.devdax import Devdax
from zoned.errors import RegionReserved, RungFails
from zoned.model.dma.held import Held
from zoned.model.dma.limit import bits_mask
from zoned.model.dma.offer import Span
from zoned.model.dma.rung import Rung
from zoned.model.job import JobKind

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.engine.dma.conftest import Scene

MIB = 1 << 20
BASE = 1 << 30
NAME = f"teach@{CARD}"
DEVDAX: dict[str, Any] = {"rungs": (Rung.DEVDAX,)}


def add_region(
    folder: Path,
    *ranges: tuple[int, int],
    name: str = "dax0.0",
    align: int | None = 2 * MIB,
    driver: str = "device_dax",
) -> None:
    """Make a device-dax region of these ranges: start and size."""
    path = f"sys/bus/dax/devices/{name}"
    size = sum(each for _, each in ranges)
    write(folder, {f"{path}/size": str(size), f"{path}/target_node": "0"})
    for number, (start, each) in enumerate(ranges):
        place = f"{path}/mapping{number}"
        write(folder, {f"{place}/start": f"{start:#x}", f"{place}/end": f"{start + each - 1:#x}"})
    if align is not None:
        write(folder, {f"{path}/align": str(align)})
    link(folder, f"{path}/driver", f"../../drivers/{driver}")


def held(name: str = "a", size: int = 8 * MIB, **more: Any) -> Held:
    """Return a reservation that is to be a part of the region."""
    fields = {"mask": bits_mask(31), "region": "dax0.0", **more}
    return Held(name=name, rung=Rung.DEVDAX, size=size, **fields)


def hold(scene: Scene, asked: Held) -> tuple[Span, ...]:
    """Reserve it; return where."""
    machine = scene.engine.machine
    machine.ledger.reserved(asked)
    found = Devdax().hold(machine, Direct(), asked)
    assert machine.ledger.touched.reservations[asked.name] == found
    assert Devdax().faults(machine, found) == []
    return found.spans


def test_from_the_policy_to_the_region(scene: Scene) -> None:
    add_region(scene.folder, (BASE, 64 * MIB))
    assert scene.want(wish(size=16 * MIB)) == [f"reserve memory: {NAME}"]
    found = scene.held[NAME]
    assert (found.rung, found.region, found.standing) == (Rung.DEVDAX, "dax0.0", True)
    assert found.spans == (Span(BASE, 16 * MIB),)
    assert scene.memory.writes == []
    assert scene.tick() == []
    assert scene.want() == [f"give back memory: {NAME}"]
    assert scene.held == {}


def test_reservations_lie_beside_each_other(scene: Scene) -> None:
    add_region(scene.folder, (BASE, 64 * MIB))
    assert hold(scene, held("a", 8 * MIB)) == (Span(BASE, 8 * MIB),)
    assert hold(scene, held("b", 5 * MIB)) == (Span(BASE + 8 * MIB, 6 * MIB),)
    assert hold(scene, held("c", 8 * MIB)) == (Span(BASE + 14 * MIB, 8 * MIB),)
    scene.engine.machine.ledger.unreserved("b")
    # The tightest hole that fits.
    assert hold(scene, held("d", 6 * MIB)) == (Span(BASE + 8 * MIB, 6 * MIB),)
    assert hold(scene, held("e", 8 * MIB)) == (Span(BASE + 22 * MIB, 8 * MIB),)


def test_whoever_fits_in_no_hole_gets_as_few_pieces_as_possible(scene: Scene) -> None:
    add_region(scene.folder, (BASE, 20 * MIB))
    for name, size in (("a", 4), ("b", 2), ("c", 8), ("d", 4)):
        hold(scene, held(name, size * MIB))
    for name in ("a", "c"):
        scene.engine.machine.ledger.unreserved(name)
    assert hold(scene, held("e", 9 * MIB)) == (Span(BASE, 2 * MIB), Span(BASE + 6 * MIB, 8 * MIB))
    with pytest.raises(RungFails, match=r"4MiB of dax0\.0 are free below the limit by now"):
        hold(scene, held("f", 6 * MIB))


@pytest.mark.parametrize(
    ("align", "spans"),
    [
        (2 * MIB, (Span(BASE + MIB, 2 * MIB),)),
        (None, (Span(BASE + MIB, 2 * MIB),)),
        (4096, (Span(BASE + MIB, MIB + 4096),)),
    ],
)
def test_pieces_are_aligned_from_the_beginning_of_the_region(
    scene: Scene, align: int | None, spans: tuple[Span, ...]
) -> None:
    add_region(scene.folder, (BASE + MIB, 63 * MIB), align=align)
    assert hold(scene, held("a", MIB + 1)) == spans


def test_nothing_lies_beyond_the_limit(scene: Scene) -> None:
    end = 1 << 31
    add_region(scene.folder, (end - 5 * MIB, 32 * MIB), (4 << 30, 64 * MIB))
    assert hold(scene, held("a", 4 * MIB)) == (Span(end - 5 * MIB, 4 * MIB),)
    with pytest.raises(RungFails, match=r"0B of dax0\.0"):
        hold(scene, held("b", 2 * MIB))
    assert hold(scene, held("c", 2 * MIB, mask=bits_mask(32))) == (Span(end - MIB, 2 * MIB),)


def test_a_region_that_became_something_else(scene: Scene) -> None:
    add_region(scene.folder, (BASE, 64 * MIB))
    scene.want(wish(size=16 * MIB, **DEVDAX))
    (scene.folder / "sys/bus/dax/devices/dax0.0/driver").unlink()
    link(scene.folder, "sys/bus/dax/devices/dax0.0/driver", "../../drivers/kmem")
    assert scene.tick() == [f"reserve memory: {NAME} [rung-fails]"]
    assert scene.alerts == {
        f"reservation {NAME}": "[reservation-broken] dax0.0 is used as system-ram by now"
    }
    with pytest.raises(RungFails, match=r"dax0\.0 is used as system-ram by now"):
        hold(scene, held("b"))


def test_faults_are_told(scene: Scene) -> None:
    add_region(scene.folder, (BASE, 64 * MIB))
    machine = scene.engine.machine
    moved = held(spans=(Span(BASE + 60 * MIB, 8 * MIB),), mask=BASE)
    assert Devdax().faults(machine, moved) == [
        "dax0.0 does not lie any more where its memory was reserved",
        "0x43c00000 to 0x443fffff lies beyond 0x40000000",
    ]
    with pytest.raises(RungFails, match="does not lie any more"):
        Devdax().hold(machine, Direct(), moved)
    (gone,) = Devdax().faults(machine, held(region="dax9.0"))
    assert "there is no device-dax region 'dax9.0'" in gone
    (none,) = Devdax().faults(machine, held(region=None))
    assert "there is no device-dax region ''" in none


def test_what_stands_stays_where_it_is(scene: Scene) -> None:
    add_region(scene.folder, (BASE, 64 * MIB))
    scene.want(wish(size=16 * MIB, pool="p", **DEVDAX))
    before = scene.held["p"].spans
    scene.plug("0000:00:03.0")
    assert scene.tick() == ["reserve memory: p"]
    assert scene.held["p"].devices == (CARD, "0000:00:03.0")
    assert scene.held["p"].spans == before


def test_such_a_region_does_not_become_a_base_zone(scene: Scene) -> None:
    write(scene.folder, {f"{MEMORY}/block_size_bytes": "8000000"})
    add_region(scene.folder, (BASE, 256 * MIB))
    add_region(scene.folder, (BASE * 3, 256 * MIB), name="dax1.0")
    _, body = scene.engine.prepare(JobKind.BASE_ADD, {"base": "dax0.0"})
    scene.want(wish(size=16 * MIB, **DEVDAX))
    with pytest.raises(RegionReserved, match=rf"memory of dax0.0 is reserved .*: {NAME}"):
        scene.engine.prepare(JobKind.BASE_ADD, {"base": "dax0.0"})
    with pytest.raises(RegionReserved):
        body(control_of())
    scene.engine.prepare(JobKind.BASE_ADD, {"base": "dax1.0"})
