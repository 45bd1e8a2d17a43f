# SPDX-License-Identifier: Apache-2.0
"""JSON as the dataclasses of `zoned.api.types`: what is not exactly as they declare is refused.

Their annotations are real objects, so nothing needs to be looked up or compiled beforehand.
"""

from __future__ import annotations

import dataclasses
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin

T = TypeVar("T")


class WrongShape(ValueError):
    """A value is not what was declared. The message reads on after "somebody answered"."""


def converted(value: object, kind: type[T], where: str) -> T:
    """Return a decoded JSON value as a `kind`.

    That is None, bool, int, float (for which an int will do), str, a list[X], a dict[str, X], a
    dataclass of such fields, or one of these or None; a field that may be None may be missing.
    `where` is what an error calls the value. Raises WrongShape.
    """
    found: T = _converted(value, kind, where)
    return found


def _converted(value: Any, kind: Any, where: str) -> Any:
    if type(value) is kind:
        return value
    if kind is float and type(value) is int:
        return _float(value, where)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _object(value, kind, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if value is None else _converted(value, _unless_none(arguments), where)
    if origin is list and isinstance(value, list):
        (each,) = arguments
        return [_converted(item, each, f"{where}[{at}]") for at, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        _, each = arguments
        return {key: _converted(item, each, f"{where}.{key}") for key, item in value.items()}
    expected = (origin or kind).__name__
    raise WrongShape(f"{type(value).__name__} as {where}, not {expected}")


def _float(value: int, where: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise WrongShape(f"too large a number as {where}") from error


def _object(value: dict[str, Any], kind: Any, where: str) -> Any:
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    if unknown := value.keys() - fields.keys():
        raise WrongShape(f"{where}.{min(unknown)}, which is unknown here")
    for name, each in fields.items():
        if name not in value and not _may_be_none(each):
            raise WrongShape(f"no {where}.{name}")
    return kind(
        **{
            name: _converted(value.get(name), each, f"{where}.{name}")
            for name, each in fields.items()
        }
    )


def _may_be_none(kind: Any) -> bool:
    return get_origin(kind) is UnionType and NoneType in get_args(kind)


def _unless_none(kinds: tuple[Any, ...]) -> Any:
    (kind,) = (each for each in kinds if each is not NoneType)
    return kind
