# SPDX-License-Identifier: Apache-2.0
"""Memory for devices that was asked for by hand, on disk: it outlives restarts and reboots."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from zoned.kernel.state_file import damaged, load_json, save_json
from zoned.model.dma.match import Match
from zoned.model.dma.rung import Rung
from zoned.model.dma.standing import own_name
from zoned.model.dma.wish import Wish

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_VERSION = 1
PLACE = "by hand"
"""Where a wish stands that is in no policy file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manual:
    """What was asked for, for one device."""

    name: str
    """without the device's address"""
    device: str
    """its address"""
    size: int
    limit: int | None = None
    rungs: tuple[Rung, ...] = tuple(Rung)

    @property
    def reservation(self) -> str:
        """The name of the reservation."""
        return own_name(self.wish, self.device)

    @property
    def wish(self) -> Wish:
        """Return it as if the policy said so."""
        return Wish(
            name=self.name,
            match=Match(),
            size=self.size,
            limit=self.limit,
            rungs=self.rungs,
            place=PLACE,
        )


class ManualStore:
    """All that was asked for by hand. Every change is on disk before it is seen by anybody."""

    def __init__(self, folder: Path | None = None) -> None:
        """Keep it in a folder; without one in memory alone. Raises StateDamaged."""
        self._path = None if folder is None else folder / "dma.json"
        self._found: Mapping[str, Manual] = MappingProxyType(self._load())

    @property
    def all(self) -> Mapping[str, Manual]:
        """Return it by the reservation's name: a snapshot that later changes leave alone."""
        return self._found

    @property
    def wishes(self) -> dict[str, Wish]:
        """Return what is wanted, by the device's address."""
        return {each.device: each.wish for each in self._found.values()}

    def put(self, manual: Manual) -> None:
        """Add or replace one."""
        self._save({**self._found, manual.reservation: manual})

    def drop(self, name: str) -> None:
        """Forget one; one that is not there is fine."""
        if name in self._found:
            self._save({key: each for key, each in self._found.items() if key != name})

    def _save(self, found: dict[str, Manual]) -> None:
        if self._path is not None:
            wishes = [manual_to_json(each) for each in found.values()]
            save_json(self._path, {"version": _VERSION, "reservations": wishes})
        self._found = MappingProxyType(found)

    def _load(self) -> dict[str, Manual]:
        data = None if self._path is None else load_json(self._path)
        if self._path is None or data is None:
            return {}
        try:
            version = data["version"]
            if version != _VERSION:
                raise ValueError(f"it is of version {version!r}")
            found = [manual_from_json(each) for each in data["reservations"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise damaged(self._path, str(error)) from error
        return {each.reservation: each for each in found}


def manual_to_json(manual: Manual) -> dict[str, Any]:
    """Return it as plain data."""
    return {
        "name": manual.name,
        "device": manual.device,
        "size": manual.size,
        "limit": manual.limit,
        "rungs": [str(rung) for rung in manual.rungs],
    }


def manual_from_json(data: Mapping[str, Any]) -> Manual:
    """Return what `manual_to_json` wrote. Raises KeyError, TypeError, ValueError."""
    limit = data["limit"]
    return Manual(
        name=str(data["name"]),
        device=str(data["device"]),
        size=int(data["size"]),
        limit=None if limit is None else int(limit),
        rungs=tuple(Rung(rung) for rung in data["rungs"]),
    )
