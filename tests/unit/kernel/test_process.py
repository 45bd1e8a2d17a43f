# SPDX-License-Identifier: Apache-2.0
"""Processes: a /proc made of files, and real processes against what psutil says of them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.unit.fake_sys import write
from zoned.errors import KernelThread, MachineError, NoSuchProcess
from zoned.kernel import process
from zoned.kernel import root as root_module
from zoned.kernel.process import (
    Process,
    alive,
    anon_pss,
    anon_rss,
    children,
    find,
    pages_by_node,
)
from zoned.kernel.root import Root, sysroot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20


def stat(name: str = "sleep", state: str = "S", flags: int = 0x400000, start: int = 77) -> str:
    between = "9 9 0 -1"
    after = "1 0 2 0 3 4 5 6 20 0 1 0"
    return f"12 ({name}) {state} 4 {between} {flags} {after} {start} 4096 100"


def status(**fields: str) -> str:
    pairs = {"Name": "sleep", "Tgid": "12", "Pid": "12", "Uid": "1000\t0\t0\t0"} | fields
    return "\n".join(f"{key}:\t{value}" for key, value in pairs.items())


def fake(folder: Path, **files: str) -> Root:
    write(folder, {f"proc/12/{name}": text for name, text in files.items()})
    return sysroot(folder)


def test_find_reads_the_fields(tmp_path: Path) -> None:
    root = fake(tmp_path, stat=stat(), status=status())
    assert find(root, 12) == Process(pid=12, start_time=77, name="sleep", uid=1000, ppid=4)


@pytest.mark.parametrize("name", ["a b", "x) S 1 (y", ")", "(sd-pam)", ""])
def test_any_name_can_be_read(tmp_path: Path, name: str) -> None:
    root = fake(tmp_path, stat=stat(name), status=status())
    found = find(root, 12)
    assert (found.name, found.start_time, found.ppid) == (name, 77, 4)


def test_nobody(tmp_path: Path) -> None:
    with pytest.raises(NoSuchProcess):
        find(sysroot(tmp_path), 12)


def test_a_process_that_ends_between_two_reads(tmp_path: Path) -> None:
    with pytest.raises(NoSuchProcess):
        find(fake(tmp_path, stat=stat()), 12)


def test_a_kernel_thread(tmp_path: Path) -> None:
    root = fake(tmp_path, stat=stat("kswapd0", flags=0x20A040), status=status())
    with pytest.raises(KernelThread, match="kswapd0"):
        find(root, 12)


@pytest.mark.parametrize("state", ["Z", "X"])
def test_who_has_ended_is_no_process(tmp_path: Path, state: str) -> None:
    root = fake(tmp_path, stat=stat(state=state), status=status())
    with pytest.raises(NoSuchProcess, match="ended"):
        find(root, 12)
    assert not alive(root, Process(pid=12, start_time=77, name="sleep", uid=0, ppid=1))


def test_a_thread_is_no_process(tmp_path: Path) -> None:
    root = fake(tmp_path, stat=stat(), status=status(Tgid="10"))
    with pytest.raises(NoSuchProcess, match="thread of process 10"):
        find(root, 12)


def test_alive_knows_a_pid_that_was_given_away(tmp_path: Path) -> None:
    root = fake(tmp_path, stat=stat(start=78), status=status())
    found = find(root, 12)
    assert alive(root, found)
    assert not alive(root, Process(pid=12, start_time=77, name="sleep", uid=1000, ppid=4))
    assert not alive(root, Process(pid=13, start_time=78, name="sleep", uid=1000, ppid=4))


def test_children_are_those_of_all_threads(tmp_path: Path) -> None:
    root = fake(tmp_path, **{"task/12/children": "31 9 \n", "task/13/children": "40 "})
    assert children(root, [12]) == (9, 31, 40)


def test_children_that_one_reading_leaves_out_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = iter(["31 9", "9 40"])
    monkeypatch.setattr(process, "read_text", lambda _: next(readings))
    assert children(fake(tmp_path, **{"task/12/children": ""}), [12]) == (9, 31, 40)


def test_without_lists_children_are_known_by_their_parent(tmp_path: Path) -> None:
    write(tmp_path, {"proc/5/stat": "5 (x) S 1", "proc/6/task/6/children": "7"})
    root = fake(tmp_path, stat=stat())
    assert children(root, [4]) == (12,)
    assert children(root, [4, 6]) == (12,)
    assert children(root, [6]) == (7,)
    assert children(root, [1]) == (5,)


def test_children_of_our_own() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert child.pid in children(Root(), [os.getpid()])
        assert child.pid in process._by_parent(Root(), [os.getpid()])
        child.kill()


def test_anonymous_memory(tmp_path: Path) -> None:
    root = fake(tmp_path, status=status(VmRSS="2048 kB", RssAnon="512 kB"))
    assert anon_rss(root, 12) == anon_pss(root, 12) == 512 * 1024
    root = fake(tmp_path, smaps_rollup="0-7f ---p 00:00 0 [rollup]\nPss: 300 kB\nPss_Anon: 128 kB")
    assert anon_pss(root, 12) == 128 * 1024


def test_unknown_memory_is_none(tmp_path: Path) -> None:
    root = fake(tmp_path, status=status())
    assert anon_rss(root, 12) is anon_pss(root, 12) is anon_rss(root, 99) is None


@pytest.mark.parametrize(
    ("reason", "expected"), [(PermissionError(13, "Permission denied"), 512 << 10), (None, None)]
)
def test_a_forbidden_look_falls_back(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reason: OSError | None,
    expected: int | None,
) -> None:
    root = fake(tmp_path, status=status(RssAnon="512 kB"))
    real = root_module.read_text

    def refuse(path: Path) -> str | None:
        if path.name == "smaps_rollup":
            raise MachineError("cannot read") from reason
        return real(path)

    monkeypatch.setattr(process, "read_text", refuse)
    if expected is None:
        with pytest.raises(MachineError):
            anon_pss(root, 12)
    else:
        assert anon_pss(root, 12) == expected


NUMA_MAPS = """\
5558000 default file=/usr/bin/cat mapped=5 N0=5 kernelpagesize_kB=4
5559000 default file=/usr/bin/cat anon=3 dirty=3 mapped=9 N0=6 N2=3 kernelpagesize_kB=4
7f00000 bind:0-1 anon=10 dirty=10 active=0 N0=4 N1=6 kernelpagesize_kB=4
7f10000 prefer (many):2 anon=512 dirty=512 N2=512 kernelpagesize_kB=4
7f20000 default file=/anon_hugepage\\040(deleted) huge anon=2 dirty=2 N1=2 kernelpagesize_kB=2048
7f30000 default file=/dev/shm/N1=7 dirty=7 N1=7 kernelpagesize_kB=4
7f40000 default stack anon=4 dirty=4 N0=4 kernelpagesize_kB=64
7f50000 default
7ffc000 default"""


def test_pages_by_node(tmp_path: Path) -> None:
    root = fake(tmp_path, numa_maps=NUMA_MAPS)
    assert pages_by_node(root, 12) == {
        0: (2 + 4) * 4096 + 4 * 65536,
        1: 6 * 4096 + 2 * 2 * MIB,
        2: (1 + 512) * 4096,
    }
    assert pages_by_node(root, 13) == {}


def test_no_page_is_lost_in_division(tmp_path: Path) -> None:
    line = "7f00 default file=/x anon=5 dirty=5 N0=1 N1=1 N2=1 N3=4 kernelpagesize_kB=4"
    assert sum(pages_by_node(fake(tmp_path, numa_maps=line), 12).values()) == 5 * 4096


# Real processes from here on.

_HOLDER = f"""
import mmap, sys
memory = mmap.mmap(-1, {32 * MIB}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for offset in range(0, len(memory), 4096):
    memory[offset] = 1
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder() -> Iterator[psutil.Process]:
    """A process that holds 32 MiB and does nothing until its input is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        yield psutil.Process(child.pid)
        assert child.stdin is not None
        child.stdin.close()


def test_a_real_process_is_as_psutil_sees_it(holder: psutil.Process) -> None:
    found = find(Root(), holder.pid)
    assert found.ppid == os.getpid() == holder.ppid()
    assert found.uid == holder.uids().real
    assert found.name == holder.name()[:15]
    started = psutil.boot_time() + found.start_time / os.sysconf("SC_CLK_TCK")
    assert started == pytest.approx(holder.create_time(), abs=1)
    assert alive(Root(), found)


def test_pages_of_a_real_process_add_up(holder: psutil.Process) -> None:
    root = Root()
    if not (root.proc / "self/numa_maps").exists():
        pytest.skip("this kernel has no /proc/PID/numa_maps")
    counted = sum(mapping.anonymous for mapping in holder.memory_maps())
    assert counted >= 32 * MIB
    # On its way to sleep it may still touch a page or two.
    assert sum(pages_by_node(root, holder.pid).values()) == pytest.approx(counted, abs=MIB)
    resident, proportional = anon_rss(root, holder.pid), anon_pss(root, holder.pid)
    assert resident is not None
    # The kernel counts resident pages per CPU and adds them up lazily.
    assert resident == pytest.approx(counted, abs=MIB)
    assert proportional is not None
    assert 32 * MIB <= proportional <= counted + MIB


def test_a_real_zombie(tmp_path: Path) -> None:
    read, write_end = os.pipe()
    child = os.posix_spawn(
        "/bin/sh",
        ["sh", "-c", "read line"],
        {},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, read, 0),
            (os.POSIX_SPAWN_CLOSE, write_end),
        ],
    )
    os.close(read)
    found = find(Root(), child)
    os.close(write_end)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    with pytest.raises(NoSuchProcess, match="ended"):
        find(Root(), child)
    assert not alive(Root(), found)
    assert pages_by_node(Root(), child) == {}
    os.waitpid(child, 0)
    with pytest.raises(NoSuchProcess, match="no process"):
        find(Root(), child)
    assert not alive(Root(), found)


def test_a_real_thread() -> None:
    started, done = threading.Event(), threading.Event()
    ids: list[int] = []

    def body() -> None:
        ids.append(threading.get_native_id())
        started.set()
        done.wait()

    thread = threading.Thread(target=body)
    thread.start()
    started.wait()
    try:
        with pytest.raises(NoSuchProcess, match=f"thread of process {os.getpid()}"):
            find(Root(), ids[0])
    finally:
        done.set()
        thread.join()


def test_a_real_kernel_thread() -> None:
    threads = [
        one.pid for one in psutil.process_iter() if one.pid != os.getpid() and not one.ppid()
    ]
    kernel = [pid for pid in threads if pid != 1]
    if not kernel:
        pytest.skip("no kernel threads to be seen here (a container)")
    with pytest.raises(KernelThread):
        find(Root(), kernel[0])
