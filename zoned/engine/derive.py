# SPDX-License-Identifier: Apache-2.0
"""From a zone to the limits that make it one. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.model.zone import Limits

if TYPE_CHECKING:
    from zoned.model.zone import Zone


def limits_of(zone: Zone) -> Limits:
    """Return the limits that the backing promises to keep."""
    return Limits(
        max=zone.spec.size,
        min=zone.spec.size if zone.spec.backing.protects else 0,
        swap=zone.spec.swap,
        mems=zone.mems,
        cpus=zone.cpus,
        exclusive_cpus=zone.spec.exclusive_cpus,
    )
