# SPDX-License-Identifier: Apache-2.0
"""The grammar of a policy file, and what to say to whoever breaks it.

The values themselves are judged in `zoned.policy.values`; here is which keys exist and where.
"""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, ValidationError, ValidationInfo, WithJsonSchema, field_validator

from zoned.model.policy import OnlineBy, Percent
from zoned.model.zone import Backing, ZoneSpec
from zoned.policy import values
from zoned.policy.grammar import (
    NAME,
    SIZE,
    Section,
    by,
    mistake,
    no_default,
    number_or_text,
    only_good_names,
    text,
)
from zoned.policy.problem import Problem, field_name, shown
from zoned.policy.schema_dma import DmaSection, MatchSection, QuirkSection, ReservationSection

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from zoned.policy.document import Document
    from zoned.policy.problem import Path

_SIZE_OR_PERCENT = r"^[0-9]+(\.[0-9]+)?\s*([KMGTkmgt]([Ii]?[Bb])?|[Bb]|%)?$"
_NUMBERS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_LIST = WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}, _NUMBERS]})
_NEAR = text("^((cpu|node):[0-9]+|(pci|netdev|block|zone):.+)$")

_RATIO = WithJsonSchema({"type": "number", "minimum": 0.1, "maximum": 100})
_Size = Annotated[int, by(values.size), number_or_text(4096, SIZE)]
_RESERVE = (by(values.reserve), number_or_text(0, _SIZE_OR_PERCENT))
_Swap = Annotated[int | None, by(values.swap), number_or_text(0, rf"^(none|max)$|{SIZE}")]
_User = Annotated[str, by(values.user)]
_NodeId = Annotated[int, by(values.node_id), text("^(0|[1-9][0-9]*)$")]
_ZoneName = Annotated[str, by(values.zone_name), text(NAME)]


class SystemSection(Section):
    """What belongs to the system and not to zones."""

    reserve: Annotated[int | Percent | None, *_RESERVE] = Field(
        default=None,
        json_schema_extra=no_default,
        description="What zones may never claim of each node: a size, or a percentage of the "
        "node (then at least 64MiB, unless 0%). Default 5%.",
    )
    nodes: dict[_NodeId, Annotated[int | Percent, *_RESERVE]] = Field(
        default={},
        json_schema_extra={"additionalProperties": False},
        description="The same for single nodes, instead of `reserve`.",
    )
    movable_ratio: Annotated[float | None, by(values.movable_ratio), _RATIO] = Field(
        default=None,
        json_schema_extra=no_default,
        description="The most movable memory of a node for each byte that the kernel can use for "
        "itself there, when memory blocks are taken: 0.1 to 100. Default 3.",
    )
    parked: dict[_NodeId, _Size] = Field(
        default={},
        json_schema_extra={"additionalProperties": False},
        description="How much of single nodes is held offline in memory blocks, ready for zones of "
        "backing `blocks`.",
    )


class HotplugSection(Section):
    """Memory that is plugged in while the machine runs."""

    online: Annotated[OnlineBy | None, by(values.online_by)] = Field(
        default=None,
        json_schema_extra=no_default,
        description="Who brings it online: kernel (as the machine is set up, the default), or "
        "zoned (first blocks for the kernel's own use, the rest movable).",
    )
    movable_only: bool | None = Field(
        default=None,
        json_schema_extra=no_default,
        description="Whether zoned brings all of it online as movable memory, so that it can "
        "always leave again; zones use it together with a node that has other memory. Default "
        "false.",
    )


class ZoneSection(Section):
    """One zone."""

    size: _Size = Field(description="How much memory the zone may use, e.g. 64GiB.")
    nodes: Annotated[str | None, by(values.node_list), _LIST] = Field(
        default=None,
        json_schema_extra=no_default,
        description="The nodes it is on, as numactl writes them (0  0,2  0-3,6  all  !1), or a "
        "list of numbers. Excludes `near`.",
    )
    near: Annotated[str | None, by(values.near), _NEAR] = Field(
        default=None,
        json_schema_extra=no_default,
        description="What it is to be close to: cpu:N, node:N, pci:ADDRESS, netdev:NAME, "
        "block:NAME or zone:NAME. Excludes `nodes`.",
    )
    backing: Annotated[Backing, by(values.backing)] = Field(
        default=Backing.RESERVE,
        description="limit: never uses more, never elsewhere. reserve: moreover, what it uses "
        "is not taken away, and zones never oversubscribe a node. blocks: moreover, all of it is "
        "free at the beginning, in memory blocks. node: its nodes are its own alone.",
    )
    cpus: Annotated[str, by(values.cpus), _LIST] = Field(
        default="local",
        description="The CPUs of its members: local (those of its nodes), none (not confined), "
        "or a list like 0-3,8.",
    )
    exclusive_cpus: bool = Field(
        default=False, description="Whether nothing outside the zone may run on its CPUs."
    )
    swap: _Swap = Field(
        default=0, description="The most that may be swapped out: none, max, or a size."
    )
    users: list[_User] = Field(
        default=[], description="Who besides root may run programs in the zone."
    )

    @field_validator("near", mode="before")
    @classmethod
    def _not_with_nodes(cls, value: object, info: ValidationInfo) -> object:
        # A `nodes` that was given and is wrong is missing here, one not given is None.
        if info.data.get("nodes", "") is not None:
            raise mistake("excludes 'nodes'", "keep one of the two")
        return value

    @field_validator("exclusive_cpus")
    @classmethod
    def _needs_cpus(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001
        if value and info.data.get("cpus") == "none":
            raise mistake("needs CPUs, but 'cpus' is none", "write cpus: local")
        return value

    def spec(self, name: str) -> ZoneSpec:
        """Return the model's value for this zone."""
        fields = {key: getattr(self, key) for key in type(self).model_fields}
        fields["users"] = tuple(dict.fromkeys(self.users))
        return ZoneSpec(name=name, **fields)


class PolicyFile(Section):
    """A policy file of zoned: the system's reserve, the zones to be there, and memory for devices.
    See zoned.yaml(5).
    """

    # A section of which everything is commented out is there, and empty.
    system: SystemSection | None = Field(default=None, description="The system's share.")
    hotplug: HotplugSection | None = Field(default=None, description="Memory that is plugged in.")
    zones: dict[_ZoneName, ZoneSection] | None = Field(
        default=None,
        json_schema_extra=only_good_names,
        description="Zones by name.",
    )
    dma: DmaSection | None = Field(
        default=None, description="Devices that cannot reach all memory."
    )


_KEYS = {
    "": PolicyFile.key_names(),
    "system": SystemSection.key_names(),
    "hotplug": HotplugSection.key_names(),
    "zones": ZoneSection.key_names(),
    "dma": DmaSection.key_names(),
    "quirks": QuirkSection.key_names(),
    "reservations": ReservationSection.key_names(),
    "match": MatchSection.key_names(),
}
"""section -> the keys that it knows"""

_MISSING = {
    "size": "write it like size: 2GiB",
    "limit": "write it like limit: 31",
    "match": "write it like match: {id: 1028:000a}",
}
"""key -> what to write"""

_WORDS = {
    "bool_type": ("is not true or false", "write true or false"),
    "model_type": ("is not a mapping", "write KEY: VALUE, indented below it"),
    "dict_type": ("is not a mapping", "write KEY: VALUE, indented below it"),
    "list_type": ("is not a list", "write it like [postgres]"),
}
"""pydantic's kind of mistake -> what is wrong, hint"""


def validate(document: Document, problems: list[Problem]) -> PolicyFile | None:
    """Return the document's content, or None where it breaks the grammar.

    Every breach is added to `problems`.
    """
    try:
        return PolicyFile.model_validate(document.data)
    except ValidationError as error:
        problems += [_problem(document, one) for one in error.errors(include_url=False)]
        return None


def json_schema() -> str:
    """Return the JSON schema of a policy file, for editors."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema |= PolicyFile.model_json_schema()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _problem(document: Document, error: ErrorDetails) -> Problem:
    path: Path = error["loc"]
    if path[-1:] == ("[key]",) and path not in document.places:
        path = path[:-1]
    message, hint = _say(error, path)
    return Problem(
        file=document.name,
        place=document.place(path),
        field=field_name(path),
        message=message,
        hint=hint,
    )


def _say(error: ErrorDetails, path: Path) -> tuple[str, str]:
    kind, value = error["type"], error["input"]
    if kind == "extra_forbidden":
        return "is no known key", _did_you_mean(path)
    if kind == "missing":
        return "is missing", _MISSING[str(path[-1])]
    if value is None:
        return "has no value", "remove the key, or write a value"
    if kind == "zoned":
        return error["ctx"]["message"], error["ctx"]["hint"]
    message, hint = _WORDS[kind]
    if kind == "list_type" and path[-1] == "quirks":
        hint = "write each of them behind a '-'"
    return f"{shown(value)} {message}", hint


def _did_you_mean(path: Path) -> str:
    if str(path[-1])[:1].isdigit():
        return "inside braces a list needs quotes, like '0,2'"
    known = _KEYS[_section(path[:-1])]
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def _section(around: Path) -> str:
    """Return the section whose keys stand at that path."""
    if around[:1] != ("dma",):
        return str(around[0]) if around else ""
    return "match" if len(around) > 3 else str(around[min(len(around) - 1, 1)])
