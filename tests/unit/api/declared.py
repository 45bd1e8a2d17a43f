# SPDX-License-Identifier: Apache-2.0
"""The daemon's methods as its interfaces declare them."""

from __future__ import annotations

from dataclasses import dataclass
from types import NoneType
from typing import TYPE_CHECKING, Any

from asyncvarlink import varlinksignature

from zoned.api.interfaces import INTERFACES

if TYPE_CHECKING:
    from asyncvarlink.conversion import VarlinkType


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What one method takes and gives."""

    parameters: frozenset[str]
    result: Any
    """the annotation"""
    reply: VarlinkType
    """turns a result, below its name, into JSON as the daemon does"""

    @property
    def name_of_result(self) -> str:
        """The name that the result has in a reply; "" where there is none."""
        return next(iter(self.reply.as_type.__annotations__), "")


def _methods() -> dict[str, Method]:
    found = {}
    for interface in INTERFACES:
        for name in vars(interface):
            signature = varlinksignature(getattr(interface, name))
            if signature is None:
                continue
            results = signature.return_type.as_type.__annotations__
            found[f"{interface.name}.{name}".removeprefix("io.zoned.")] = Method(
                parameters=frozenset(signature.parameter_type.as_type.__annotations__),
                result=next(iter(results.values()), NoneType),
                reply=signature.return_type,
            )
    return found


METHODS = _methods()
"""by name as the client calls them, e.g. "Zones.List", "Status" """
