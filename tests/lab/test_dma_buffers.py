# SPDX-License-Identifier: Apache-2.0
"""Buffers for programs: where they lie by the kernel's word, whose they are, and that all comes
back.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pytest

from tests.lab.following import PARTIAL, TRY_LATER
from tests.lab.harness.guest import PYTHON, Guest, Process
from tests.lab.harness.wait import wait_until
from tests.lab.loads import command
from tests.lab.reservations import have_region, ledger, none_left, stand_for
from tests.lab.test_dma import BRIDGE
from tests.lab.test_zones import ask, refused

POLICY = "/etc/zoned/zones.d/50-buffers.yaml"
MIB = 1 << 20
SIZE = 32 * MIB
PAGE = 2 * MIB
REACH = 1 << 31
# Has no driver, so that its limit is what the policy says.
_WISH = """dma:
  reservations:
    teach:
      match: {path: "*/0000:00:00.0"}
      limit: 31
      size: 32MiB
      rungs: [%s]
      users: [owner]
      groups: [drivers]
"""
ROUNDS = int(os.environ.get("ZONED_LAB_ROUNDS", "300"))
"""An emulated machine takes some tenths of a second for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lender:
    """A guest with memory that buffers can be had of."""

    guest: Guest
    name: str
    """of the reservation"""

    def program(self, *words: object) -> list[str]:
        """Return the command of one of the clients."""
        told = command(self.guest, "buffers", *words)
        return [word if word != "python3" else PYTHON for word in told]

    def client(self, *words: object, user: str | None = None) -> dict[str, Any]:
        """Run a client to its end; return what it said."""
        found: dict[str, Any] = json.loads(
            self.guest.check(self.program(*words), user=user, timeout=900 + ROUNDS)
        )
        return found

    def hold(
        self, size: int, word: str = "mine", user: str | None = None, zone: str | None = None
    ) -> "Holder":
        """Start a client that has a buffer, in a zone if one is named."""
        log = f"/run/{word}.log"
        script = ["sh", "-c", 'exec "$@" > "$0" 2>&1', log]
        if zone:
            script = ["zonectl", "run", zone, "--", *script]
        self.guest.check(["install", "-m", "666", "/dev/null", log])
        process = self.guest.start(
            [*script, *self.program("hold", self.name, size, word)], user=user
        )
        wait_until(lambda: self.guest.read(log) != "", f"{word} has a buffer")
        text = self.guest.read(log)
        assert text.startswith("{"), text
        return Holder(lender=self, process=process, log=log, **json.loads(text))

    def leases(self) -> list[dict[str, Any]]:
        """Return the leases by the ledger itself."""
        found: list[dict[str, Any]] = ledger(self.guest).get("leases", [])
        return found

    def all_back(self) -> None:
        """Wait until nothing is lent any more, and all of it is in the pool again.

        The kernel frees pages of a lease that has ended before the daemon can take them.
        """
        wait_until(lambda: self.leases() == [], "the end of all leases")
        wait_until(self._is_whole, "all memory is back in the pool")

    def _is_whole(self) -> bool:
        (pool,) = ask(self.guest, "dma", "leases")["pools"]
        return bool((pool["leased"], pool["free"]) == (0, pool["size"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A client that has a buffer."""

    lender: Lender
    process: Process
    log: str
    pid: int
    lease: int
    segments: list[list[int]]
    places: list[list[int]]
    """where in its own addresses each segment is"""
    blank: bool
    """whether the buffer was wiped"""

    def pages(self) -> list[int]:
        """Return the physical addresses of its 4 KiB pages, by the kernel's word."""
        found = (self.lender.client("where", self.pid, *place)["pages"] for place in self.places)
        return list(chain.from_iterable(found))

    def told(self) -> list[int]:
        """Return what zoned said of the same."""
        return [at for start, size in self.segments for at in range(start, start + size, 4096)]

    def send(self, signal: str) -> dict[str, Any]:
        """Send a signal and return what it answers."""
        guest, before = self.lender.guest, self._lines()
        guest.check(["kill", f"-{signal}", str(self.pid)])
        wait_until(lambda: len(self._lines()) > len(before), "an answer")
        found: dict[str, Any] = json.loads(self._lines()[-1])
        return found

    def end(self) -> None:
        """Have it give its buffer back and end."""
        self.lender.guest.check(["kill", "-TERM", str(self.pid)])
        assert self.process.wait().returncode == 0

    def _lines(self) -> list[str]:
        return self.lender.guest.read(self.log).splitlines()


def lend(guest: Guest, rung: str) -> Iterator[Lender]:
    """Have memory reserved on a rung, and given back at the end."""
    guest.shell(
        """
        getent group drivers || groupadd drivers
        for user in owner member outsider; do id -u $user || useradd -m $user; done
        usermod -aG drivers member
        """
    )
    guest.write(POLICY, _WISH % rung)
    guest.check(["zonectl", "reload"])
    each = stand_for(guest, BRIDGE)[BRIDGE]
    assert each["rung"] == rung
    yield Lender(guest=guest, name=each["name"])
    # What still has a buffer would keep the reservation.
    guest.end_left_overs()
    guest.check(["rm", POLICY])
    guest.check(["zonectl", "reload"])
    none_left(guest)


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


@pytest.mark.on("trixie")
def test_memory_of_a_buffer_never_moves(lender: Lender) -> None:
    guest, holder = lender.guest, lender.hold(SIZE, user="member")
    before = holder.pages()
    done = guest.run(["zonectl", "migrate", "--pid", str(holder.pid), "--to", "3", "-o", "json"])
    # Libraries that others map too stay behind.
    assert done.returncode in {0, PARTIAL}, done
    assert "of memory that is reserved for devices stay where they are" in done.stdout
    assert holder.pages() == before
    guest.check(["zonectl", "create", "far", "--size", "64MiB", "--nodes", "3", "--cpus", "none"])
    told = refused(guest, "attach", "far", "--pid", str(holder.pid))
    assert "[reservation-in-use]" in told
    assert holder.pages() == before
    assert ask(guest, "show", "far")["members"] == 0
    guest.check(["zonectl", "destroy", "far"])
    holder.end()


@pytest.mark.on("trixie")
def test_memory_of_a_members_buffer_never_moves(lender: Lender) -> None:
    guest = lender.guest
    for name, node in (("near", "0"), ("far", "3")):
        guest.check(["zonectl", "create", name, "--size", "64MiB", "--nodes", node])
    holder = lender.hold(SIZE, zone="near")
    before = holder.pages()
    assert "[reservation-in-use]" in refused(guest, "move", "near", "--nodes", "3")
    assert "[reservation-in-use]" in refused(guest, "destroy", "near", "--drain", "far")
    shown = ask(guest, "show", "near")
    assert (shown["state"], shown["nodes"], shown["members"]) == ("active", [0], 1)
    assert holder.pages() == before
    # Outside of zones it may use its node too.
    guest.check(["zonectl", "destroy", "near", "--drain", "root"])
    assert holder.pages() == before
    holder.end()
    guest.check(["zonectl", "destroy", "far"])


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
    lender.client("rounds", lender.name, PAGE, max(50, ROUNDS // 8), user="member")
    lender.all_back()
    files, memory = _daemon(lender.guest)
    told = lender.client("rounds", lender.name, PAGE, ROUNDS, user="member")
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
