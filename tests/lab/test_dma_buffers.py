# SPDX-License-Identifier: Apache-2.0
"""Buffers for programs: where they lie by the kernel's word, whose they are, and that all comes
back.
"""

import os
from collections.abc import Callable, Iterator

import pytest

from tests.lab.following import TRY_LATER
from tests.lab.harness.guest import Guest
from tests.lab.harness.wait import wait_until
from tests.lab.lending import MIB, PAGE, REACH, SIZE, Lender, lend
from tests.lab.reservations import have_region
from tests.lab.test_zones import ask, refused

ROUNDS = int(os.environ.get("ZONED_LAB_ROUNDS", "300"))
"""An emulated machine takes some tenths of a second for each."""


@pytest.fixture
def lender(zoned_guest: Guest) -> Iterator[Lender]:
    """Huge pages to be lent."""
    yield from lend(zoned_guest, "hugetlb")


def test_buffer_lies_where_it_is_said_to(lender: Lender) -> None:
    holder = lender.hold(SIZE // 2, user="member")
    pages = holder.pages()
    assert pages == holder.told()
    assert len(set(pages)) == SIZE // 2 // 4096
    assert max(pages) + 4096 <= REACH
    assert holder.blank
    (lease,) = ask(lender.guest, "dma", "leases")["leases"]
    assert (lease["pid"], lease["user"], lease["size"]) == (holder.pid, "member", SIZE // 2)
    holder.end()
    lender.all_back()


@pytest.mark.on("bookworm")
def test_only_whom_the_reservation_names(lender: Lender) -> None:
    asked = ["zonectl", "dma", "alloc", "--device", "00:00.0", "--size", "2MiB", "--", "true"]
    for user in ("owner", "member"):
        lender.guest.check(asked, user=user)
    done = lender.guest.run(asked, user="outsider")
    assert done.returncode == 4
    assert "[denied] user outsider may not have buffers of reservation" in done.stderr
    lender.all_back()


@pytest.mark.on("bookworm")
def test_command_inherits_its_buffer(lender: Lender) -> None:
    script = """
import mmap, os
memory = mmap.mmap(int(os.environ["ZONED_DMA_FD"]), int(os.environ["ZONED_DMA_SIZE"]))
memory[-4:] = b"last"
print(os.environ["ZONED_DMA_SEGMENTS"], len(memory), os.getppid())
"""
    asked = ["dma", "alloc", "--reservation", lender.name, "--size", "6MiB", "--segments", "1"]
    told = lender.guest.check(
        ["zonectl", *asked, "--align", "4MiB", "--", "python3", "-c", script], user="member"
    )
    segment, size, _ = told.split()
    address, length, offset = (int(word, 16) for word in segment.split(":"))
    assert (address % (4 * MIB), length, offset, int(size)) == (0, 6 * MIB, 0, 6 * MIB)
    lender.all_back()


@pytest.mark.on("trixie")
def test_two_clients_share_no_byte(lender: Lender) -> None:
    holders = [
        lender.hold(SIZE // 2 - PAGE, word, user)
        for word, user in (("once", "member"), ("more", "owner"))
    ]
    pages = [page for holder in holders for page in holder.pages()]
    assert len(set(pages)) == len(pages)
    for holder in holders:
        assert holder.send("USR1") == {"intact": True}
    asked = ["dma", "alloc", "--reservation", lender.name, "--size", "6MiB"]
    assert "[pool-exhausted]" in refused(lender.guest, *asked, status=TRY_LATER)
    for holder in holders:
        holder.end()
    lender.all_back()
    # What was in it is not for the next one to see.
    last = lender.hold(SIZE)
    assert last.blank
    last.end()


@pytest.mark.on("trixie")
def test_lease_ends_with_its_program(lender: Lender, record_property: Callable[..., None]) -> None:
    holder = lender.hold(SIZE, user="member")
    seconds = lender.client("death", holder.pid)["seconds"]
    record_property("seconds", seconds)
    print(f"the lease was gone {seconds:.3f} s after kill -9")
    lender.all_back()


@pytest.mark.on("bookworm")
def test_living_lease_outlives_the_daemon(lender: Lender) -> None:
    living, dead = lender.hold(SIZE // 4, "live"), lender.hold(SIZE // 4, "dead")
    pages = living.pages()
    lender.guest.check(["systemctl", "kill", "-s", "KILL", "zoned"])
    lender.guest.check(["kill", "-KILL", str(dead.pid)])
    lender.guest.check(["systemctl", "reset-failed", "zoned"])
    lender.guest.check(["systemctl", "start", "zoned"])
    wait_until(lambda: [each["pid"] for each in lender.leases()] == [living.pid], "one lease")
    assert living.send("USR1") == {"intact": True}
    assert living.pages() == pages
    other = lender.hold(SIZE // 2, "next")
    assert not set(other.pages()) & set(pages)
    assert living.send("USR1") == {"intact": True}
    for holder in (living, other):
        holder.end()
    lender.all_back()


@pytest.mark.on("trixie")
def test_who_misbehaves_harms_nobody(lender: Lender) -> None:
    assert lender.client("junk", 200)["answers"] == 200
    lazy = lender.guest.start(lender.program("lazy", lender.name, PAGE, 8), user="member")
    wait_until(lambda: len(lender.leases()) == 8, "eight leases of one who does not read")
    holder = lender.hold(SIZE // 2, user="owner")
    assert holder.send("USR1") == {"intact": True}
    holder.end()
    lazy.kill()
    lender.all_back()


@pytest.mark.on("trixie")
def test_memory_is_kept_from_others_while_it_is_mapped(lender: Lender) -> None:
    """A program that has given its buffer back, but whose child has it still."""
    holder = lender.hold(SIZE, user="member")
    guest = lender.guest
    keep = f"exec 9< /proc/{holder.pid}/fd/$1; echo kept; sleep 1000"
    files = guest.check(
        ["find", f"/proc/{holder.pid}/fd", "-lname", "/memfd:zoned*", "-printf", "%f "]
    )
    log = "/run/keep.log"
    keeper = guest.start(["sh", "-c", f"{{ {keep}; }} > {log}", "sh", files.split()[0]])
    wait_until(lambda: guest.exists(log) and guest.read(log) == "kept\n", "a second holder")
    assert holder.send("USR2") == {"closed": True}
    assert [each["ending"] for each in lender.leases()] == [True]
    asked = ["dma", "alloc", "--reservation", lender.name, "--size", "2MiB"]
    assert "[pool-exhausted]" in refused(guest, *asked, status=TRY_LATER)
    keeper.kill()
    lender.all_back()
    holder.end()


def _daemon(guest: Guest) -> tuple[int, int]:
    """Return how many files the daemon has open, and the KiB that it has in memory."""
    pid = guest.check(["systemctl", "show", "-P", "MainPID", "zoned"]).strip()
    status = guest.read(f"/proc/{pid}/status")
    files = guest.check(["ls", f"/proc/{pid}/fd"]).split()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return len(files), int(resident.split()[1])


@pytest.mark.on("trixie")
@pytest.mark.timeout(900 + ROUNDS)
def test_nothing_leaks(lender: Lender, record_property: Callable[..., None]) -> None:
    # By and by the kernel gives the daemon huge pages, each of which is 2 MiB more at once.
    lender.client(
        "rounds", lender.name, PAGE, max(50, ROUNDS // 8), user="member", timeout=900 + ROUNDS
    )
    lender.all_back()
    files, memory = _daemon(lender.guest)
    told = lender.client("rounds", lender.name, PAGE, ROUNDS, user="member", timeout=900 + ROUNDS)
    record_property("seconds", told["seconds"])
    print(f"{ROUNDS} buffers of 2 MiB in {told['seconds']:.1f} s")
    lender.all_back()
    after, grown = _daemon(lender.guest)
    assert after <= files + 1
    assert grown < memory + 4096
    holder = lender.hold(SIZE, user="member")
    assert sorted(holder.pages()) == sorted(set(holder.told()))
    holder.end()


@pytest.mark.on("trixie")
def test_no_dma_buf_where_the_kernel_would_move_the_memory(lender: Lender) -> None:
    """It cannot pin movable memory where it is, and what it moved would be lost to the device."""
    asked = ["zonectl", "dma", "alloc", "--reservation", lender.name, "--size", "4MiB", "--dmabuf"]
    done = lender.guest.run([*asked, "--", "true"], user="member")
    assert done.returncode == 1
    assert "[unsupported]" in done.stderr
    lender.all_back()


@pytest.fixture
def region(zoned_guest: Guest) -> Iterator[Lender]:
    """A device-dax region to be lent; the memory was set aside at boot with memmap=640M!1024M."""
    have_region(zoned_guest)
    yield from lend(zoned_guest, "devdax")


@pytest.mark.topology("pmem")
@pytest.mark.on("trixie")
def test_region_is_lent_to_one_user_at_a_time(region: Lender) -> None:
    holder = region.hold(SIZE // 2, user="member")
    assert holder.blank
    assert max(holder.told()) + 4096 <= REACH
    same = region.hold(SIZE // 4, "same", user="member")
    assert not set(same.told()) & set(holder.told())
    asked = ["dma", "alloc", "--reservation", region.name, "--size", "2MiB", "--", "true"]
    done = region.guest.run(["zonectl", *asked], user="owner")
    assert done.returncode == TRY_LATER
    assert "[pool-busy]" in done.stderr
    for each in (holder, same):
        assert each.send("USR1") == {"intact": True}
        each.end()
    region.all_back()
    # Nobody has it open any more, which the kernel tells.
    region.guest.check(["zonectl", *asked], user="owner")
    region.all_back()
    again = region.hold(SIZE, user="owner")
    assert again.blank
    region.client("death", again.pid)
    region.all_back()
