# SPDX-License-Identifier: Apache-2.0
"""Jobs that are steered, left alone, and cut off: what they say is what the kernel shows."""

import json
import signal
from collections.abc import Callable

import pytest

from tests.lab.following import (
    CRASH,
    PARTIAL,
    TRY_LATER,
    begin,
    ended,
    events,
    follow,
    follower,
    is_done,
    last_job,
    show,
    wait_for,
    wait_for_mib,
)
from tests.lab.harness.guest import Guest
from tests.lab.harness.wait import wait_until
from tests.lab.loads import MIB, Load, alike, check_intact, resident, start_load
from tests.lab.test_zones import ask, refused

pytestmark = pytest.mark.on("bookworm")

_SLOWLY = ("--rate", 8)
_VERY_SLOWLY = ("--rate", 3)
"""MB/s, for what does not have to come to its end: slow, because so are the guest's commands"""


@pytest.fixture
def load(settled_guest: Guest) -> Load:
    """A program with 96 MiB on node 1: some seconds of work for a slow job."""
    return start_load(settled_guest, "small", 96, node=1)


def words_for(load: Load) -> tuple[str, ...]:
    return ("migrate", "--pid", str(load.pid), "--from", "1", "--to", "2")


def has_moved(load: Load) -> Callable[[], int]:
    """Return what counts the bytes that moved since now, by numa_maps."""
    before = resident(load.guest, load.pid).get(2, 0)
    return lambda: resident(load.guest, load.pid).get(2, 0) - before


def wait_for_some(load: Load, mib: int = 8) -> None:
    """Wait until a job has moved some of the load, and not all."""
    wait_for_mib(lambda: resident(load.guest, load.pid), 2, mib)


def test_cancelled_job_leaves_what_moved_and_reports_it_exactly(load: Load) -> None:
    guest, moved = load.guest, has_moved(load)
    number = begin(guest, *words_for(load), *_VERY_SLOWLY)
    wait_for_some(load)
    guest.check(["zonectl", "job", str(number), "cancel"])
    job = wait_for(guest, number, status=1)
    assert job["state"] == "cancelled"
    assert alike(job["outcomes"]["moved"], moved())
    assert 8 * MIB <= moved() < 96 * MIB
    assert set(load.by_node()) == {1, 2}
    assert f"[job-over] job {number}" in refused(guest, "job", str(number), "cancel")

    rest = follow(guest, *words_for(load))
    assert load.by_node() == {2: 96}
    assert alike(rest["outcomes"]["moved"] + job["outcomes"]["moved"], moved())
    check_intact(load)


def test_paused_job_moves_nothing_until_it_is_resumed(load: Load) -> None:
    guest, moved = load.guest, has_moved(load)
    number = begin(guest, *words_for(load), *_SLOWLY)
    wait_for_some(load)
    guest.check(["zonectl", "job", str(number), "pause"])
    wait_until(lambda: show(guest, number)["state"] == "paused", "the job pauses")
    paused = show(guest, number)
    # The second look comes more than a second later, in which a job would move 8 MB.
    assert paused["state"] == "paused"
    assert alike(paused["outcomes"]["moved"], moved())
    assert alike(show(guest, number)["outcomes"]["moved"], moved())
    assert moved() < 96 * MIB
    guest.check(["zonectl", "job", str(number), "resume"])
    assert is_done(wait_for(guest, number))
    assert load.by_node() == {2: 96}
    check_intact(load)


def test_job_goes_on_without_its_client(load: Load) -> None:
    guest = load.guest
    client = follower(guest, *words_for(load), *_SLOWLY)
    wait_for_some(load)
    assert client.kill().returncode == -signal.SIGKILL
    number = last_job(guest)
    assert show(guest, number)["state"] == "running"
    assert is_done(wait_for(guest, number))
    assert load.by_node() == {2: 96}


def test_interrupted_client_cancels_its_job(load: Load) -> None:
    guest, moved = load.guest, has_moved(load)
    client = follower(guest, *words_for(load), *_VERY_SLOWLY)
    wait_for_some(load)
    client.signal(signal.SIGINT)
    job = ended(client.wait(), status=130)
    assert job["state"] == "cancelled"
    assert alike(job["outcomes"]["moved"], moved())
    assert 8 * MIB <= moved() < 96 * MIB


@pytest.mark.parametrize("cut_off", ["systemctl restart zoned", CRASH], ids=["restart", "kill"])
def test_job_is_continued_after_the_daemon_ended(load: Load, cut_off: str) -> None:
    guest, moved = load.guest, has_moved(load)
    client = follower(guest, *words_for(load), *_SLOWLY)
    wait_for_some(load)
    guest.shell(cut_off)
    assert load.by_node() != {2: 96}, "the job was over before the daemon was"
    done = client.wait()
    job = ended(done)
    assert is_done(job)
    assert load.by_node() == {2: 96}
    assert {each["id"] for each in events(done)} == {job["id"]} == {last_job(guest)}
    if cut_off != CRASH:
        # What a daemon that is killed did last, it did not get to write down.
        assert job["outcomes"]["moved"] <= moved()
    check_intact(load)


def test_events_tell_a_story_that_adds_up(load: Load) -> None:
    guest = load.guest
    done = guest.run(["zonectl", *words_for(load), *map(str, _SLOWLY), "-o", "json"])
    story = events(done)
    assert [story[0]["event"], story[-1]["event"]] == ["started", "finished"]
    assert {each["event"] for each in story[1:-1]} == {"progress"}
    moved = [each["outcomes"].get("moved", 0) for each in story]
    assert moved == sorted(moved)
    assert len(set(moved)) > 5
    running = [each for each in story if each["rate"] and each["eta"] is not None]
    assert running
    for each in story:
        assert each["done"] + each["left"] == each["total"], each
    # The bound holds over the whole, whatever the single moments were like.
    assert moved[-1] <= 9e6 * (story[-1]["ended"] - story[-1]["started"] + 1)


def test_piped_output_is_lines_without_control_characters(load: Load) -> None:
    done = load.guest.run(["zonectl", *words_for(load), *map(str, _SLOWLY)])
    assert done.returncode in {0, PARTIAL}, done
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    first, *middle = done.stdout.splitlines()
    assert str(load.pid) in first
    assert sum(" of 9" in line or " of 1" in line for line in middle) >= 5, done.stdout
    assert "moved" in done.stdout


def test_zone_with_a_job_is_nobody_elses(settled_guest: Guest) -> None:
    guest = settled_guest
    guest.check(["zonectl", "create", "db", "--size", "128MiB", "--nodes", "3", "--cpus", "none"])
    load = start_load(guest, "small", 96, node=1)
    number = begin(guest, "attach", "db", "--pid", load.pid, *_SLOWLY)
    for words in (
        ("resize", "db", "200MiB"),
        ("move", "db", "--nodes", "2"),
        ("destroy", "db", "--kill"),
    ):
        message = refused(guest, *words, status=TRY_LATER)
        assert "[zone-busy]" in message, message
        assert f"job {number}" in message, message
    assert show(guest, number)["state"] == "running"
    assert is_done(wait_for(guest, number))
    guest.check(["zonectl", "resize", "db", "200MiB"])


def test_group_may_look_at_jobs_and_not_steer_them(load: Load) -> None:
    guest = load.guest
    guest.shell("id looker || useradd -m looker; usermod -aG zoned looker")
    number = begin(guest, *words_for(load), *_VERY_SLOWLY)
    done = guest.run(["zonectl", "job", str(number), "-o", "json"], user="looker")
    assert json.loads(done.stdout)["state"] == "running"
    assert number in [each["id"] for each in ask(guest, "jobs")]
    for words in (["job", str(number), "cancel"], words_for(load)):
        refusal = guest.run(["zonectl", *words], user="looker")
        assert refusal.returncode == 4, refusal
    guest.check(["zonectl", "job", str(number), "cancel"])
    wait_for(guest, number, status=1)
