# SPDX-License-Identifier: Apache-2.0
"""The v1 driver on hierarchies made of files; tests/host has the real ones."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from tests.unit.kernel.cgroup.fakes import MIB, add_process, fake_root, refused
from zoned.errors import (
    BelowUse,
    HasMembers,
    KernelRefused,
    NoSuchCgroup,
    NoSuchProcess,
    NoSuchZone,
    NotAsWritten,
    Unsupported,
)
from zoned.kernel.cgroup.files import PAGE
from zoned.kernel.cgroup.tree import CgroupFs, children, leaves_first
from zoned.kernel.cgroup.v1 import CgroupV1
from zoned.model.zone import Events, Limits

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.kernel.root import Root

_HUGE = str(((1 << 63) - 1) // PAGE * PAGE)
_MEMORY = {
    "memory.limit_in_bytes": _HUGE,
    "memory.memsw.limit_in_bytes": _HUGE,
    "memory.soft_limit_in_bytes": _HUGE,
    "memory.usage_in_bytes": "0",
    "memory.max_usage_in_bytes": "0",
    "memory.memsw.usage_in_bytes": "0",
    "memory.failcnt": "0",
    "memory.memsw.failcnt": "0",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0",
    "memory.stat": "",
    "memory.numa_stat": "",
    "memory.use_hierarchy": "0",
}
_CPUSET = {"cpuset.cpus": "", "cpuset.mems": "", "cpuset.memory_migrate": "0"}


class FakeV1(CgroupFs):
    """Two hierarchies; refuses what v1 refuses."""

    def __init__(self, *, swap: bool = True) -> None:
        self.log: list[tuple[str, str]] = []
        self.fails: dict[str, int] = {}
        self.swap = swap

    def fill(self, folder: Path, files: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in ({"cgroup.procs": ""} | files).items():
            if self.swap or "memsw" not in name:
                (folder / name).write_text(text)

    def make(self, folder: Path) -> bool:
        made = super().make(folder)
        if made:
            both = "memory" in str(folder) and "cpuset" in str(folder)
            if both or "memory" in str(folder):
                self.fill(folder, _MEMORY)
            if both or "cpuset" in str(folder):
                self.fill(folder, _CPUSET)
        return made

    def remove(self, folder: Path) -> None:
        if children(folder):
            raise refused(folder, "rmdir", errno.EBUSY)
        for file in folder.iterdir() if folder.exists() else ():
            file.unlink()
        super().remove(folder)

    def write(self, path: Path, text: str) -> None:
        self.log.append((path.name, text))
        if path.name in self.fails:
            raise refused(path, text, self.fails[path.name])
        if path.name == "cgroup.procs":
            self._move(path, text)
            return
        if path.name.endswith("limit_in_bytes"):
            text = self._limit(path, text)
        path.write_text(text)

    def _limit(self, path: Path, text: str) -> str:
        size = _HUGE if text == "-1" else str(int(text) // PAGE * PAGE)
        if path.name == "memory.limit_in_bytes":
            if int(size) < int(path.with_name("memory.usage_in_bytes").read_text()):
                raise refused(path, text, errno.EBUSY)
            other = path.with_name("memory.memsw.limit_in_bytes")
            if other.exists() and int(size) > int(other.read_text()):
                raise refused(path, text, errno.EINVAL)
        if "memsw" in path.name:
            other = path.with_name("memory.limit_in_bytes")
            if int(size) < int(other.read_text()):
                raise refused(path, text, errno.EINVAL)
        return size

    def _move(self, path: Path, text: str) -> None:
        top = next(parent for parent in path.parents if parent.parent.name == "cgroup")
        for group in leaves_first(top):
            procs = group / "cgroup.procs"
            procs.write_text(" ".join(word for word in procs.read_text().split() if word != text))
        path.write_text(f"{path.read_text()} {text}")


@pytest.fixture
def fs() -> FakeV1:
    return FakeV1()


@pytest.fixture
def root(tmp_path: Path, fs: FakeV1) -> Root:
    return two_mounts(fake_root(tmp_path), fs)


def two_mounts(root: Root, fs: FakeV1) -> Root:
    fs.fill(root.cgroup / "cpuset", _CPUSET | {"cpuset.cpus": "0-3", "cpuset.mems": "0-1"})
    fs.fill(root.cgroup / "memory", _MEMORY)
    lines = (
        f"1 0 0:1 / {root.cgroup}/{name} rw - cgroup c rw,{name}\n" for name in ("cpuset", "memory")
    )
    (root.proc / "self/mountinfo").write_text("".join(lines))
    return root


@pytest.fixture
def driver(root: Root, fs: FakeV1) -> CgroupV1:
    return CgroupV1(root, fs=fs)


def limits_of(driver: CgroupV1, zone: str = "db") -> Limits:
    group = driver.group(zone)
    assert group is not None
    return group.limits


def test_migration_and_sets_come_before_anything_can_enter(
    driver: CgroupV1, fs: FakeV1, root: Root
) -> None:
    driver.prepare()
    fs.log.clear()
    driver.create("db", Limits(max=64 * MIB, min=32 * MIB, swap=MIB, mems=frozenset({1})))

    assert fs.log == [
        ("cpuset.memory_migrate", "1"),
        ("memory.limit_in_bytes", str(64 * MIB)),
        ("memory.memsw.limit_in_bytes", str(65 * MIB)),
        ("cpuset.cpus", "0-3"),
        ("cpuset.mems", "1"),
        ("memory.soft_limit_in_bytes", str(32 * MIB)),
    ]
    assert (root.cgroup / "memory/zone/memory.use_hierarchy").read_text() == "1"
    assert (root.cgroup / "cpuset/zone/cpuset.mems").read_text() == "0-1"


def test_what_can_be_expected_of_v1(driver: CgroupV1) -> None:
    asked = Limits(max=MIB + 1, high=7, min=9, swap=1, cpus=frozenset({0}), exclusive_cpus=True)

    assert driver.expected(asked) == Limits(
        max=MIB, swap=0, mems=frozenset({0, 1}), cpus=frozenset({0})
    )
    assert driver.expected(Limits(swap=0)).swap is None
    assert not driver.protects
    assert driver.parent_protection() == 0


def test_without_swap_accounting(tmp_path: Path) -> None:
    fs = FakeV1(swap=False)
    driver = CgroupV1(two_mounts(fake_root(tmp_path), fs), fs=fs)

    driver.create("db", Limits(max=MIB, swap=0))

    assert limits_of(driver).swap is None
    assert limits_of(driver) == driver.expected(Limits(max=MIB, swap=0))


def test_both_controllers_in_one_hierarchy(tmp_path: Path) -> None:
    root, fs = fake_root(tmp_path), FakeV1()
    mount = root.cgroup / "cpuset,memory"
    fs.fill(mount, _MEMORY | _CPUSET | {"cpuset.cpus": "0-3", "cpuset.mems": "0-1"})
    (root.proc / "self/mountinfo").write_text(f"1 0 0:1 / {mount} rw - cgroup c rw,cpuset,memory\n")
    driver = CgroupV1(root, fs=fs)

    driver.create("db", Limits(max=MIB, swap=0))

    assert limits_of(driver) == driver.expected(Limits(max=MIB, swap=0))
    driver.remove("db")
    driver.retire()
    assert not (mount / "zone").exists()


def test_a_node_that_was_added_later_reaches_the_parent(driver: CgroupV1, root: Root) -> None:
    driver.create("db", Limits(max=MIB, mems=frozenset({1})))
    (root.cgroup / "cpuset/cpuset.mems").write_text("0-2")

    driver.change("db", Limits(max=MIB, mems=frozenset({2})))

    assert (root.cgroup / "cpuset/zone/cpuset.mems").read_text() == "0-2"
    assert limits_of(driver).mems == frozenset({2})


def test_a_failed_create_leaves_nothing(driver: CgroupV1, fs: FakeV1, root: Root) -> None:
    driver.prepare()
    fs.fails["cpuset.mems"] = errno.EINVAL

    with pytest.raises(KernelRefused):
        driver.create("db", Limits(max=MIB, mems=frozenset({1})))

    assert driver.groups() == ()
    assert not (root.cgroup / "memory/zone/db").exists()


def test_a_failed_change_is_undone(driver: CgroupV1, fs: FakeV1) -> None:
    driver.create("db", Limits(max=MIB, swap=0))
    before = limits_of(driver)
    fs.fails["cpuset.mems"] = errno.EINVAL

    with pytest.raises(KernelRefused):
        driver.change("db", Limits(max=2 * MIB, swap=0, mems=frozenset({1})))

    assert limits_of(driver) == before


def test_below_use(driver: CgroupV1, root: Root, fs: FakeV1) -> None:
    driver.create("db", Limits(max=64 * MIB, swap=0))
    usage = root.cgroup / "memory/zone/db/memory.usage_in_bytes"
    usage.write_text(str(32 * MIB))
    fs.log.clear()

    with pytest.raises(BelowUse):
        driver.change("db", Limits(max=16 * MIB, swap=0))
    assert fs.log == []

    # Used more by the time of the write: the kernel says EBUSY, and kills nobody.
    fs.fails["memory.limit_in_bytes"] = errno.EBUSY
    with pytest.raises(BelowUse, match="Device or resource busy"):
        driver.change("db", Limits(max=40 * MIB, swap=0))
    assert limits_of(driver).max == 64 * MIB


def test_reclaim_lowers_the_limit_for_a_moment(driver: CgroupV1, root: Root, fs: FakeV1) -> None:
    driver.create("db", Limits(max=64 * MIB, swap=0))
    (root.cgroup / "memory/zone/db/memory.usage_in_bytes").write_text(str(32 * MIB))
    fs.log.clear()

    assert not driver.reclaim("db", 8 * MIB)
    assert limits_of(driver).max == 64 * MIB

    (root.cgroup / "memory/zone/db/memory.usage_in_bytes").write_text("0")
    assert driver.reclaim("db", 8 * MIB)
    assert fs.log[-2:] == [
        ("memory.limit_in_bytes", "0"),
        ("memory.limit_in_bytes", str(64 * MIB)),
    ]


def test_a_group_is_read_whole(driver: CgroupV1, root: Root) -> None:
    driver.create("db", Limits(max=64 * MIB, swap=0))
    memory = root.cgroup / "memory/zone/db"
    for name, text in {
        "memory.usage_in_bytes": "5000",
        "memory.memsw.usage_in_bytes": "5007",
        "memory.max_usage_in_bytes": "6000",
        "memory.failcnt": "2",
        "memory.memsw.failcnt": "3",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4",
        "memory.stat": "rss 1\ntotal_rss 4096",
        "memory.numa_stat": "total=1 N0=1\nhierarchical_total=3 N0=1 N1=2",
        "cgroup.procs": "40",
    }.items():
        (memory / name).write_text(text)

    group = driver.group("db")

    assert group is not None
    assert (group.used, group.swap_used, group.peak, group.anon) == (5000, 7, 6000, 4096)
    assert group.events == Events(max=5, oom_kill=4)
    assert group.by_node == {0: PAGE, 1: 2 * PAGE}
    assert (group.pids, group.path, group.pressure) == ((40,), "/zone/db", None)


def test_attach_and_release_in_both(driver: CgroupV1, root: Root, fs: FakeV1) -> None:
    driver.create("db", Limits(max=64 * MIB))
    add_process(root, 40)
    (root.proc / "40/cgroup").write_text("3:cpuset:/\n4:memory:/box\n0::/\n")
    fs.make(root.cgroup / "memory/box")
    former = driver.location(40)
    assert former == "cpuset:/\nmemory:/box"

    driver.attach("db", [40])
    assert driver.pids_below("/zone/db") == (40,)

    driver.release([40], former)
    assert driver.pids_below("/zone/db") == ()
    assert "40" in (root.cgroup / "memory/box/cgroup.procs").read_text()
    assert "40" in (root.cgroup / "cpuset/cgroup.procs").read_text()

    driver.attach("db", [40])
    driver.release([40], "/zone/db")
    assert "40" in (root.cgroup / "memory/cgroup.procs").read_text()


def test_an_attach_that_fails_in_the_second_hierarchy(
    driver: CgroupV1, root: Root, fs: FakeV1, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.create("db", Limits(max=64 * MIB))
    add_process(root, 40)
    (root.proc / "40/cgroup").write_text("3:cpuset:/\n4:memory:/\n")
    real = fs.write

    def write(path: Path, text: str) -> None:
        if path == root.cgroup / "memory/zone/db/cgroup.procs":
            raise refused(path, text, errno.ENOMEM)
        real(path, text)

    monkeypatch.setattr(fs, "write", write)
    with pytest.raises(KernelRefused):
        driver.attach("db", [40])

    assert driver.pids_below("/zone/db") == ()
    assert "40" in (root.cgroup / "cpuset/cgroup.procs").read_text()


def test_refusals(driver: CgroupV1, root: Root, tmp_path: Path) -> None:
    driver.prepare()
    with pytest.raises(NoSuchZone):
        driver.change("absent", Limits(max=MIB))
    driver.create("db", Limits(max=MIB))
    with pytest.raises(NoSuchProcess):
        driver.attach("db", [41])
    for path in ("/", "/absent"):
        with pytest.raises(NoSuchCgroup):
            driver.pids_below(path)
    (root.proc / "self/mountinfo").write_text("")
    with pytest.raises(Unsupported, match="cpuset and memory"):
        CgroupV1(root).prepare()


def test_a_value_that_reads_back_otherwise(
    driver: CgroupV1, fs: FakeV1, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fs.write
    monkeypatch.setattr(
        fs, "write", lambda path, text: real(path, "0" if path.name == "cpuset.mems" else text)
    )

    with pytest.raises(NotAsWritten, match="mems is 0 instead of 1"):
        driver.create("db", Limits(max=MIB, mems=frozenset({1})))


def test_raising_goes_by_memory_and_swap_first(driver: CgroupV1, fs: FakeV1) -> None:
    driver.create("db", Limits(max=MIB, swap=0))
    fs.log.clear()

    driver.change("db", Limits(max=4 * MIB, swap=0))

    assert [name for name, _ in fs.log] == ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"]
    assert limits_of(driver).max == 4 * MIB


def test_a_member_in_one_hierarchy_keeps_both(driver: CgroupV1, root: Root) -> None:
    driver.create("db", Limits(max=MIB))
    (root.cgroup / "memory/zone/db/cgroup.procs").write_text("40")

    with pytest.raises(HasMembers):
        driver.remove("db")

    assert (root.cgroup / "cpuset/zone/db").is_dir()
