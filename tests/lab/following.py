# SPDX-License-Identifier: Apache-2.0
"""Jobs of zonectl, as tests start, watch and judge them."""

import json
from collections.abc import Callable
from typing import Any

from tests.lab.harness.guest import Completed, Guest, Process
from tests.lab.harness.wait import wait_until

Job = dict[str, Any]
PARTIAL = 64
TRY_LATER = 75
CRASH = "systemctl kill -s KILL zoned && systemctl reset-failed zoned; systemctl start zoned"
"""Ends the daemon in the midst of things, and starts it again."""
_STRAY_BYTES = 256 << 10
_LONG = 300
"""Seconds after which a job that is followed counts as stuck."""

_SETTLE = r"""
echo madvise > /sys/kernel/mm/transparent_hugepage/enabled
echo 0 > /proc/sys/kernel/numa_balancing
for pid in $(ps --ppid 2 -p 2 --deselect -o pid=); do
    migratepages "$pid" 1,2,3 0 2> /dev/null || true
done
sync
echo 3 > /proc/sys/vm/drop_caches
python=$(readlink -f /usr/bin/python3)
cd /usr/lib
cat "$python" "${python##*/}"/*.py "${python##*/}"/*/*.so */*.so* > /dev/null
"""


def settle(guest: Guest) -> None:
    """Bring what programs have in common to node 0: libraries, and what the cache has of files.

    Else a load on node 1 could have pages there that others map, too, and that do not move. The
    kernel itself is kept from moving pages to the CPUs that use them, and from making huge ones
    where no load asks for them.
    """
    guest.check(["numactl", "--membind=0", "--cpunodebind=0", "sh", "-euc", _SETTLE])


def events(done: Completed) -> list[Job]:
    """Return what a followed job told with `-o json`, one object a line."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def ended(done: Completed, status: int = 0) -> Job:
    """Return a job as it was at its end; zonectl must have ended with `status`."""
    assert "Traceback" not in done.stderr, done
    job = events(done)[-1]
    assert job["event"] == "finished", done
    stray = not status and job["state"] == "partial" and is_done(job)
    assert done.returncode == (PARTIAL if stray else status), done
    return job


def is_done(job: Job) -> bool:
    """Tell whether a job has moved all of a load.

    A page or two of a library, which others came to map as well, may have stayed.
    """
    stray = job["state"] == "partial" and job["left_behind"] <= _STRAY_BYTES
    return bool(stray or job["state"] == "done")


def follow(guest: Guest, *words: object, status: int = 0) -> Job:
    """Run a command that is a job, to its end."""
    done = guest.run(["zonectl", *map(str, words), "-o", "json"], timeout=_LONG)
    return ended(done, status)


def begin(guest: Guest, *words: object) -> int:
    """Start a job, do not follow it, and return its id."""
    return int(guest.check(["zonectl", *map(str, words), "--no-wait"]))


def follower(guest: Guest, *words: object) -> Process:
    """Start a client that follows its job."""
    return guest.start(["zonectl", *map(str, words), "-o", "json"])


def show(guest: Guest, job: int) -> Job:
    """Return a job as it is now."""
    found: Job = json.loads(guest.check(["zonectl", "job", str(job), "-o", "json"]))
    return found


def wait_for(guest: Guest, job: int, status: int = 0) -> Job:
    """Wait for the end of a job."""
    return follow(guest, "job", job, "wait", status=status)


def last_job(guest: Guest) -> int:
    """Return the id of the youngest job."""
    jobs = json.loads(guest.check(["zonectl", "jobs", "-o", "json"]))
    return int(jobs[-1]["id"])


def wait_for_mib(count: Callable[[], dict[int, int]], node: int, mib: int) -> None:
    """Wait until `count` (bytes by node) tells of so much on a node."""
    wait_until(lambda: count().get(node, 0) >> 20 >= mib, f"{mib} MiB on node {node}")
