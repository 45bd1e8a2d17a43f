# SPDX-License-Identifier: Apache-2.0
"""zonectl base: base zones that come and go."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from tests.unit.cli.fake_client import DONE
from tests.unit.fake_memory import BLOCK, FakeMemory
from tests.unit.fake_sys import add_node, link, write
from zoned.api.types import BaseListInfo, BaseZoneInfo, DaxInfo
from zoned.cli.base import base
from zoned.cli.talk import Session
from zoned.errors import Denied, NodeInUse

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.cli.conftest import Daemon, Ran
    from tests.unit.cli.fake_client import FakeDaemon

ZONE = BaseZoneInfo(
    node=4,
    source="dimm",
    removable=True,
    total=4 * BLOCK,
    blocks=4,
    kernel=1,
    movable=3,
    offline=0,
    part_of=[],
    movable_only=False,
    zones=["db", "web"],
)
LIST = BaseListInfo(
    block_size=BLOCK,
    auto_online="offline",
    nodes=[
        replace(ZONE, node=0, source="boot", removable=False, zones=[], part_of=[0, 1]),
        replace(ZONE, node=1, source="unknown", removable=None, part_of=[0, 1]),
        ZONE,
    ],
    dax=[DaxInfo(name="dax0.0", size=4 * BLOCK, node=2, mode="devdax")],
)


def test_list(fake: FakeDaemon, zonectl: Callable[..., Ran]) -> None:
    fake.answers["Memory.BaseList"] = LIST
    assert zonectl("base", "list").out == (
        "NODE  SOURCE   TOTAL  BLOCKS  KERNEL  MOVABLE  OFFLINE  REMOVABLE  ZONES\n"
        "   0  boot    512MiB       4       1        3        0  no         none\n"
        "   1  -       512MiB       4       1        3        0  -          db, web\n"
        "   4  dimm    512MiB       4       1        3        0  yes        db, web\n"
        "\n"
        "REGION    SIZE  NODE  MODE\n"
        "dax0.0  512MiB     2  devdax\n"
        "\n"
        "nodes 0-1 are parts of one physical node (numa=fake)\n"
        "new memory blocks are by themselves: offline\n"
    )
    shown = json.loads(zonectl("base", "list", "--json").out)
    assert shown["nodes"][2]["zones"] == ["db", "web"]
    assert shown["dax"][0] == {"name": "dax0.0", "size": 4 * BLOCK, "node": 2, "mode": "devdax"}


def test_list_tells_what_is_for_movable_memory_alone(
    fake: FakeDaemon, zonectl: Callable[..., Ran]
) -> None:
    nodes = [replace(ZONE, node=node, movable_only=node > 2) for node in range(2, 5)]
    fake.answers["Memory.BaseList"] = replace(LIST, nodes=nodes, auto_online=None, dax=[])
    told = zonectl("base", "list").out.splitlines()[-1]
    assert told.startswith("for movable memory alone: node 3-4 (zones use it together with")
    shown = json.loads(zonectl("base", "list", "--json").out)
    assert [each["movable_only"] for each in shown["nodes"]] == [False, True, True]


def test_list_of_a_daemon(daemon: Daemon) -> None:
    daemon.well("create", "db", "--size", "1GiB", "--nodes", "1")
    found = json.loads(daemon.well("base", "list", "--json"))
    assert [each["zones"] for each in found["nodes"]] == [[], ["db"]]
    assert found["auto_online"] is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    add_node(tmp_path, 0, {"meminfo": "Node 0 MemTotal: 262144 kB", "distance": "10 10"})
    add_node(tmp_path, 1, {"meminfo": "", "distance": "10 10"})
    memory = FakeMemory(tmp_path)
    memory.tell(f"00001000-{64 * BLOCK - 1:08x} : System RAM", (4 * BLOCK, BLOCK))
    memory.add(0, 0, zone="Normal")
    memory.add(1, 4)
    path = "sys/bus/dax/devices/dax0.0"
    write(tmp_path, {f"{path}/size": str(BLOCK), f"{path}/target_node": "1"})
    link(tmp_path, f"{path}/driver", "../../drivers/kmem")
    return tmp_path


@pytest.mark.parametrize("live", [True, False])
def test_list_without_a_daemon(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, live: bool
) -> None:
    words = ["list", "--json"]
    if live:
        from zoned.cli import topology
        from zoned.kernel.root import Root

        root = Root(sys=folder / "sys", proc=folder / "proc")
        monkeypatch.setattr(topology, "Root", lambda: root)
    else:
        words += ["--sysroot", str(folder)]
    nobody = Session(socket=Path("/nowhere/io.zoned"))
    result = CliRunner().invoke(base, words, obj=nobody, catch_exceptions=False)
    found = json.loads(result.stdout)
    assert [(each["source"], each["removable"]) for each in found["nodes"]] == [
        ("boot", False),
        ("dimm", True),
    ]
    assert [each["offline"] for each in found["nodes"]] == [0, 1]
    assert [each["part_of"] for each in found["nodes"]] == [[0, 1], [0, 1]]
    assert [each["zones"] for each in found["nodes"]] == [None, None]
    assert [each["movable_only"] for each in found["nodes"]] == [None, None]
    assert found["dax"] == [{"name": "dax0.0", "size": BLOCK, "node": 1, "mode": "system-ram"}]
    assert found["auto_online"] == "online"


def test_recorded_machine_is_no_matter_for_the_daemon(
    folder: Path, fake: FakeDaemon, zonectl: Callable[..., Ran]
) -> None:
    assert zonectl("base", "list", "--sysroot", str(folder)).status == 0
    assert not fake.calls


def test_list_for_one_whom_the_daemon_tells_nothing(
    fake: FakeDaemon, zonectl: Callable[..., Ran]
) -> None:
    fake.answers["Memory.BaseList"] = Denied("no")
    found = json.loads(zonectl("base", "list", "--json").out)
    assert all(each["zones"] is None for each in found["nodes"])


@pytest.mark.parametrize(
    ("words", "method", "given"),
    [
        (["add", "4"], "BaseAdd", {"base": "4"}),
        (["add", "dax0.0"], "BaseAdd", {"base": "dax0.0"}),
        (["add", "4", "--movable-only"], "BaseAdd", {"base": "4", "movable_only": True}),
        (["remove", "4"], "BaseRemove", {"base": "4"}),
        (["remove", "dax0.0", "--keep"], "BaseRemove", {"base": "dax0.0", "keep": True}),
    ],
)
def test_jobs_are_followed(
    fake: FakeDaemon,
    zonectl: Callable[..., Ran],
    words: list[str],
    method: str,
    given: dict[str, object],
) -> None:
    fake.answers[f"Memory.{method}"] = replace(DONE, what="work on base zone 4")
    found = zonectl("base", *words)
    assert found.status == 0
    assert "job 7 is done: work on base zone 4" in found.out
    assert fake.calls == [(f"Memory.{method}", given)]
    assert zonectl("base", *words, "--no-wait").out == "7\n"


def test_refusal_names_who_is_there(fake: FakeDaemon, zonectl: Callable[..., Ran]) -> None:
    fake.answers["Memory.BaseRemove"] = NodeInUse("node 4 is in use by zone db", hint="move it")
    found = zonectl("base", "remove", "4")
    assert found.status == 1
    assert found.err.startswith(
        "zonectl: [node-in-use] node 4 is in use by zone db\n  hint: move it"
    )
