# SPDX-License-Identifier: Apache-2.0
"""Which limits must be written, in which order, and whether they arrived. No I/O.

Source: Documentation/admin-guide/cgroup-v2.rst, "memory.max": the write itself reclaims and then
kills when usage is above the new value, so lowering lets go of protection first and comes to
`max` last; raising goes the other way round.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from zoned.errors import BelowUse, NotAsWritten
from zoned.idset import format_ids
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zoned.model.zone import Limits

Value = int | frozenset[int] | None


class Field(StrEnum):
    """One value of a group, by its name in `Limits`."""

    MAX = "max"
    HIGH = "high"
    MIN = "min"
    SWAP = "swap"
    CPUS = "cpus"
    MEMS = "mems"

    @property
    def is_set(self) -> bool:
        """Whether the value is a set of numbers, else it is a size in bytes."""
        return self in {Field.CPUS, Field.MEMS}


def value_of(limits: Limits, field: Field) -> Value:
    """Return one value of `limits`."""
    values: dict[Field, Value] = {
        Field.MAX: limits.max,
        Field.HIGH: limits.high,
        Field.MIN: limits.min,
        Field.SWAP: limits.swap,
        Field.CPUS: limits.cpus,
        Field.MEMS: limits.mems,
    }
    return values[field]


def file_text(field: Field, value: Value) -> str:
    """Return a value as its file of cgroup v2 wants it; an empty line lifts a set."""
    if field.is_set:
        return format_ids(value if isinstance(value, frozenset) else ()) or "\n"
    return "max" if value is None else str(value)


def _shown(field: Field, value: Value) -> str:
    if isinstance(value, frozenset):
        return format_ids(value) or "nothing"
    if value is None:
        return "not confined" if field.is_set else "no limit"
    return f"{value} ({format_size(value)})"


def is_lower(wanted: int | None, current: int | None) -> bool:
    """Return whether a limit is lowered; None is no limit."""
    return wanted is not None and (current is None or wanted < current)


def changes(current: Limits, wanted: Limits) -> tuple[Field, ...]:
    """Return the values that differ, in the order in which to write them."""
    sizes = (Field.MAX, Field.HIGH, Field.MIN)
    if is_lower(wanted.max, current.max):
        sizes = (Field.MIN, Field.HIGH, Field.MAX)
    order = (*sizes, Field.SWAP, Field.CPUS, Field.MEMS)
    return tuple(field for field in order if value_of(current, field) != value_of(wanted, field))


def fits(size: int | None, used: int | None) -> bool:
    """Return whether a limit of `size` would not be below what is used; unknown use fits."""
    return size is None or used is None or used <= size


def check_fits(zone: str, size: int | None, used: int | None) -> None:
    """Raises BelowUse where a limit would lie below what the zone uses."""
    if not fits(size, used):
        raise BelowUse(
            f"zone {zone!r} uses {format_size(used)}, more than {format_size(size)}",
            hint="the old limit stands; make room first",
        )


def check_written(path: str, found: Limits, wanted: Limits, fields: Iterable[Field]) -> None:
    """Raises NotAsWritten naming every value that reads back other than it was written."""
    wrong = [
        f"{field} is {_shown(field, value_of(found, field))}"
        f" instead of {_shown(field, value_of(wanted, field))}"
        for field in fields
        if value_of(found, field) != value_of(wanted, field)
    ]
    if wrong:
        raise NotAsWritten(f"{path}: " + ", ".join(wrong))
