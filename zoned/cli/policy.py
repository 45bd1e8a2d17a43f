# SPDX-License-Identifier: Apache-2.0
"""zonectl check and zonectl schema: policy files, without daemon and without root."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from zoned.cli.output import Format, counted, emit, output_option

if TYPE_CHECKING:
    from zoned.policy.files import Source
    from zoned.policy.problem import Problem


@click.command()
@click.argument("files", metavar="[FILE]...", nargs=-1)
@output_option
def check(files: tuple[str, ...], output: Format) -> None:
    """Check policy files, and report every mistake with file, line and field.

    FILE is a policy file, a configuration directory (one that holds zones.d/), or - for standard
    input. Several are checked together, as one policy: directories first, where a later one
    overrides an earlier one. Without FILE, what the daemon would load now is checked.

    \b
    Examples:
      zonectl check
      zonectl check zones.d/50-database.yaml
      zonectl check /usr/lib/zoned /etc/zoned
    """
    # Here and not above: most commands of zonectl need none of it.
    from zoned.policy.files import DIRECTORIES, DROP_INS, in_force, read
    from zoned.policy.load import build

    problems: list[Problem] = []
    names = files or tuple(str(directory) for directory in DIRECTORIES)
    folders = [Path(name) for name in names if not files or _is_folder(Path(name))]
    problems += [
        _no_drop_ins(path) for path in folders if files and not _is_folder(path / DROP_INS)
    ]
    found = [read(path, problems) for path in in_force(folders, problems)]
    found += [_named(name, problems) for name in files if not _is_folder(Path(name))]
    policy = build([source for source in found if source is not None], problems)
    zones = [{"name": name, "source": source} for name, source in policy.sources.items()]
    wishes = [{"name": wish.name, "source": wish.place} for wish in policy.dma.wishes]
    quirks = len(policy.dma.quirks)
    data = {
        "files": list(policy.files),
        "zones": zones,
        "reservations": wishes,
        "quirks": quirks,
    }
    counts = [counted(len(zones), "zone")]
    counts += [counted(len(wishes), "reservation")] if wishes else []
    counts += [counted(quirks, "quirk")] if quirks else []
    emit(output, data, notes=[f"ok: {', '.join(counts)}"])


@click.command()
def schema() -> None:
    """Print the JSON schema of policy files, for editors that check while one types."""
    from zoned.policy.schema import json_schema

    click.echo(json_schema(), nl=False)


def _named(name: str, problems: list[Problem]) -> Source | None:
    from zoned.policy.files import LARGEST, decode
    from zoned.policy.problem import Problem

    # Unlike a drop-in this may be a pipe: whoever names one wants to wait for it.
    try:
        with click.open_file(name, "rb") as stream:
            raw = stream.read(LARGEST + 1)
    except OSError as error:
        problems.append(Problem(file=name, message=f"cannot be read: {error.strerror}"))
        return None
    return decode("<stdin>" if name == "-" else name, raw, problems)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False  # Opening it will tell what is wrong.


def _no_drop_ins(folder: Path) -> Problem:
    from zoned.policy.problem import Problem

    hint = "name a configuration directory, or files"
    return Problem(file=str(folder), message="holds no directory zones.d", hint=hint)
