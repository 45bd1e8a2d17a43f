# SPDX-License-Identifier: Apache-2.0
"""Hearing of groups that appear, and of those whose nodes somebody changes.

What is heard is only a hint to look again: events can be lost, and nobody minds.
Source: inotify(7).
"""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING

from zoned.errors import Unsupported
from zoned.kernel.syscalls import IN_CREATE, IN_MODIFY, inotify_add, inotify_open

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_log = logging.getLogger(__name__)

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENODEV})
_BUFFER = 64 << 10


class GroupWatch:
    """A descriptor that becomes readable when something in cgroupfs changes.

    Raises Unsupported where the kernel gives none.
    """

    def __init__(self) -> None:
        try:
            self._descriptor = inotify_open()
        except OSError as error:
            raise Unsupported(f"cannot watch groups: {error}") from error
        self._full = False

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def follow(self, paths: Iterable[Path]) -> None:
        """Watch these: folders for new groups, files for what is written. Again is fine.

        What is gone ends its watch by itself.
        """
        for path in paths:
            events = IN_CREATE if path.is_dir() else IN_MODIFY
            try:
                inotify_add(self._descriptor, os.fsencode(path), events)
            except OSError as error:
                if error.errno not in _GONE and not self._full:
                    self._full = True
                    _log.warning("cannot watch %s: %s", path, error)

    def drain(self) -> bool:
        """Take all that waits; return whether there was any."""
        heard = False
        while True:
            try:
                heard = bool(os.read(self._descriptor, _BUFFER)) or heard
            except BlockingIOError:
                return heard

    def close(self) -> None:
        """Hear no more."""
        os.close(self._descriptor)
