# SPDX-License-Identifier: Apache-2.0
"""What the sections of a policy file are made of, in pydantic's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema
from pydantic_core import PydanticCustomError

from zoned.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SIZE = r"^[0-9]+(\.[0-9]+)?\s*([KMGTkmgt]([Ii]?[Bb])?|[Bb])?$"
NAME = "^[a-z0-9][a-z0-9._-]{0,62}$"


class Section(BaseModel):
    """A part of a policy file: unknown keys are mistakes, and nothing is guessed."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @classmethod
    def key_names(cls) -> tuple[str, ...]:
        """Return the keys as they are written."""
        return tuple(field.alias or name for name, field in cls.model_fields.items())


def mistake(message: str, hint: str) -> PydanticCustomError:
    """Return the error for whoever wrote the file."""
    return PydanticCustomError("zoned", "{message}", {"message": message, "hint": hint})


def by(function: Callable[[Any], object]) -> BeforeValidator:
    """Have a function of `zoned.policy.values` judge a value."""

    def judge(value: object) -> object:
        try:
            return function(value)
        except BadInput as error:
            raise mistake(error.message, error.hint) from error

    return BeforeValidator(judge)


def text(pattern: str, **more: object) -> WithJsonSchema:
    """Describe a text for editors."""
    return WithJsonSchema({"type": "string", "pattern": pattern, **more})


def number_or_text(least: int, pattern: str) -> WithJsonSchema:
    """Describe a number, or a text."""
    number = {"type": "integer", "minimum": least}
    return WithJsonSchema({"anyOf": [number, {"type": "string", "pattern": pattern}]})


def one_or_more(item: Mapping[str, object]) -> WithJsonSchema:
    """Describe one of something, or a list of them."""
    return WithJsonSchema({"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]})


def no_default(schema: dict[str, Any]) -> None:
    """Drop a default of null, which cannot be written."""
    del schema["default"]


def only_good_names(schema: dict[str, Any]) -> None:
    """Allow no other keys in a mapping by name, which may also be left empty."""
    schema["anyOf"][0]["additionalProperties"] = False
