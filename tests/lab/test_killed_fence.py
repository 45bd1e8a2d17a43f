# SPDX-License-Identifier: Apache-2.0
"""A daemon that is killed while a fence goes up or comes down: no half of one is left."""

from typing import Any

import pytest

from tests.lab.following import CRASH, PARTIAL, begin, ended, show
from tests.lab.harness.guest import Guest
from tests.lab.harness.wait import wait_until
from tests.lab.killing import STORE, Kill
from tests.lab.programs import Hog, anonymous_by_node, start_hog
from tests.lab.reservations import ledger
from tests.lab.test_fence import (
    NODE,
    confined,
    create,
    destroy,
    groups,
    outsiders,
    properties,
    wait_until_fenced,
)
from tests.lab.test_zones import ask

pytestmark = pytest.mark.on("trixie")

_WORDS = ("create", "db", "--size", "512MiB", "--nodes", NODE, "--backing", "node")
_ZONE = "/sys/fs/cgroup/zone.slice/zone-db.slice"


def nodes_of_others(guest: Guest) -> dict[str, Any]:
    """Return what everybody else may use: units' own nodes, and what is in force."""
    seen = {name: effective for name, (_, effective) in outsiders(guest).items()}
    return {"properties": properties(guest, sorted(each for each in seen if "." in each)), **seen}


def zones(guest: Guest) -> set[str]:
    """Return the zones that there are, as zonectl lists them."""
    return {each["name"] for each in ask(guest, "list")}


def who_can_be_confined(guest: Guest) -> set[str]:
    """Return the groups outside that have the controller."""
    return {name for name, (_, effective) in outsiders(guest).items() if effective}


def check_gone(guest: Guest, before: dict[str, Any]) -> None:
    """Check that there is neither the zone nor anything of its fence."""
    assert "db" not in zones(guest)
    assert not guest.exists(_ZONE)
    assert not ledger(guest).get("fence")
    assert confined(guest) == {}
    assert nodes_of_others(guest) == before


def check_stands(guest: Guest) -> None:
    """Check that the zone is there, and everybody else kept off its node."""
    wait_until_fenced(guest)
    assert ask(guest, "show", "db")["state"] == "active"
    assert confined(guest).keys() == who_can_be_confined(guest)
    assert guest.read(f"{_ZONE}/cpuset.mems.effective").strip() == str(NODE)
    # Neither zones nor the daemon are kept off.
    assert groups(guest)["zone.slice"][1] == groups(guest)["zoned.service"][1]


def wait_until_still(guest: Guest, job: int) -> None:
    """Wait until a job is paused, or over."""
    wait_until(lambda: show(guest, job)["state"] != "running", "the job stops")


def begin_and_pause(guest: Guest) -> tuple[int, Hog]:
    """Start making the zone where somebody has memory, and stop on the way.

    On a quick machine that takes more than one try.
    """
    while True:
        hog = start_hog(guest, 300, ["taskset", "-c", str(NODE)])
        job = begin(guest, *_WORDS)
        guest.run(["zonectl", "job", str(job), "pause"])
        wait_until_still(guest, job)
        if show(guest, job)["state"] == "paused":
            return job, hog
        destroy(guest)
        hog.process.kill()


@pytest.mark.parametrize("goes_on", [True, False], ids=["goes on", "is cancelled"])
def test_killed_before_the_fence_goes_up(zoned_guest: Guest, *, goes_on: bool) -> None:
    """Somewhere between the job's start and the zone's: its node is to be cleared meanwhile."""
    guest = zoned_guest
    before = nodes_of_others(guest)
    job, hog = begin_and_pause(guest)
    guest.shell(CRASH)
    check_gone(guest, before)
    if goes_on:
        guest.check(["zonectl", "job", str(job), "resume"])
        wait_for_job(guest, job)
        check_stands(guest)
        assert NODE not in anonymous_by_node(guest, hog.pid)
        destroy(guest)
    else:
        guest.check(["zonectl", "job", str(job), "cancel"])
        wait_until(lambda: show(guest, job)["state"] == "cancelled", "the job ends")
    check_gone(guest, before)


def test_killed_while_the_fence_goes_up(zoned_guest: Guest) -> None:
    guest = zoned_guest
    before = nodes_of_others(guest)
    job = Kill(guest, "fence", "least 2").during(*_WORDS)
    # What was begun is finished before the daemon says that it is there.
    assert confined(guest).keys() == who_can_be_confined(guest)
    wait_for_job(guest, job)
    check_stands(guest)
    destroy(guest)
    check_gone(guest, before)


@pytest.mark.parametrize("left", ["all of it", "most of it"])
def test_killed_while_the_fence_comes_down(zoned_guest: Guest, left: str) -> None:
    guest = zoned_guest
    before = nodes_of_others(guest)
    create(guest)
    wait_until_fenced(guest)
    if left == "all of it":
        kill = Kill(guest, "zones", f"most {len(zones(guest)) - 1}", file=STORE)
    else:
        kill = Kill(guest, "fence", f"most {len(ledger(guest)['fence']) - 1}")
    job = kill.during("destroy", "db")
    check_gone(guest, before)
    assert wait_for_job(guest, job)["state"] == "done"
    check_gone(guest, before)


def wait_for_job(guest: Guest, number: int) -> dict[str, Any]:
    """Wait for the end of a job; a page or two of somebody's may have stayed."""
    done = guest.run(["zonectl", "job", str(number), "wait", "-o", "json"], timeout=300)
    return ended(done, PARTIAL if done.returncode == PARTIAL else 0)
