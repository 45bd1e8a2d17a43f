# SPDX-License-Identifier: Apache-2.0
"""dma alloc and dma leases, with a real socket, and a file in the place of a device-dax region."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.engine.dma.fakes import DAX_BASE, add_dax
from tests.unit.fake_huge import HUGE
from zoned.daemon import buffers as buffers_module

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Daemon


@pytest.fixture
def lender(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """A daemon with a reservation in a region, of which 4 and 8 huge pages follow each other."""
    monkeypatch.setattr(buffers_module, "FIRST_LOOK", 0.01)
    add_dax(daemon.engine.machine, daemon.world.folder)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"x" * 9999)))
    return daemon


def leases(daemon: Daemon) -> Any:
    return json.loads(daemon.well("dma", "leases", "-o", "json"))


def test_segments_are_printed_and_the_buffer_ends_with_the_input(lender: Daemon) -> None:
    text = lender.well("dma", "alloc", "--device", "04:00.0", "--size", "20MiB")
    assert text.splitlines() == [
        "lease 1: 20MiB of scsi",
        "   ADDRESS   SIZE     OFFSET",
        f"{DAX_BASE + 4 * HUGE:#x}   4MiB   0x800000",
        f"{DAX_BASE + (1 << 28):#x}  16MiB  0x1000000",
    ]
    found = leases(lender)
    assert all(each["ending"] for each in found["leases"])
    (pool,) = found["pools"]
    assert (pool["reservation"], pool["rung"], pool["size"]) == ("scsi", "devdax", 12 * HUGE)


def test_json_has_bytes(lender: Daemon) -> None:
    ask = ["dma", "alloc", "--reservation", "scsi", "--size", "4096", "--align", "16MiB", "--json"]
    found = json.loads(lender.well(*ask))
    assert found == {
        "lease": 1,
        "reservation": "scsi",
        "size": HUGE,
        "granule": HUGE,
        "segments": [{"address": DAX_BASE + (1 << 28), "size": HUGE, "offset": 8 * HUGE}],
    }


def test_ctrl_c_ends_it_as_well(lender: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pressed:
        def read(self, _: int) -> bytes:
            told = leases_of(lender)
            assert [each.ending for each in told] == [False]
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Pressed()))
    lender.well("dma", "alloc", "--reservation", "scsi", "--size", "2MiB")
    assert all(each.ending for each in leases_of(lender))


def leases_of(daemon: Daemon) -> list[Any]:
    return list(daemon.engine.machine.ledger.touched.leases.values())


class Became(BaseException):
    """What execve was called with, instead of its doing."""


@pytest.fixture
def no_exec(monkeypatch: pytest.MonkeyPatch) -> None:
    def execve(program: str, arguments: tuple[str, ...], environment: dict[bytes, bytes]) -> None:
        told = {k.decode(): v.decode() for k, v in environment.items() if b"ZONED_DMA" in k}
        inherited = os.get_inheritable(int(told["ZONED_DMA_FD"]))
        raise Became(program, arguments, told, inherited)

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(signal, "signal", lambda *_: None)


@pytest.mark.usefixtures("no_exec")
@pytest.mark.parametrize("dashes", [True, False])
def test_command_inherits_the_buffer(lender: Daemon, *, dashes: bool) -> None:
    command = ["--"] * dashes + ["true", "--size", "x"]
    with pytest.raises(Became) as became:
        lender.well("dma", "alloc", "--reservation", "scsi", "--size", "20MiB", *command)
    program, arguments, told, inherited = became.value.args
    assert (program.rpartition("/")[2], arguments) == ("true", ("true", "--size", "x"))
    assert inherited
    assert int(told.pop("ZONED_DMA_FD")) > 2
    first, second = DAX_BASE + 4 * HUGE, DAX_BASE + (1 << 28)
    assert told == {
        "ZONED_DMA_SIZE": str(10 * HUGE),
        "ZONED_DMA_GRANULE": str(HUGE),
        "ZONED_DMA_LEASE": "1",
        "ZONED_DMA_SEGMENTS": f"{first:#x}:0x400000:0x800000,{second:#x}:0x1000000:0x1000000",
    }


def test_command_that_is_not_there_has_no_buffer(lender: Daemon) -> None:
    ran = lender.zonectl(
        "dma", "alloc", "--reservation", "scsi", "--size", "2MiB", "--", "/no/such"
    )
    assert (ran.status, ran.err) == (127, "zonectl: /no/such: not found\n")
    assert leases(lender)["leases"] == []


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--size", "2MiB"], 2, "[usage] name one of --device and --reservation"),
        (["--size", "2MiB", "--device", "x", "--reservation", "y"], 2, "[usage] name one"),
        (["--size", "2MiB", "--device", "x"], 1, "[no-such-reservation]"),
        (["--size", "zwei", "--reservation", "scsi"], 1, "[bad-size]"),
        (["--size", "2MiB", "--reservation", "scsi", "--align", "3MiB"], 2, "[usage]"),
        (
            ["--size", "2MiB", "--reservation", "scsi", "--segments", "0"],
            2,
            "0 is not in the range",
        ),
        (["--size", "1TiB", "--reservation", "scsi"], 75, "[pool-exhausted]"),
        (["--size", "2MiB", "--reservation", "scsi", "--dmabuf"], 1, "[unsupported]"),
    ],
)
def test_bad_input(lender: Daemon, words: list[str], status: int, said: str) -> None:
    ran = lender.zonectl("dma", "alloc", *words)
    assert ran.status == status
    assert said in ran.err
    assert ran.out == ""


def test_table_of_leases(lender: Daemon) -> None:
    assert lender.well("dma", "leases").splitlines() == [
        "LEASE  RESERVATION  PID  USER  SIZE  SEGMENTS  STATE",
        "",
        "RESERVATION  RUNG     SIZE  LENT   FREE  LONGEST  RUNS  FRAGMENTED",
        "scsi         devdax  24MiB    0B  24MiB    16MiB     2         33%",
    ]
