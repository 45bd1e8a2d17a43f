# SPDX-License-Identifier: Apache-2.0
"""The grammar of a policy file, and what to say to whoever breaks it. The only user of pydantic.

The values themselves are judged in `zoned.policy.values`; here is which keys exist and where.
"""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

from zoned.errors import BadInput
from zoned.model.policy import OnlineBy, Percent
from zoned.model.zone import Backing, ZoneSpec
from zoned.policy import values
from zoned.policy.problem import Problem, field_name, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic_core import ErrorDetails

    from zoned.policy.document import Document
    from zoned.policy.problem import Path

_SIZE = r"^[0-9]+(\.[0-9]+)?\s*([KMGTkmgt]([Ii]?[Bb])?|[Bb])?$"
_SIZE_OR_PERCENT = r"^[0-9]+(\.[0-9]+)?\s*([KMGTkmgt]([Ii]?[Bb])?|[Bb]|%)?$"
_NAME = "^[a-z0-9][a-z0-9._-]{0,62}$"


def _judge(value: object, function: Callable[[Any], object]) -> object:
    try:
        return function(value)
    except BadInput as error:
        details = {"message": error.message, "hint": error.hint}
        raise PydanticCustomError("zoned", "{message}", details) from error


def _by(function: Callable[[Any], object]) -> BeforeValidator:
    return BeforeValidator(lambda value: _judge(value, function))


def _text(pattern: str, **more: object) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, **more})


def _number_or_text(least: int, pattern: str) -> WithJsonSchema:
    number = {"type": "integer", "minimum": least}
    return WithJsonSchema({"anyOf": [number, {"type": "string", "pattern": pattern}]})


_NUMBERS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_LIST = WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}, _NUMBERS]})
_NEAR = _text("^((cpu|node):[0-9]+|(pci|netdev|block|zone):.+)$")

_RATIO = WithJsonSchema({"type": "number", "minimum": 0.1, "maximum": 100})
_Size = Annotated[int, _by(values.size), _number_or_text(4096, _SIZE)]
_RESERVE = (_by(values.reserve), _number_or_text(0, _SIZE_OR_PERCENT))
_Swap = Annotated[int | None, _by(values.swap), _number_or_text(0, rf"^(none|max)$|{_SIZE}")]
_User = Annotated[str, _by(values.user)]
_NodeId = Annotated[int, _by(values.node_id), _text("^(0|[1-9][0-9]*)$")]
_ZoneName = Annotated[str, _by(values.zone_name), _text(_NAME)]


def _no_default(schema: dict[str, Any]) -> None:
    """Drop a default of null, which cannot be written."""
    del schema["default"]


def _only_good_names(schema: dict[str, Any]) -> None:
    schema["anyOf"][0]["additionalProperties"] = False


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class SystemSection(_Model):
    """What belongs to the system and not to zones."""

    reserve: Annotated[int | Percent | None, *_RESERVE] = Field(
        default=None,
        json_schema_extra=_no_default,
        description="What zones may never claim of each node: a size, or a percentage of the "
        "node (then at least 64MiB, unless 0%). Default 5%.",
    )
    nodes: dict[_NodeId, Annotated[int | Percent, *_RESERVE]] = Field(
        default={},
        json_schema_extra={"additionalProperties": False},
        description="The same for single nodes, instead of `reserve`.",
    )
    movable_ratio: Annotated[float | None, _by(values.movable_ratio), _RATIO] = Field(
        default=None,
        json_schema_extra=_no_default,
        description="The most movable memory of a node for each byte that the kernel can use for "
        "itself there, when memory blocks are taken: 0.1 to 100. Default 3.",
    )
    parked: dict[_NodeId, _Size] = Field(
        default={},
        json_schema_extra={"additionalProperties": False},
        description="How much of single nodes is held offline in memory blocks, ready for zones of "
        "backing `blocks`.",
    )


class HotplugSection(_Model):
    """Memory that is plugged in while the machine runs."""

    online: Annotated[OnlineBy | None, _by(values.online_by)] = Field(
        default=None,
        json_schema_extra=_no_default,
        description="Who brings it online: kernel (as the machine is set up, the default), or "
        "zoned (first blocks for the kernel's own use, the rest movable).",
    )
    movable_only: bool | None = Field(
        default=None,
        json_schema_extra=_no_default,
        description="Whether zoned brings all of it online as movable memory, so that it can "
        "always leave again; zones use it together with a node that has other memory. Default "
        "false.",
    )


class ZoneSection(_Model):
    """One zone."""

    size: _Size = Field(description="How much memory the zone may use, e.g. 64GiB.")
    nodes: Annotated[str | None, _by(values.node_list), _LIST] = Field(
        default=None,
        json_schema_extra=_no_default,
        description="The nodes it is on, as numactl writes them (0  0,2  0-3,6  all  !1), or a "
        "list of numbers. Excludes `near`.",
    )
    near: Annotated[str | None, _by(values.near), _NEAR] = Field(
        default=None,
        json_schema_extra=_no_default,
        description="What it is to be close to: cpu:N, node:N, pci:ADDRESS, netdev:NAME, "
        "block:NAME or zone:NAME. Excludes `nodes`.",
    )
    backing: Annotated[Backing, _by(values.backing)] = Field(
        default=Backing.RESERVE,
        description="limit: never uses more, never elsewhere. reserve: moreover, what it uses "
        "is not taken away, and zones never oversubscribe a node. blocks: moreover, all of it is "
        "free at the beginning, in memory blocks. node: its nodes are its own alone.",
    )
    cpus: Annotated[str, _by(values.cpus), _LIST] = Field(
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
            details = {"message": "excludes 'nodes'", "hint": "keep one of the two"}
            raise PydanticCustomError("zoned", "{message}", details)
        return value

    @field_validator("exclusive_cpus")
    @classmethod
    def _needs_cpus(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001
        if value and info.data.get("cpus") == "none":
            details = {"message": "needs CPUs, but 'cpus' is none", "hint": "write cpus: local"}
            raise PydanticCustomError("zoned", "{message}", details)
        return value

    def spec(self, name: str) -> ZoneSpec:
        """Return the model's value for this zone."""
        fields = {key: getattr(self, key) for key in type(self).model_fields}
        fields["users"] = tuple(dict.fromkeys(self.users))
        return ZoneSpec(name=name, **fields)


class PolicyFile(_Model):
    """A policy file of zoned: the system's reserve and the zones to be there. See zoned.yaml(5)."""

    # A section of which everything is commented out is there, and empty.
    system: SystemSection | None = Field(default=None, description="The system's share.")
    hotplug: HotplugSection | None = Field(default=None, description="Memory that is plugged in.")
    zones: dict[_ZoneName, ZoneSection] | None = Field(
        default=None,
        json_schema_extra=_only_good_names,
        description="Zones by name.",
    )


_KEYS = {
    "": tuple(PolicyFile.model_fields),
    "system": tuple(SystemSection.model_fields),
    "hotplug": tuple(HotplugSection.model_fields),
    "zones": tuple(ZoneSection.model_fields),
}
"""section -> the keys that it knows"""

_WORDS = {
    "bool_type": ("is not true or false", "write true or false"),
    "model_type": ("is not a mapping", "write KEY: VALUE, indented below it"),
    "dict_type": ("is not a mapping", "write KEY: VALUE, indented below it"),
    "list_type": ("is not a list", "write it like [postgres]"),
    "missing": ("is missing", "write it like size: 2GiB"),
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
        return _WORDS[kind]
    if value is None:
        return "has no value", "remove the key, or write a value"
    if kind == "zoned":
        return error["ctx"]["message"], error["ctx"]["hint"]
    message, hint = _WORDS[kind]
    return f"{shown(value)} {message}", hint


def _did_you_mean(path: Path) -> str:
    if str(path[-1])[:1].isdigit():
        return "inside braces a list needs quotes, like '0,2'"
    known = _KEYS[str(path[0]) if len(path) > 1 else ""]
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
