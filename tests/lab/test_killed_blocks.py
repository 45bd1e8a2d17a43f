# SPDX-License-Identifier: Apache-2.0
"""A daemon that is killed while memory blocks change hands: each is somebody's in the end."""

import pytest

from tests.lab.following import follow, is_done, wait_for
from tests.lab.harness.guest import Guest
from tests.lab.harness.wait import wait_until
from tests.lab.killing import Kill
from tests.lab.loads import check_intact, start_load
from tests.lab.reservations import ledger
from tests.lab.test_blocks import create, held, states
from tests.lab.test_zones import ask

pytestmark = [pytest.mark.on("trixie"), pytest.mark.roomy(4)]


def check_each_is_owned(guest: Guest) -> None:
    """Check that no block is offline that is nobody's."""
    owned = {number for number, *_ in ledger(guest).get("blocks", ())}
    assert {number for number, (state, _) in states(guest).items() if state == "offline"} <= owned


@pytest.mark.parametrize(
    "steps",
    [("least 3",), ("least 4", "most 3")],
    ids=["taking blocks", "giving blocks back"],
)
def test_killed_while_a_zone_of_blocks_moves(settled_guest: Guest, steps: tuple[str, ...]) -> None:
    guest = settled_guest
    before = states(guest)
    create(guest, "db", "256MiB", node=2)
    here = set(held(guest, "zone:db"))
    load = start_load(guest, "small", 64, node=2, before=("zonectl", "run", "db", "--"))
    job = Kill(guest, "blocks", *steps).during("move", "db", "--nodes", 3)
    check_each_is_owned(guest)

    assert is_done(wait_for(guest, job))
    assert load.by_node() == {3: 64}
    there = held(guest, "zone:db")
    assert len(there) == 2
    assert not set(there) & here
    zone = ask(guest, "show", "db")
    assert (zone["state"], zone["nodes"], zone["blocks"]) == ("active", [3], there)
    # What was on its way back when the job was taken up is given back after it.
    wait_until(lambda: taken_from(before, states(guest)) == set(there), "no others are missing")
    check_intact(load)
    guest.check(["zonectl", "destroy", "db"])
    assert states(guest) == before


def taken_from(before: dict[int, tuple[str, str]], now: dict[int, tuple[str, str]]) -> set[int]:
    """Return the blocks that are not as they were."""
    return {number for number, state in now.items() if state != before[number]}


def test_killed_while_blocks_are_parked(settled_guest: Guest) -> None:
    guest = settled_guest
    before = states(guest)
    kill = Kill(guest, "blocks", "least 2")
    job = kill.during("blocks", "park", "--node", 3, "--size", "256MiB")
    check_each_is_owned(guest)
    wait_for(guest, job)
    check_parked(guest, held(guest, "parked"))
    assert len(held(guest, "parked")) == 2
    follow(guest, "blocks", "unpark", "--node", 3)
    assert states(guest) == before


def test_killed_while_named_blocks_go_and_come_back(settled_guest: Guest) -> None:
    guest = settled_guest
    before = states(guest)
    named = [
        each["id"]
        for each in ask(guest, "blocks", "list", "--why")
        if each["node"] == 3 and each["offline"]
    ][:2]
    words = ",".join(map(str, named))
    job = Kill(guest, "blocks", "least 1").during("blocks", "offline", words)
    check_each_is_owned(guest)
    wait_for(guest, job)
    check_parked(guest, named)

    job = Kill(guest, "blocks", "most 1").during("blocks", "online", words)
    check_each_is_owned(guest)
    wait_for(guest, job)
    assert states(guest) == before
    assert not ledger(guest)["blocks"]


def check_parked(guest: Guest, numbers: list[int]) -> None:
    """Check that these blocks, and no others, are parked and offline."""
    assert held(guest, "parked") == numbers
    offline = [number for number, (state, _) in states(guest).items() if state == "offline"]
    assert sorted(offline) == numbers
