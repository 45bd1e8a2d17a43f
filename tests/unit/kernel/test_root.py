# SPDX-License-Identifier: Apache-2.0
"""The ways to touch a kernel file."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoned.errors import KernelRefused, MachineError
from zoned.idset import format_ids
from zoned.kernel.root import Root, read_ids, read_int, read_text, sysroot, write_text

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root") / "file"


def test_the_root_of_a_recording_is_not_live() -> None:
    root = sysroot(Path("/r"))
    assert (root.sys, root.proc, root.cgroup, root.run) == (
        Path("/r/sys"),
        Path("/r/proc"),
        Path("/r/sys/fs/cgroup"),
        Path("/r/run"),
    )
    assert not root.live
    assert Root().live


@pytest.mark.parametrize("missing", ["none", "none/deeper", "file/below"])
def test_what_is_not_there_is_unknown(tmp_path: Path, missing: str) -> None:
    (tmp_path / "file").write_text("1")
    for read in (read_text, read_int, read_ids):
        assert read(tmp_path / missing) is None


@pytest.mark.parametrize(
    "code", [errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ESRCH, errno.ENOTDIR]
)
def test_what_goes_while_it_is_read_is_unknown(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def gone(*_: object, **__: object) -> str:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "read_text", gone)
    monkeypatch.setattr(os, "read", gone)
    path.touch()
    assert read_text(path) is None


def test_any_other_failure_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"cannot read .*: Is a directory"):
        read_text(tmp_path)


@given(value=st.integers(-(1 << 63), 1 << 64))
def test_numbers(path: Path, value: int) -> None:
    path.write_text(f"{value}\n")
    assert read_int(path) == value
    path.write_text(f"{abs(value):x}\n")
    assert read_int(path, base=16) == abs(value)


@pytest.mark.parametrize("text", ["", "\n", "max\n"])
def test_no_number_is_none(path: Path, text: str) -> None:
    path.write_text(text)
    assert read_int(path) is None


@given(ids=st.frozensets(st.integers(0, 1 << 16), max_size=20))
def test_lists(path: Path, ids: frozenset[int]) -> None:
    path.write_text(f"{format_ids(ids)}\n")
    assert read_ids(path) == ids


@given(content=st.binary(max_size=200))
def test_any_content_is_read_or_refused_with_its_path(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert read_text(path) is not None
    assert _refusal_names(path, read_int)
    assert _refusal_names(path, read_ids)


def _refusal_names(path: Path, read: Callable[[Path], object]) -> bool:
    try:
        read(path)
    except MachineError as error:
        return str(path) in error.message
    return True


def test_writing(path: Path) -> None:
    path.touch()
    write_text(path, "+memory")
    assert read_text(path) == "+memory"


def test_a_refused_write_names_value_path_and_reason(tmp_path: Path) -> None:
    with pytest.raises(KernelRefused) as caught:
        write_text(tmp_path / "none/memory.max", "4096")
    assert str(caught.value) == (
        f"echo '4096' > {tmp_path}/none/memory.max: No such file or directory"
    )


def test_writing_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(KernelRefused):
        write_text(tmp_path / "new", "1")
    assert not (tmp_path / "new").exists()
