# SPDX-License-Identifier: Apache-2.0
"""Names of units: systemd's escaping, and zones as slices.

A dash in a slice's name makes it the child of another slice, so a zone `a-b` has to become
`zone-a\\x2db.slice`. Source: systemd.unit(5), "String Escaping for Inclusion in Unit Names".
"""

from __future__ import annotations

import re
import string

from zoned.errors import BadName
from zoned.kernel.cgroup.tree import is_name

_PLAIN = frozenset((string.ascii_letters + string.digits + ":_.").encode())
_ESCAPED = re.compile(r"\\x([0-9a-fA-F]{2})")

# UNIT_NAME_MAX of systemd, less its final NUL.
_LONGEST = 255


def _byte(byte: int, *, first: bool) -> str:
    if byte == ord("/"):
        return "-"
    if byte not in _PLAIN or (first and byte == ord(".")):
        return f"\\x{byte:02x}"
    return chr(byte)


def escape(text: str) -> str:
    """Return `text` as systemd-escape(1) prints it."""
    return "".join(_byte(byte, first=at == 0) for at, byte in enumerate(text.encode()))


def unescape(text: str) -> str:
    """Return what `escape` made `text` of."""
    plain = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text.replace("-", "/"))
    return plain.encode("latin-1").decode(errors="replace")


def parent_slice(parent: str) -> str:
    """Return the slice that all zones are in, e.g. ``zone.slice``."""
    return f"{escape(parent)}.slice"


def zone_slice(parent: str, zone: str) -> str:
    """Return the slice of a zone, e.g. ``zone-db.slice``. Raises BadName where it is too long."""
    name = f"{escape(parent)}-{escape(zone)}.slice"
    if len(name) > _LONGEST:
        raise BadName(
            f"{zone!r} is too long for a slice of systemd's",
            hint="each dash counts four times there",
        )
    return name


def zone_of_slice(parent: str, name: str) -> str | None:
    """Return the zone that a slice is for, None if it is for none."""
    start, end = f"{escape(parent)}-", ".slice"
    if not (name.startswith(start) and name.endswith(end)):
        return None
    middle = name[len(start) : -len(end)]
    zone = unescape(middle)
    # Escaping again must give the same name: there are several ways to write one.
    return zone if is_name(zone) and escape(zone) == middle else None
