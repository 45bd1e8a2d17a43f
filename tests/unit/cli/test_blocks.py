# SPDX-License-Identifier: Apache-2.0
"""`zonectl blocks list --why`, without a daemon."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tests.unit.fake_sys import MEMORY, NODES, add_block, add_node, write
from zoned.cli import blocks as module
from zoned.cli.blocks import blocks
from zoned.cli.talk import Session
from zoned.kernel.root import Root, sysroot

PAGES = 16
SIZE = PAGES * 4096
FREE, LRU, SLAB, PGTABLE = 1 << 10, 1 << 5, 1 << 7, 1 << 26


def run(*arguments: str) -> str:
    nobody = Session(socket=Path("/nowhere/io.zoned"))
    result = CliRunner().invoke(blocks, ["list", *arguments], obj=nobody, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def lists(folder: Path, **words: list[int]) -> None:
    for name, values in words.items():
        (folder / "proc" / name).write_bytes(struct.pack(f"={len(values)}Q", *values))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A machine of five blocks with 16 pages each, and two zones with memory in them.

    What its pages are is not shown.
    """
    write(
        tmp_path,
        {
            f"{MEMORY}/block_size_bytes": f"{SIZE:x}",
            f"{NODES}/online": "0",
            "proc/iomem": "",
            "proc/self/mountinfo": f"31 1 0:31 / {tmp_path}/sys/fs/cgroup rw - cgroup2 cgroup2 rw",
            "sys/fs/cgroup/cgroup.controllers": "cpuset memory",
            "sys/fs/cgroup/system.slice/cgroup.controllers": "",
            "sys/fs/cgroup/zone.slice/zone-web.slice/cgroup.controllers": "",
            "sys/fs/cgroup/zone.slice/zone-db.slice/one.scope/cgroup.controllers": "",
        },
    )
    add_node(tmp_path, 0, {})
    add_block(tmp_path, 0, state="online", zones="none", nodes=(0,))
    for number in (1, 2, 3):
        add_block(tmp_path, number, state="online", zones="Normal", nodes=(0,))
    add_block(tmp_path, 4, state="offline", zones="Normal Movable", nodes=(0,))
    return tmp_path


@pytest.fixture
def shown(folder: Path) -> Path:
    """The same machine, which shows its pages to root."""
    groups = folder / "sys/fs/cgroup"
    db, one, web, system = (
        (groups / name).stat().st_ino
        for name in (
            "zone.slice/zone-db.slice",
            "zone.slice/zone-db.slice/one.scope",
            "zone.slice/zone-web.slice",
            "system.slice",
        )
    )
    block_1 = [LRU] * 8 + [SLAB] * 2 + [PGTABLE] + [FREE] * 5
    lists(
        folder,
        kpageflags=[FREE] * PAGES + block_1 + [FREE] * 3 * PAGES,
        kpagecgroup=[0] * PAGES + [db] * 2 + [one] * 3 + [web] + [system] * 2 + [0] * 40,
    )
    return folder


def test_json(shown: Path) -> None:
    found = json.loads(run("--why", "--sysroot", str(shown), "--json"))
    assert found[1] == {
        "id": 1,
        "start": SIZE,
        "size": SIZE,
        "state": "online",
        "zones": ["Normal"],
        "node": 0,
        "owner": "base",
        "offline": False,
        "why": "8KiB slab and 4KiB page tables cannot move",
        "pages": {
            "free": 5 * 4096,
            "movable": 8 * 4096,
            "huge": 0,
            "unmovable": {"slab": 2 * 4096, "page tables": 4096},
            "holes": 0,
        },
        "zones_inside": {"zone:db": 5 * 4096, "zone:web": 4096, "/system.slice": 2 * 4096},
    }
    assert [each["offline"] for each in found] == [False, False, True, True, False]
    assert (found[4]["pages"], found[4]["why"]) == (None, "it is offline")
    assert yaml.safe_load(run("--why", "--sysroot", str(shown), "-o", "yaml")) == found


def test_table(shown: Path) -> None:
    heads, *rows = run("--why", "--sysroot", str(shown)).splitlines()
    assert heads.split() == [
        *("BLOCKS", "RANGE", "SIZE", "STATE", "ZONES", "NODE", "OWNER"),
        *("CAN", "GO", "INSIDE", "WHY"),
    ]
    assert [row.partition("  base   ")[2] for row in rows[:3]] == [
        "no      -" + " " * 32 + "it has holes, or memory of several zones or nodes",
        "no      db 20KiB, web 4KiB, others 8KiB  8KiB slab and 4KiB page tables cannot move",
        "yes     -",
    ]
    assert [row.split()[0] for row in rows] == ["0", "1", "2-3", "4"]


def test_a_group_that_ended_meanwhile(shown: Path) -> None:
    lists(shown, kpagecgroup=[0] * PAGES + [1 << 40] * 4)
    found = json.loads(run("--why", "--sysroot", str(shown), "--json"))
    assert found[1]["zones_inside"] == {"(a group that ended)": 4 * 4096}


def test_what_is_not_recorded_is_unknown(folder: Path) -> None:
    found = json.loads(run("--why", "--sysroot", str(folder), "--json"))
    assert [each["offline"] for each in found] == [False, None, None, None, False]
    assert all("kpageflags: No such file" in each["why"] for each in found[1:4])


def test_of_a_recorded_machine_root_sees_no_more(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "only root" not in run("--why", "--sysroot", str(folder))


def as_this_machine(monkeypatch: pytest.MonkeyPatch, folder: Path, uid: int) -> None:
    recorded = sysroot(folder)
    root = Root(sys=recorded.sys, proc=recorded.proc, cgroup=recorded.cgroup)
    monkeypatch.setattr("zoned.cli.topology.Root", lambda: root)
    monkeypatch.setattr(os, "geteuid", lambda: uid)


@pytest.mark.parametrize(("uid", "said"), [(0, False), (1000, True)])
def test_that_only_root_sees_more_is_said(
    monkeypatch: pytest.MonkeyPatch, folder: Path, uid: int, *, said: bool
) -> None:
    as_this_machine(monkeypatch, folder, uid)
    assert run("--why").endswith("only root can see what lies in memory blocks\n") == said
    assert "only root" not in run()
    json.loads(run("--why", "--json"))


def test_a_machine_without_memory_hotplug(tmp_path: Path) -> None:
    (tmp_path / "sys").mkdir()
    for words in ([], ["--why"]):
        assert json.loads(run(*words, "--sysroot", str(tmp_path), "--json")) == []
        assert run(*words, "--sysroot", str(tmp_path)).endswith(
            "this kernel or machine has no memory hotplug, so there are no memory blocks\n"
        )


def test_machines_with_hotplug_are_not_said_to_have_none(folder: Path) -> None:
    assert "no memory hotplug" not in run("--sysroot", str(folder))


def test_the_plain_list_looks_at_no_page(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(module, "_inside", None)
    (folder / "proc/kpageflags").mkdir()
    assert len(json.loads(run("--sysroot", str(folder), "--json"))) == 5


def test_help_teaches() -> None:
    text = run("--help")
    for word in ("--why", "CAN GO", "INSIDE", "prediction"):
        assert word in text
