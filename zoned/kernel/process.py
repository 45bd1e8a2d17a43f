# SPDX-License-Identifier: Apache-2.0
"""Processes, and where their memory lies.

A pid alone is never an identity: it may have gone to another process since. Pid and start time
together are one. Everything is read below the injected root, never from the running system
behind its back. Sources: proc_pid_stat(5), proc_pid_status(5), proc_tid_children(5),
proc_pid_smaps(5), proc_pid_numa_maps(5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned.errors import BadList, KernelThread, MachineError, NoSuchProcess
from zoned.idset import parse_ids
from zoned.kernel.root import read_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from zoned.kernel.root import Root

# include/linux/sched.h
_PF_KTHREAD = 0x00200000
# Fields of /proc/PID/stat counted from the state, which is field 3 and follows the name.
_STATE, _PPID, _FLAGS, _START_TIME = 0, 1, 6, 19
_ENDED = frozenset({"Z", "X", "x"})


_WHO = "`ps -e` tells which run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process, identified by pid and start time."""

    pid: int
    start_time: int
    """clock ticks since boot"""
    name: str
    """the kernel's, at most 15 characters"""
    uid: int
    """the real user"""
    ppid: int


def find(root: Root, pid: int) -> Process:
    """Return the process of that pid.

    Raises NoSuchProcess if there is none, if it has ended and only waits for its parent, or if
    the number is that of a thread; KernelThread for a thread of the kernel; MachineError where
    /proc cannot be read.
    """
    folder = root.proc / str(pid)
    stat, status = _stat(folder), _status(folder)
    if stat is None or "Uid" not in status:
        raise NoSuchProcess(f"there is no process {pid}", hint=_WHO)
    name, fields = stat
    if int(fields[_FLAGS]) & _PF_KTHREAD:
        raise KernelThread(
            f"process {pid} ({name}) is a thread of the kernel",
            hint="these can be neither confined nor moved; name a program's process",
        )
    if fields[_STATE] in _ENDED:
        raise NoSuchProcess(f"process {pid} ({name}) has ended", hint=_WHO)
    if (leader := status.get("Tgid", str(pid))) != str(pid):
        raise NoSuchProcess(
            f"{pid} is a thread of process {leader}", hint="name the process instead"
        )
    return Process(
        pid=pid,
        start_time=int(fields[_START_TIME]),
        name=name,
        uid=int(status["Uid"].split()[0]),
        ppid=int(fields[_PPID]),
    )


def alive(root: Root, process: Process) -> bool:
    """Tell whether this very process still runs: same pid, same start time, not ended."""
    stat = _stat(root.proc / str(process.pid))
    if stat is None or stat[1][_STATE] in _ENDED:
        return False
    return int(stat[1][_START_TIME]) == process.start_time


def children(root: Root, pids: Collection[int]) -> tuple[int, ...]:
    """Return the processes whose parent is one of `pids`, by number."""
    lists = [_children(root.proc / str(pid)) for pid in pids]
    if None in lists:
        return _by_parent(root, pids)
    return tuple(sorted(frozenset().union(*filter(None, lists))))


def _children(folder: Path) -> frozenset[int] | None:
    """Return a process's children; None where the kernel does not list them, or it is gone.

    The list of a thread may leave one out while another one ends (proc_tid_children(5)): what is
    missing in one reading is there in the next.
    """
    texts = [read_text(each) for _ in range(2) for each in (folder / "task").glob("*/children")]
    return frozenset(int(pid) for text in texts for pid in (text or "").split()) if texts else None


def _by_parent(root: Root, pids: Collection[int]) -> tuple[int, ...]:
    """Look through all processes for their parents."""
    stats = ((pid, _stat(root.proc / str(pid))) for pid in all_pids(root))
    return tuple(pid for pid, stat in stats if stat is not None and int(stat[1][_PPID]) in pids)


def all_pids(root: Root) -> tuple[int, ...]:
    """Return the numbers of all processes, threads of the kernel too, ascending."""
    return tuple(sorted(int(each.name) for each in root.proc.iterdir() if each.name.isdigit()))


def allowed_nodes(root: Root, pid: int) -> frozenset[int] | None:
    """Return the nodes that its cpuset lets a process use; None where it is gone or not told."""
    text = _status(root.proc / str(pid)).get("Mems_allowed_list")
    try:
        return None if text is None else parse_ids(text)
    except BadList:
        return None


def anon_rss(root: Root, pid: int) -> int | None:
    """Return the bytes of anonymous memory that the process has mapped now.

    None where it is gone, is a zombie or kernel thread, or the kernel does not tell (`RssAnon`).
    """
    return _kib(_status(root.proc / str(pid)).get("RssAnon"))


def anon_pss(root: Root, pid: int) -> int | None:
    """Return its bytes of anonymous memory, pages shared after a fork divided among the sharers.

    Falls back to `anon_rss` where the kernel does not tell or forbids the look.
    """
    try:
        text = read_text(root.proc / str(pid) / "smaps_rollup") or ""
    except MachineError as error:
        if not isinstance(error.__cause__, PermissionError):
            raise
        text = ""
    found = _kib(_fields(text).get("Pss_Anon"))
    return anon_rss(root, pid) if found is None else found


def pages_by_node(root: Root, pid: int) -> dict[int, int]:
    """Return node -> bytes of anonymous pages of the process, huge ones included.

    Empty where the process is gone, has none, or the kernel has no `numa_maps`. Where a private
    mapping of a file is partly written to, the kernel does not say on which nodes the written
    pages are: they are taken to lie as the whole mapping does.

    Walks all page tables of the process: milliseconds per GiB. Raises MachineError where the
    kernel forbids the look.
    """
    found: dict[int, int] = {}
    for line in (read_text(root.proc / str(pid) / "numa_maps") or "").splitlines():
        for node, size in _anon_of_mapping(line):
            found[node] = found.get(node, 0) + size
    return {node: size for node, size in sorted(found.items()) if size}


def _anon_of_mapping(line: str) -> Iterator[tuple[int, int]]:
    """Yield (node, bytes) of one line. Counts are in pages of `kernelpagesize_kB`."""
    words = dict(word.partition("=")[::2] for word in line.split()[2:])
    anon = int(words.get("anon") or 0)
    page = int(words.get("kernelpagesize_kB") or 4) * 1024
    counts = {int(k[1:]): int(v) for k, v in words.items() if k[:1] == "N" and k[1:].isdigit()}
    left, pages = anon, sum(counts.values())
    # The node with most pages comes last and takes what the divisions leave.
    *others, most = sorted(counts, key=lambda node: (counts[node], node)) or (0,)
    for node in others:
        share = anon * counts[node] // pages
        left -= share
        yield node, share * page
    yield most, left * page


def _stat(folder: Path) -> tuple[str, list[str]] | None:
    """Return the name and the fields after it; the name may hold blanks and parentheses."""
    text = read_text(folder / "stat")
    if not text:
        return None
    head, _, tail = text.rpartition(")")
    return head.partition("(")[2], tail.split()


def _status(folder: Path) -> dict[str, str]:
    return _fields(read_text(folder / "status") or "")


def _fields(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {key: value.strip() for key, colon, value in pairs if colon}


def _kib(text: str | None) -> int | None:
    return None if text is None else int(text.split()[0]) * 1024
