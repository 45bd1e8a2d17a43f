# SPDX-License-Identifier: Apache-2.0
"""Logging: to the journal with its levels where stderr is the journal, plain lines elsewhere."""

from __future__ import annotations

import logging
import os
import sys

_LEVELS = {
    "emerg": logging.CRITICAL,
    "alert": logging.CRITICAL,
    "crit": logging.CRITICAL,
    "err": logging.ERROR,
    "warning": logging.WARNING,
    "notice": logging.INFO,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}
_SYSLOG = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


class JournalFormatter(logging.Formatter):
    """Marks each line with its level, as sd-daemon(3) describes."""

    def format(self, record: logging.LogRecord) -> str:
        level = next((number for least, number in _SYSLOG if record.levelno >= least), 7)
        return "\n".join(f"<{level}>{line}" for line in super().format(record).splitlines())


def stderr_is_journal() -> bool:
    """Return whether stderr is the stream that JOURNAL_STREAM names (systemd.exec(5))."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def setup_logging() -> None:
    """Send records to stderr. SYSTEMD_LOG_LEVEL (a syslog word) sets the least level shown."""
    handler = logging.StreamHandler()
    if stderr_is_journal():
        handler.setFormatter(JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    word = os.environ.get("SYSTEMD_LOG_LEVEL", "info").lower()
    logging.basicConfig(level=_LEVELS.get(word, logging.INFO), handlers=[handler], force=True)
