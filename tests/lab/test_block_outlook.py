# SPDX-License-Identifier: Apache-2.0
"""Memory blocks that really go offline, and whether it was said beforehand."""

import json
import re
from typing import Any

import pytest

from tests.lab.block_trials import ask, blocks_command, counted, is_said
from tests.lab.following import begin, follow
from tests.lab.harness.guest import Guest
from tests.lab.harness.wait import wait_until
from tests.lab.programs import pids

READY = "/run/blocks.pinned"
_DEADLINE = 31.25
"""Seconds that zoned gives a block of 128 MiB"""


def by_lsmem(guest: Guest) -> dict[int, tuple[str, str]]:
    """Return the state and the zones of each block, as lsmem(1) prints them."""
    text = guest.check(["lsmem", "-J", "-a", "-b", "-o", "BLOCK,STATE,ZONES"])
    return {
        int(each["block"]): (each["state"], each["zones"]) for each in json.loads(text)["memory"]
    }


def listed(guest: Guest) -> dict[int, dict[str, Any]]:
    """Return what zonectl says of each block."""
    text = guest.check(["zonectl", "blocks", "list", "--why", "-o", "json"])
    return {each["id"]: each for each in json.loads(text)}


def table(tried: list[dict[str, Any]]) -> str:
    """Return all attempts for people."""
    lines = []
    for each in tried:
        done = each["offline"]
        place = f"{each['number']:4} node {each['node']} {'+'.join(each['zones']):8}"
        outcome = f"said {is_said(each):7} was {done['code'] or 'offline':14}"
        why = f"{each['to_move']} to move  {each['why']}"
        lines.append(f"{place} {outcome} {done['seconds']:6.2f} s  {why}")
    return "\n".join(lines)


def test_what_is_said_of_blocks_comes_true(zoned_guest: Guest) -> None:
    before = by_lsmem(zoned_guest)
    tried = ask(zoned_guest, "try")
    print(table(tried))
    said = counted(tried)
    for word, (went, number) in said.items():
        print(f"said {word}: {went} of {number} went")
    (went_as_said, yes), (went_all_the_same, no) = said["yes"], said["no"]
    # A file system can hold on to pages as a device does, which nobody sees beforehand.
    assert went_as_said + no - went_all_the_same >= 0.9 * (yes + no)
    assert yes >= 8
    assert no
    # Each is back where it was, to lsmem's eyes too.
    for each in tried:
        if each["back"] is not None:
            assert each["back"]["code"] == "", each
        assert (each["back"] or each["offline"])["zones"] == each["zones"], each
    assert by_lsmem(zoned_guest) == before


def test_the_list_is_that_of_lsmem(zoned_guest: Guest) -> None:
    theirs = by_lsmem(zoned_guest)
    ours = listed(zoned_guest)
    assert {number: each["state"] for number, each in ours.items()} == {
        number: state for number, (state, _) in theirs.items()
    }
    for number, (_, zones) in theirs.items():
        # It writes None where the kernel has none.
        assert ours[number]["zones"] == re.split("[ /]", zones.replace("None", "none")), number


@pytest.mark.on("trixie")
def test_chmem_comes_to_the_same_end(zoned_guest: Guest) -> None:
    able = [each for each in listed(zoned_guest).values() if each["offline"] and each["node"] != 0]
    # What was set aside at boot stays so; other pages may be free a moment later.
    unable = [
        each
        for each in listed(zoned_guest).values()
        if each["offline"] is False and "reserved" in each["why"]
    ]
    assert able
    assert unable
    for each in able[-2:]:
        span = f"{each['start']:#x}-{each['start'] + each['size'] - 1:#x}"
        zoned_guest.check(["chmem", "--disable", span])
        assert listed(zoned_guest)[each["id"]]["state"] == "offline"
        assert listed(zoned_guest)[each["id"]]["why"] == "it is offline"
        zoned_guest.check(["chmem", "--enable", "--zone", each["zones"][0], span])
        assert by_lsmem(zoned_guest)[each["id"]] == ("online", each["zones"][0])
    for each in unable[:2]:
        span = f"{each['start']:#x}-{each['start'] + each['size'] - 1:#x}"
        assert zoned_guest.run(["chmem", "--disable", span]).returncode != 0


@pytest.mark.on("trixie")
def test_a_block_with_a_pinned_page_is_passed_over(zoned_guest: Guest) -> None:
    guest = zoned_guest
    before = by_lsmem(guest)
    able = [each for each in listed(guest).values() if each["offline"] and each["node"] == 2]
    number = max(each["id"] for each in able if each["zones"] == ["Normal"])
    # The only block of movable memory is taken before all others, and gets new pages first.
    assert ask(guest, "switch", number, "offline", 120)["code"] == ""
    assert ask(guest, "switch", number, "online_movable", 60)["zones"] == ["Movable"]
    guest.check(["rm", "-f", READY])
    holder = guest.start(blocks_command(guest, "pin", 2, number))
    wait_until(lambda: guest.exists(READY) or holder.pid not in pids(guest), "a page is pinned")
    assert guest.exists(READY), holder.wait()
    assert listed(guest)[number]["offline"] is True

    words = ("db", "--size", "128MiB", "--nodes", 2, "--backing", "blocks")
    job = follow(guest, "job", begin(guest, "create", *words), "wait")
    (note,) = (note for note in job["notes"] if "another one is tried" in note)
    told = re.search(rf"memory block {number} .*not done after (\d+\.\d) s", note)
    assert told, note
    assert float(told[1]) >= _DEADLINE
    assert by_lsmem(guest)[number] == ("online", "Movable")
    (mine,) = (each["id"] for each in listed(guest).values() if each["owner"] == "zone:db")
    assert mine != number

    guest.check(["zonectl", "destroy", "db"])
    holder.kill()
    # It was the pin and nothing else.
    assert ask(guest, "switch", number, "offline", 120)["code"] == ""
    assert ask(guest, "switch", number, "online_kernel", 60)["zones"] == ["Normal"]
    assert by_lsmem(guest) == before
