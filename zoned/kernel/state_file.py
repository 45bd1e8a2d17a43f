# SPDX-License-Identifier: Apache-2.0
"""Files that must be whole after any crash: written aside, synced, renamed, the folder synced.

Sources: open(2), fsync(2) ("Calling fsync() does not necessarily ensure that the entry in the
directory has also reached disk"), rename(2).
"""

from __future__ import annotations

import fcntl
import json
import os
from typing import TYPE_CHECKING, Any

from zoned.errors import MachineError, StateDamaged, TryLater

if TYPE_CHECKING:
    from pathlib import Path


def save_json(path: Path, data: Any) -> None:
    """Replace the file's content so that a reader sees the old or the new text, never a part.

    The folder is made if it is missing. Raises MachineError.
    """
    aside = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", encoding="utf-8") as file:
            # Without `indent`, which Python encodes by itself: many times as slow, for each step.
            file.write(json.dumps(data) + "\n")
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise MachineError(f"cannot save {path}: {error.strerror}") from error


def load_json(path: Path) -> Any:
    """Return what `save_json` saved, or None where there is no file. Raises StateDamaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from error


def damaged(path: Path, why: str) -> StateDamaged:
    """Return the error for a state file that makes no sense."""
    return StateDamaged(
        f"cannot read {path}: {why}", hint="move it away to start without what it says"
    )


def lock_folder(folder: Path) -> int:
    """Return a descriptor that holds the folder's lock until it is closed or the process ends.

    Raises TryLater where another daemon holds it, MachineError where there can be none.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise MachineError(f"cannot lock {folder}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise TryLater(
            f"another zoned works in {folder}", hint="stop it first, or take another --state"
        ) from error
    return descriptor
