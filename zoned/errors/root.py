# SPDX-License-Identifier: Apache-2.0
"""What every error of zoned is."""

from __future__ import annotations

from typing import ClassVar


class ZonedError(Exception):
    """Something failed; the message says what, on what and why, the hint what to do."""

    code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message
