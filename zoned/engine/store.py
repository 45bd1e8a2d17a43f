# SPDX-License-Identifier: Apache-2.0
"""The zones that are wanted, on disk: they survive a restart, an upgrade and a reboot."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from zoned.errors import BadInput
from zoned.idset import format_ids, parse_ids
from zoned.kernel.state_file import damaged, load_json, save_json
from zoned.model.zone import Backing, Origin, Zone, ZoneSpec, check_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_VERSION = 1


def zone_to_json(zone: Zone) -> dict[str, Any]:
    """Return the zone as plain data."""
    return {
        "spec": dataclasses.asdict(zone.spec),
        "shares": {str(node): share for node, share in zone.shares.items()},
        "cpus": None if zone.cpus is None else format_ids(zone.cpus),
        "origin": zone.origin.value,
        "units": list(zone.units),
        "leaving": {str(node): size for node, size in zone.leaving.items()},
    }


def spec_from_json(data: Mapping[str, Any]) -> ZoneSpec:
    """Return what `dataclasses.asdict` made plain data of. Raises KeyError, TypeError, ValueError,
    BadName.
    """
    spec = dict(data)
    spec["backing"] = Backing(spec["backing"])
    spec["users"] = tuple(spec["users"])
    spec["size"] = int(spec["size"])
    spec["swap"] = None if spec["swap"] is None else int(spec["swap"])
    check_name(spec["name"])
    return ZoneSpec(**spec)


def zone_from_json(data: dict[str, Any]) -> Zone:
    """Return the zone that `zone_to_json` wrote. Raises KeyError, TypeError, ValueError."""
    return Zone(
        spec=spec_from_json(data["spec"]),
        shares={int(node): int(share) for node, share in data["shares"].items()},
        cpus=None if data["cpus"] is None else parse_ids(data["cpus"]),
        origin=Origin(data["origin"]),
        units=tuple(data["units"]),
        # Not in files of versions before 0.2.
        leaving={int(node): int(size) for node, size in data.get("leaving", {}).items()},
    )


class Store:
    """What is wanted. Every change is on disk before it is seen by anybody."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "zones.json"
        self._zones: Mapping[str, Zone] = MappingProxyType(self._load())

    @property
    def zones(self) -> Mapping[str, Zone]:
        """Return the zones by name: a snapshot that later changes leave alone."""
        return self._zones

    def put(self, zone: Zone) -> None:
        """Add or replace a zone."""
        self._save({**self._zones, zone.name: zone})

    def drop(self, name: str) -> None:
        """Forget a zone; one that is not there is fine."""
        self._save({key: zone for key, zone in self._zones.items() if key != name})

    def _save(self, zones: dict[str, Zone]) -> None:
        data = [zone_to_json(zone) for zone in zones.values()]
        save_json(self._path, {"version": _VERSION, "zones": data})
        self._zones = MappingProxyType(zones)

    def _load(self) -> dict[str, Zone]:
        data = load_json(self._path)
        if data is None:
            return {}
        try:
            version = data["version"]
            zones = [zone_from_json(each) for each in data["zones"]] if version == _VERSION else []
        except (KeyError, TypeError, ValueError, AttributeError, BadInput) as error:
            raise damaged(self._path, str(error)) from error
        if version != _VERSION:
            raise damaged(self._path, f"it is of version {version!r}")
        return {zone.name: zone for zone in zones}
