# SPDX-License-Identifier: Apache-2.0
"""Notes of zoned's own on a group's directory, which live exactly as long as the group does.

`trusted.` attributes are for the initial user namespace only; `user.` ones came to cgroups with
Linux 5.7. Source: xattr(7).
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from zoned.errors import KernelRefused

if TYPE_CHECKING:
    from pathlib import Path

_SPACES = ("trusted.zoned.", "user.zoned.")
_NOT_HERE = frozenset({errno.EPERM, errno.EACCES, errno.EOPNOTSUPP})


def set_mark(folder: Path, name: str, text: str) -> bool:
    """Note something on a group; False where groups take no notes here. Raises KernelRefused."""
    for space in _SPACES:
        try:
            os.setxattr(folder, space + name, text.encode())
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise KernelRefused(f"setxattr {space}{name} {folder}: {error.strerror}") from error
        else:
            return True
    return False


def mark(folder: Path, name: str) -> str:
    """Return the note of that name, "" where there is none. Raises KernelRefused."""
    for space in _SPACES:
        try:
            return os.getxattr(folder, space + name).decode()
        except OSError as error:
            if error.errno not in {errno.ENODATA, errno.ENOENT, *_NOT_HERE}:
                raise KernelRefused(f"getxattr {space}{name} {folder}: {error.strerror}") from error
    return ""
