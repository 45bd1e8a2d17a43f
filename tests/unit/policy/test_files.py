# SPDX-License-Identifier: Apache-2.0
"""Which files are in force, and reading them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from zoned.policy.files import DIRECTORIES, LARGEST, decode, in_force, read

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.policy.problem import Problem


def write(directory: Path, name: str, text: str = "zones: {}\n") -> Path:
    """Put a drop-in there."""
    path = directory / "zones.d" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_default_directories() -> None:
    assert [str(path) for path in DIRECTORIES] == ["/usr/lib/zoned", "/run/zoned", "/etc/zoned"]


def test_same_name_overrides_and_names_order(tmp_path: Path) -> None:
    vendor, admin = tmp_path / "lib", tmp_path / "etc"
    write(vendor, "20-b.yaml")
    write(vendor, "10-a.yaml")
    own_b = write(admin, "20-b.yaml")
    own_c = write(admin, "15-c.yaml")
    problems: list[Problem] = []
    found = in_force([vendor, admin, tmp_path / "missing"], problems)
    assert found == [vendor / "zones.d/10-a.yaml", own_c, own_b]
    assert problems == []


@pytest.mark.parametrize("mask", ["empty", "link"])
def test_mask(tmp_path: Path, mask: str) -> None:
    vendor, admin = tmp_path / "lib", tmp_path / "etc"
    write(vendor, "10-a.yaml", "zones: [wrong")
    own = write(admin, "10-a.yaml", "")
    if mask == "link":
        own.unlink()
        own.symlink_to(os.devnull)
    problems: list[Problem] = []
    texts = [read(path, problems) for path in in_force([vendor, admin], problems)]
    assert [source.text for source in texts if source] == ([""] if mask == "empty" else [])
    assert problems == []


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in (".10-a.yaml", "README", "10-a.yaml~", "10-a.yaml.rpmnew"):
        write(tmp_path, name)
    problems: list[Problem] = []
    assert in_force([tmp_path], problems) == []
    assert problems == []


def test_wrong_suffix_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, "10-a.yml")
    problems: list[Problem] = []
    assert in_force([tmp_path], problems) == []
    assert [str(one) for one in problems] == [
        f"{path}: would be ignored: policy files end in .yaml (rename it to 10-a.yaml)"
    ]


def test_drop_ins_that_are_no_directory(tmp_path: Path) -> None:
    (tmp_path / "zones.d").write_text("")
    problems: list[Problem] = []
    assert in_force([tmp_path], problems) == []
    assert [str(one) for one in problems] == [
        f"{tmp_path}/zones.d: cannot be read: Not a directory"
    ]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "No such file or directory"),
        ("directory", "it is no regular file"),
        ("fifo", "it is no regular file"),
        ("loop", "Too many levels of symbolic links"),
    ],
)
def test_unreadable_file_is_named(tmp_path: Path, kind: str, reason: str) -> None:
    path = tmp_path / "x.yaml"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    problems: list[Problem] = []
    assert read(path, problems) is None
    assert [str(one) for one in problems] == [f"{path}: cannot be read: {reason}"]


def test_size_limit(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    problems: list[Problem] = []
    path.write_bytes(b"#" * LARGEST)
    source = read(path, problems)
    assert source is not None
    assert len(source.text) == LARGEST
    assert problems == []
    path.write_bytes(b"#" * (LARGEST + 1))
    assert read(path, problems) is None
    assert [str(one) for one in problems] == [f"{path}: is larger than 1 MiB"]


@pytest.mark.parametrize(
    ("raw", "where"), [(b"\xff", "f:1: byte 1"), (b"a: 1\nb:\n  c: \xe9t\xe9\n", "f:3: byte 6")]
)
def test_not_utf8(raw: bytes, where: str) -> None:
    problems: list[Problem] = []
    assert decode("f", raw, problems) is None
    assert [str(one) for one in problems] == [f"{where}: the text is not UTF-8"]
