# SPDX-License-Identifier: Apache-2.0
"""The grammar of the section `dma`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, WithJsonSchema, model_validator

from zoned.model.dma.match import Match
from zoned.model.dma.rung import Rung
from zoned.model.dma.wish import USUAL_PRIORITY, Quirk, Wish
from zoned.policy import values, values_dma
from zoned.policy.grammar import (
    NAME,
    SIZE,
    Section,
    by,
    mistake,
    no_default,
    number_or_text,
    one_or_more,
    only_good_names,
    text,
)

_ADDRESS = "^0[xX][0-9a-fA-F]{1,16}$"
_LIMIT = (
    by(values_dma.limit),
    number_or_text(values_dma.LEAST_BITS, _ADDRESS),
)


def _texts(pattern: str) -> dict[str, object]:
    return {"type": "string", "pattern": pattern}


_PAIR = _texts(r"^[0-9a-fA-F]{4}:([0-9a-fA-F]{4}|\*)$")
_Pairs = Annotated[tuple[str, ...], by(values_dma.pairs), one_or_more(_PAIR)]
_GLOB = _texts("^[!-~]+$")
_Globs = Annotated[tuple[str, ...], by(values_dma.globs), one_or_more(_GLOB)]
_DRIVER = _texts("^[A-Za-z0-9_.+-]+$")
_Drivers = Annotated[tuple[str, ...], by(values_dma.drivers), one_or_more(_DRIVER)]
_CLASS = {"anyOf": [{"type": "integer"}, _texts("^(0[xX])?([0-9a-fA-F]{2}){1,3}$")]}
_Classes = Annotated[tuple[str, ...], by(values_dma.classes), one_or_more(_CLASS)]
_RUNG = {"enum": [str(rung) for rung in Rung]}
_Rungs = Annotated[tuple[Rung, ...], by(values_dma.rungs), one_or_more(_RUNG)]
_Name = Annotated[str, by(values_dma.name), text(NAME)]
_Size = Annotated[int, by(values.size), number_or_text(4096, SIZE)]
_Users = Annotated[tuple[str, ...], by(values_dma.users), one_or_more({"type": "string"})]
_PRIORITY = WithJsonSchema({"type": "integer", "minimum": 0, "maximum": values_dma.MOST_PRIORITY})


class MatchSection(Section):
    """Which devices are meant: each key that is given has to fit. A key takes one, or a list."""

    path: _Globs = Field(
        default=(),
        json_schema_extra=no_default,
        description="A pattern for where the device sits, below /sys, like '*/0000:3b:00.0'.",
    )
    subsystem: _Pairs = Field(
        default=(),
        json_schema_extra=no_default,
        description="Vendor and device of the subsystem: 1028:0106 or 1028:*.",
    )
    id: _Pairs = Field(
        default=(),
        json_schema_extra=no_default,
        description="Vendor and device, as lspci -n shows them: 1028:000a or 1028:*.",
    )
    modalias: _Globs = Field(
        default=(),
        json_schema_extra=no_default,
        description="A pattern for the device's modalias, like pci:v00001028d*.",
    )
    driver: _Drivers = Field(
        default=(),
        json_schema_extra=no_default,
        description="The driver that has the device.",
    )
    class_: _Classes = Field(
        default=(),
        alias="class",
        json_schema_extra=no_default,
        description="The first two, four or six digits of the class: 01, 0104, 010400.",
    )

    @model_validator(mode="after")
    def _names_something(self) -> MatchSection:
        if not any(self.match().keys()):
            raise mistake("names no device", f"give one of {', '.join(self.key_names())}")
        return self

    def match(self) -> Match:
        """Return the model's value."""
        return Match(**{key: getattr(self, key) for key in type(self).model_fields})


class QuirkSection(Section):
    """How far some devices really reach."""

    match: MatchSection = Field(description="Which devices.")
    limit: Annotated[int, *_LIMIT] = Field(
        description="How far they reach: address bits, like 31, or the highest address, like "
        "0x7fffffff.",
    )
    source: Annotated[str, by(values_dma.line)] = Field(
        default="", description="Where that is known from."
    )

    def quirk(self, place: str) -> Quirk:
        """Return the model's value."""
        return Quirk(match=self.match.match(), limit=self.limit, place=place, reason=self.source)


class ReservationSection(Section):
    """Memory for some devices."""

    match: MatchSection = Field(description="Which devices.")
    size: _Size = Field(
        description="How much: for each device, or for all together with `pool`, e.g. 2GiB."
    )
    limit: Annotated[int | None, *_LIMIT] = Field(
        default=None,
        json_schema_extra=no_default,
        description="The memory lies below this, where the devices' own limit is higher or not "
        "known: address bits, or the highest address.",
    )
    pool: Annotated[str | None, by(values_dma.name), text(NAME)] = Field(
        default=None,
        json_schema_extra=no_default,
        description="Share the size among all devices of reservations that name this pool.",
    )
    hold: bool = Field(
        default=False, description="Whether the memory is kept while no such device is there."
    )
    rungs: _Rungs = Field(
        default=tuple(Rung),
        json_schema_extra=no_default,
        description="What may be tried: iommu, devdax, cma, lowmem, blocks, hugetlb, "
        "pending-reboot. Default: all. Without iommu, memory is wanted behind an IOMMU, too.",
    )
    priority: Annotated[int, by(values_dma.priority), _PRIORITY] = Field(
        default=USUAL_PRIORITY,
        description="Who comes first where low memory is short: 0 to 100.",
    )
    users: _Users = Field(
        default=(),
        json_schema_extra=no_default,
        description="Who besides root may have buffers of it (zonectl dma alloc).",
    )
    groups: _Users = Field(
        default=(),
        json_schema_extra=no_default,
        description="The groups whose members may have buffers of it.",
    )

    def wish(self, name: str, place: str) -> Wish:
        """Return the model's value."""
        fields = {key: getattr(self, key) for key in type(self).model_fields}
        return Wish(name=name, place=place, **(fields | {"match": self.match.match()}))


class DmaSection(Section):
    """Devices that cannot reach all memory: how far they reach, and what is wanted for them."""

    quirks: list[QuirkSection] | None = Field(
        default=None, description="How far devices reach, where their drivers do not say."
    )
    reservations: dict[_Name, ReservationSection] | None = Field(
        default=None,
        json_schema_extra=only_good_names,
        description="Memory for devices, by name.",
    )
