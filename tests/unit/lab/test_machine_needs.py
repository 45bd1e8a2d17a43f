# SPDX-License-Identifier: Apache-2.0
"""What a machine of the lab needs that not every host has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.lab.harness.image import kernel_versions
from tests.lab.harness.qemu import PROGRAM, lacks
from tests.lab.harness.topology import CXL, ONE_NODE

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_qemu_with_and_one_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program = tmp_path / PROGRAM
    program.write_text("#!/bin/sh\necho '$2 options:'\necho '  lsa=<link>'\n")
    program.chmod(0o755)
    assert lacks(CXL) == "cxl-type3 with volatile-memdev"
    assert lacks(ONE_NODE) is None
    with program.open("a") as file:
        file.write("echo '  volatile-memdev=<link<memory-backend>>'\n")
    assert lacks(CXL) is None


def test_kernels_by_age(tmp_path: Path) -> None:
    for name in ("7.3.4+deb13-amd64", "6.12.117+deb13-amd64", "6.9.7-amd64"):
        (tmp_path / "usr/lib/modules" / name).mkdir(parents=True)
    assert [name.partition("-")[0] for name in kernel_versions(tmp_path)] == [
        "6.9.7",
        "6.12.117+deb13",
        "7.3.4+deb13",
    ]
