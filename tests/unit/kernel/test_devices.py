# SPDX-License-Identifier: Apache-2.0
"""Devices and their IOMMU, from made-up and recorded machines and this one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_devices import EDU, add_device
from tests.unit.fake_sys import link
from zoned.errors import MachineError
from zoned.kernel.devices import read_devices
from zoned.kernel.root import Root, sysroot
from zoned.model.dma.device import Bus, Device, Iommu

if TYPE_CHECKING:
    from collections.abc import Callable


def devices(folder: Path) -> dict[str, Device]:
    """Return the devices of a machine of files by their address."""
    return {each.address: each for each in read_devices(sysroot(folder))}


def test_everything_at_once(tmp_path: Path) -> None:
    files = {
        "vendor": "0x9005",
        "device": "0x0285",
        "subsystem_vendor": "0x17aa",
        "subsystem_device": "0x0286",
        "class": "0x010400",
        "modalias": "pci:v00009005d00000285sv000017AAsd00000286bc01sc04i00",
        "numa_node": "1",
        "dma_mask_bits": "32",
        "consistent_dma_mask_bits": "31",
    }
    add_device(tmp_path, "0000:02:00.0", files, driver="aacraid", group=(7, "DMA-FQ"))
    found = devices(tmp_path)["0000:02:00.0"]
    assert found == Device(
        bus=Bus.PCI,
        address="0000:02:00.0",
        path="/devices/pci0000:00/0000:02:00.0",
        vendor=0x9005,
        device=0x0285,
        subsystem_vendor=0x17AA,
        subsystem_device=0x0286,
        class_code=0x010400,
        modalias=files["modalias"],
        driver="aacraid",
        node=1,
        mask_bits=32,
        coherent_bits=31,
        iommu=Iommu.TRANSLATED,
        iommu_group=7,
    )
    assert (found.id, found.subsystem, found.class_text) == ("9005:0285", "17aa:0286", "010400")


def test_what_is_missing_is_unknown(tmp_path: Path) -> None:
    add_device(tmp_path, "0000:00:01.0", {})
    found = devices(tmp_path)["0000:00:01.0"]
    assert found == Device(
        bus=Bus.PCI, address="0000:00:01.0", path="/devices/pci0000:00/0000:00:01.0"
    )
    assert (found.id, found.subsystem, found.class_text) == (None, None, None)


@pytest.mark.parametrize("text", ["-1", "", "x", "0x", "1 2"])
def test_nonsense_is_unknown(tmp_path: Path, text: str) -> None:
    add_device(tmp_path, "0000:00:01.0", {"numa_node": text, "dma_mask_bits": text, **EDU})
    found = devices(tmp_path)["0000:00:01.0"]
    assert (found.node, found.mask_bits, found.id) == (None, None, "1234:11e8")


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    add_device(tmp_path, "0000:00:01.0", EDU)
    # Root may read everything; a directory is nobody's to read.
    (tmp_path / "sys/devices/pci0000:00/0000:00:01.0/dma_mask_bits").mkdir()
    found = devices(tmp_path)["0000:00:01.0"]
    assert (found.mask_bits, found.id) == (None, "1234:11e8")


@pytest.mark.parametrize(
    ("kind", "iommu"),
    [
        ("DMA", Iommu.TRANSLATED),
        ("DMA-FQ", Iommu.TRANSLATED),
        ("identity", Iommu.PASSTHROUGH),
        ("blocked", Iommu.UNKNOWN),
        ("unmanaged", Iommu.UNKNOWN),
        (None, Iommu.UNKNOWN),
    ],
)
def test_iommu_of_a_group(tmp_path: Path, kind: str | None, iommu: Iommu) -> None:
    add_device(tmp_path, "0000:00:01.0", EDU, group=(3, kind))
    found = devices(tmp_path)["0000:00:01.0"]
    assert (found.iommu, found.iommu_group) == (iommu, 3)


def test_no_group_where_there_are_groups_is_no_iommu(tmp_path: Path) -> None:
    add_device(tmp_path, "0000:00:01.0", EDU)
    assert devices(tmp_path)["0000:00:01.0"].iommu is Iommu.UNKNOWN
    (tmp_path / "sys/kernel/iommu_groups").mkdir(parents=True)
    assert devices(tmp_path)["0000:00:01.0"].iommu is Iommu.NONE


def test_order_is_that_of_the_addresses(tmp_path: Path) -> None:
    addresses = ["0000:00:1f.2", "0000:0a:00.0", "2000:00:00.0", "10000:00:02.0"]
    for address in reversed(addresses):
        add_device(tmp_path, address, EDU)
    add_device(tmp_path, "serial8250", {"modalias": "platform:serial8250"}, bus="platform")
    found = devices(tmp_path)
    assert list(found) == [*addresses, "serial8250"]
    assert found["serial8250"].bus is Bus.PLATFORM
    assert found["serial8250"].modalias == "platform:serial8250"


def test_one_that_goes_meanwhile_is_left_out(tmp_path: Path) -> None:
    link(tmp_path, "sys/bus/pci/devices/0000:00:02.0", "../../../devices/gone")
    assert devices(tmp_path) == {}


def test_one_that_sits_elsewhere_has_no_path(tmp_path: Path) -> None:
    (tmp_path / "elsewhere/0000:00:02.0").mkdir(parents=True)
    link(tmp_path, "sys/bus/pci/devices/0000:00:02.0", str(tmp_path / "elsewhere/0000:00:02.0"))
    assert devices(tmp_path)["0000:00:02.0"].path is None


def test_no_bus_no_devices(tmp_path: Path) -> None:
    assert devices(tmp_path) == {}


def test_a_bus_that_cannot_be_listed(tmp_path: Path) -> None:
    path = tmp_path / "sys/bus/pci/devices"
    path.parent.mkdir(parents=True)
    path.symlink_to(path)
    with pytest.raises(MachineError, match="cannot list"):
        devices(tmp_path)


def test_recorded_machine(machine: Callable[[str], Path]) -> None:
    folder = machine("32em64t-2n8c+dax+nvme+mic+dimms")
    found = devices(folder)
    assert len(found) == len(list((folder / "sys/bus/pci/devices").iterdir())) == 137
    nvme = found["0000:00:02.0"]
    assert (nvme.id, nvme.driver) == ("8086:0953", "nvme")
    assert (nvme.mask_bits, nvme.coherent_bits, nvme.node) == (64, 64, None)
    card = found["0000:82:00.0"]
    assert (card.id, card.driver, card.node, card.mask_bits) == ("15b3:1003", "mlx4_core", 1, None)
    assert found["0000:00:05.0"].driver is None
    assert {each.iommu for each in found.values()} == {Iommu.UNKNOWN}
    assert all(each.path and each.path.startswith("/devices/pci0000:") for each in found.values())


def test_recorded_machine_whose_locality_contradicts(machine: Callable[[str], Path]) -> None:
    found = devices(machine("40intel64-4n10c+pci-conflicts"))
    assert {each.node for each in found.values()} == {None}
    assert found["0000:01:00.0"].driver == "megaraid_sas"


def test_this_machine_agrees_with_its_files() -> None:
    root = Root()
    found = {each.address: each for each in read_devices(root) if each.bus is Bus.PCI}
    folder = root.sys / "bus/pci/devices"
    if not folder.is_dir():
        pytest.skip("this machine has no PCI bus")
    assert set(found) == {path.name for path in folder.iterdir()}
    for address, device in found.items():
        assert f"0x{device.vendor:04x}" == Path(folder, address, "vendor").read_text().strip()
        bits = Path(folder, address, "dma_mask_bits").read_text().strip()
        assert str(device.mask_bits) == bits
