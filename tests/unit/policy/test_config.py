# SPDX-License-Identifier: Apache-2.0
"""The files in config/ are good, and the JSON schema beside them is fresh."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.model.dma.offers import SMALL
from zoned.model.dma.allot import reports
from zoned.model.dma.device import Bus, Device
from zoned.model.dma.limit import device_limit
from zoned.model.dma.rung import Rung
from zoned.model.policy import SystemReserve
from zoned.policy.load import load, load_text
from zoned.policy.schema import (
    HotplugSection,
    PolicyFile,
    SystemSection,
    ZoneSection,
    json_schema,
)
from zoned.policy.schema_dma import DmaSection, MatchSection, QuirkSection, ReservationSection

CONFIG = Path(__file__).parents[3] / "config"
SECTIONS = (
    PolicyFile,
    SystemSection,
    HotplugSection,
    ZoneSection,
    DmaSection,
    MatchSection,
    QuirkSection,
    ReservationSection,
)
EXAMPLES = sorted((CONFIG / "examples").glob("*.yaml"))


def test_default_policy_fits_any_machine() -> None:
    policy = load([CONFIG])
    assert policy.zones == ()
    assert policy.reserve == SystemReserve()
    assert policy.dma.wishes == ()


def test_every_quirk_that_is_shipped_has_a_source() -> None:
    quirks = load([CONFIG]).dma.quirks
    assert quirks
    assert all(quirk.reason and "20-dma-quirks.yaml:" in quirk.place for quirk in quirks)


@pytest.mark.parametrize(
    ("id", "subsystem", "bits"),
    [
        ("1028:000a", "1028:0106", 31),
        ("9005:0285", "9005:0286", 31),
        ("9005:0285", "17aa:0287", 31),
        ("9005:0285", "1028:0287", 31),
        ("9005:0285", "1028:0291", 32),
        ("9005:0285", "9005:0288", 32),
        ("9005:0285", "1014:0312", 32),
        ("9005:0286", "9005:028c", None),
        ("1234:11e8", "1af4:1100", 28),
        ("14e4:4401", "1028:8127", 30),
        # One id, different chips: how far they reach is found out by their drivers.
        ("14e4:4318", "1028:0005", None),
        ("10ec:8139", "1af4:1100", None),
    ],
)
def test_how_far_known_devices_reach(id: str, subsystem: str, bits: int | None) -> None:  # noqa: A002
    (vendor, device), (maker, board) = (
        [int(part, 16) for part in pair.split(":")] for pair in (id, subsystem)
    )
    seen = Device(
        bus=Bus.PCI,
        address="0000:00:01.0",
        vendor=vendor,
        device=device,
        subsystem_vendor=maker,
        subsystem_device=board,
        class_code=0x010400,
    )
    assert device_limit(seen, load([CONFIG]).dma.quirks).bits == bits


def test_default_policy_with_everything_uncommented() -> None:
    text = (CONFIG / "zones.d/10-default.yaml").read_text()
    head, _, body = text.partition("\nsystem:")
    assert head.startswith("# SPDX")
    body = re.sub(r"^( +)# (?=\w+:| )", r"\1", "system:" + body, flags=re.MULTILINE)
    policy = load_text(body, "f")
    assert [zone.name for zone in policy.zones] == ["db"]
    assert sorted(policy.reserve.nodes) == [0, 1]


def test_there_are_examples() -> None:
    assert [path.stem for path in EXAMPLES] == ["database", "dma", "hpc", "vm"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path: Path) -> None:
    policy = load_text(path.read_text(), path.name)
    assert policy.zones or policy.dma.wishes


def test_example_for_devices_can_be_had_on_a_usual_machine() -> None:
    """One with a hole below 4 GiB: for two such boards, one of them behind the broken bridge."""
    dma = load_text((CONFIG / "examples/dma.yaml").read_text(), "dma.yaml").dma
    wishes = tuple(
        replace(each, rungs=(Rung.PENDING_REBOOT,)) for each in dma.wishes if each.name == "scsi"
    )
    devices = [
        Device(
            bus=Bus.PCI,
            address=address,
            path=f"/devices/{address}",
            vendor=0x1234,
            device=0x5678,
            subsystem_vendor=0x1234,
            subsystem_device=1,
        )
        for address in ("0000:3b:00.0", "0000:3c:00.0")
    ]
    policy = replace(dma, wishes=wishes)
    found = reports(devices, policy, SMALL)
    assert [each.rung for each in found] == [Rung.PENDING_REBOOT] * 2, found
    assert [each.limit.mask for each in found] == [0x3FFFFFFF, 0x7FFFFFFF]


def test_examples_show_every_key() -> None:
    text = "".join(path.read_text() for path in EXAMPLES)
    for section in SECTIONS:
        for key in section.key_names():
            assert re.search(rf"^[ {{-]*{key}:|[{{,] *{key}:", text, re.MULTILINE), key


def test_schema_is_fresh() -> None:
    assert (CONFIG / "zoned.schema.json").read_text() == json_schema(), "zonectl schema > it"


def test_schema_describes_every_key() -> None:
    schema = json.loads(json_schema())
    sections = [schema, *(one for one in schema["$defs"].values() if "properties" in one)]
    assert len(sections) == len(SECTIONS)
    for section in sections:
        assert section["additionalProperties"] is False
        assert all(key["description"] for key in section["properties"].values())
