# SPDX-License-Identifier: Apache-2.0
"""zonectl check and zonectl schema."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from zoned.cli.policy import check, schema
from zoned.errors import PolicyError
from zoned.policy import files

if TYPE_CHECKING:
    from pathlib import Path

DEVICES = """dma:
  quirks:
    - {match: {id: 1028:0001}, limit: 31}
    - {match: {id: 1028:0002}, limit: 31}
  reservations:
    scsi: {match: {driver: aacraid}, size: 1GiB}
"""
GOOD = "zones:\n  db: {size: 1GiB}\n"


def run(*args: str, text: str | bytes = b"") -> str:
    """Run `zonectl check` and return what it prints."""
    result = CliRunner().invoke(check, args, input=text, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def problems(*args: str, text: str | bytes = b"") -> list[str]:
    """Run `zonectl check` and return what it complains of."""
    with pytest.raises(PolicyError) as caught:
        run(*args, text=text)
    return list(caught.value.problems)


def drop_in(folder: Path, name: str, text: str) -> None:
    """Put a file in a configuration directory."""
    (folder / "zones.d").mkdir(parents=True, exist_ok=True)
    (folder / "zones.d" / name).write_text(text)


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(GOOD)
    assert run(str(path)) == "ok: 1 zone\n"
    path.write_text("")
    assert run(str(path)) == "ok: 0 zones\n"


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(GOOD)
    assert json.loads(run("--json", str(path))) == {
        "files": [str(path)],
        "zones": [{"name": "db", "source": f"{path}:2"}],
        "reservations": [],
        "quirks": 0,
    }


def test_devices(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(DEVICES)
    assert run(str(path)) == "ok: 0 zones, 1 reservation, 2 quirks\n"
    assert json.loads(run("--json", str(path))) == {
        "files": [str(path)],
        "zones": [],
        "reservations": [{"name": "scsi", "source": f"{path}:6"}],
        "quirks": 2,
    }


def test_stdin() -> None:
    assert run("-", text=GOOD) == "ok: 1 zone\n"
    known = "(known are system, hotplug, zones, dma)"
    assert problems("-", text="a: 1") == [f"<stdin>:1: a: is no known key {known}"]
    assert problems("-", text=b"\xff") == ["<stdin>:1: byte 1: the text is not UTF-8"]


def test_directories_override_in_order(tmp_path: Path) -> None:
    drop_in(tmp_path / "a", "10.yaml", "zones: wrong")
    drop_in(tmp_path / "b", "10.yaml", GOOD)
    drop_in(tmp_path / "b", "20.yaml", "zones: {web: {size: 1GiB}}")
    assert run(str(tmp_path / "a"), str(tmp_path / "b")) == "ok: 2 zones\n"
    assert len(problems(str(tmp_path / "b"), str(tmp_path / "a"))) == 1


def test_files_are_checked_together(tmp_path: Path) -> None:
    drop_in(tmp_path, "10.yaml", GOOD)
    own = tmp_path / "own.yaml"
    own.write_text(GOOD)
    assert problems(str(own), str(tmp_path)) == [
        f"{own}:2: zones.db: is defined already in {tmp_path}/zones.d/10.yaml:2"
        " (rename or remove one of them)"
    ]


def test_all_problems_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "1.yaml").write_text("zones: {A: {}, b: {size: x}}")
    (tmp_path / "2.yaml").write_text("[")
    found = problems(str(tmp_path / "2.yaml"), str(tmp_path / "1.yaml"), f"{tmp_path}/3.yaml")
    assert [one.removeprefix(f"{tmp_path}/").split(": ")[:2] for one in found] == [
        ["1.yaml:1", "zones.A"],
        ["1.yaml:1", "zones.A.size"],
        ["1.yaml:1", "zones.b.size"],
        ["2.yaml:1", "column 2"],
        ["3.yaml", "cannot be read"],
    ]


def test_a_directory_of_something_else(tmp_path: Path) -> None:
    assert problems(str(tmp_path)) == [
        f"{tmp_path}: holds no directory zones.d (name a configuration directory, or files)"
    ]


def test_a_name_that_no_file_can_have() -> None:
    name = "x" * 300
    assert problems(name) == [f"{name}: cannot be read: File name too long"]


def test_without_argument_what_is_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drop_in(tmp_path, "10.yaml", GOOD)
    monkeypatch.setattr(files, "DIRECTORIES", (tmp_path / "missing", tmp_path))
    assert run() == "ok: 1 zone\n"


def test_schema() -> None:
    result = CliRunner().invoke(schema, catch_exceptions=False)
    assert json.loads(result.output)["properties"].keys() == {"system", "hotplug", "zones", "dma"}


def test_importing_the_commands_is_cheap() -> None:
    code = (
        "import sys, zoned.cli.policy;"
        "assert not {'pydantic', 'yaml', 'zoned.policy.load'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
