# SPDX-License-Identifier: Apache-2.0
"""Which policy files are in force, and their text.

Each configuration directory holds drop-ins `zones.d/NN-name.yaml`. Over all directories a file
hides those of the same name in directories before it, and the rest are read in the order of
their names; so an empty file, or a link to the null device, masks. This is what systemd does
(systemd.unit(5), "Unit File Load Path").
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoned.policy.problem import Place, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

DIRECTORIES = (Path("/usr/lib/zoned"), Path("/run/zoned"), Path("/etc/zoned"))
"""the configuration directories, in rising precedence"""

DROP_INS = "zones.d"

LARGEST = 1 << 20
"""bytes: no policy file is larger"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The text of one policy file, and the name to report it under."""

    name: str
    text: str


def in_force(directories: Iterable[Path], problems: list[Problem]) -> list[Path]:
    """Return the files that count, in the order in which they are read.

    A directory that cannot be listed becomes a problem; one that is missing is empty.
    """
    chosen: dict[str, Path] = {}
    for directory in directories:
        for path in _drop_ins(directory / DROP_INS, problems):
            chosen[path.name] = path
    return [path for _, path in sorted(chosen.items()) if not _is_null_link(path)]


def read(path: Path, problems: list[Problem]) -> Source | None:
    """Return the file's text, or None where that is a problem, which is then added."""
    try:
        raw = _content(path)
    except OSError as error:
        problems.append(Problem(file=str(path), message=f"cannot be read: {error.strerror}"))
        return None
    return decode(str(path), raw, problems)


def decode(name: str, raw: bytes, problems: list[Problem]) -> Source | None:
    """Return `raw` as text, or None where it is too large or not UTF-8, which is then added."""
    if len(raw) > LARGEST:
        problems.append(Problem(file=name, message="is larger than 1 MiB"))
        return None
    try:
        return Source(name=name, text=raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        place = Place(line, column)
        problems.append(
            Problem(file=name, place=place, field=f"byte {column}", message="the text is not UTF-8")
        )
        return None


def _drop_ins(folder: Path, problems: list[Problem]) -> list[Path]:
    try:
        paths = list(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(Problem(file=str(folder), message=f"cannot be read: {error.strerror}"))
        return []
    visible = [path for path in paths if not path.name.startswith(".")]
    problems += [_misnamed(path) for path in visible if path.suffix == ".yml"]
    return [path for path in visible if path.suffix == ".yaml"]


def _misnamed(path: Path) -> Problem:
    hint = f"rename it to {path.stem}.yaml"
    return Problem(file=str(path), message="would be ignored: policy files end in .yaml", hint=hint)


def _is_null_link(path: Path) -> bool:
    try:
        return path.readlink() == Path(os.devnull)
    except OSError:
        return False  # Most are no links; what else is wrong shows when the file is read.


def _content(path: Path) -> bytes:
    # Without O_NONBLOCK a FIFO in the directory would hang whoever starts up.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return os.read(descriptor, LARGEST + 1)
    finally:
        os.close(descriptor)
