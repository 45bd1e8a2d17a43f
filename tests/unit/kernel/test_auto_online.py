# SPDX-License-Identifier: Apache-2.0
"""What the kernel does with memory that is plugged in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_memory import whole_writes
from tests.unit.fake_sys import MEMORY, write
from zoned.errors import KernelRefused, NotAsWritten
from zoned.kernel import auto_online
from zoned.kernel.auto_online import read_auto_online, write_auto_online
from zoned.kernel.root import sysroot
from zoned.model.block import BlockWord

if TYPE_CHECKING:
    from pathlib import Path

FILE = f"{MEMORY}/auto_online_blocks"


@pytest.fixture(autouse=True)
def _files(monkeypatch: pytest.MonkeyPatch) -> None:
    whole_writes(monkeypatch)


@pytest.mark.parametrize("word", BlockWord)
def test_words(tmp_path: Path, word: BlockWord) -> None:
    write(tmp_path, {FILE: "offline"})
    write_auto_online(sysroot(tmp_path), word)
    assert (tmp_path / FILE).read_text().strip() == word
    assert read_auto_online(sysroot(tmp_path)) is word


def test_unknown(tmp_path: Path) -> None:
    assert read_auto_online(sysroot(tmp_path)) is None
    write(tmp_path, {FILE: "sometimes"})
    assert read_auto_online(sysroot(tmp_path)) is None


def test_what_was_not_taken_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KernelRefused, match="auto_online_blocks"):
        write_auto_online(sysroot(tmp_path), BlockWord.OFFLINE)
    write(tmp_path, {FILE: "online"})
    monkeypatch.setattr(auto_online, "write_text", lambda *_: None)
    with pytest.raises(NotAsWritten, match="reads online after offline"):
        write_auto_online(sysroot(tmp_path), BlockWord.OFFLINE)
