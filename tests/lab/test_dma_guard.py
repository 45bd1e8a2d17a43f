# SPDX-License-Identifier: Apache-2.0
"""Memory that programs have for devices stays where it is; what others move is found out."""

from collections.abc import Iterator

import pytest

from tests.lab.following import PARTIAL
from tests.lab.harness.guest import Guest
from tests.lab.lending import SIZE, Lender, lend
from tests.lab.test_zones import ask, refused


@pytest.fixture
def lender(zoned_guest: Guest) -> Iterator[Lender]:
    """Huge pages to be lent."""
    yield from lend(zoned_guest, "hugetlb")


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


@pytest.mark.on("trixie")
def test_a_buffer_that_somebody_moved_is_told(lender: Lender) -> None:
    guest, holder = lender.guest, lender.hold(SIZE, user="member")
    before = holder.pages()
    guest.check(["zonectl", "dma", "check"])
    guest.run(["migratepages", str(holder.pid), "all", "3"])
    now = holder.pages()
    assert now != before
    done = guest.run(["zonectl", "dma", "check"])
    assert done.returncode == 1
    assert "buffer-moved" in done.stdout
    assert f"process {holder.pid} was told the former addresses" in done.stdout
    holder.end()
    lender.all_back()
    guest.check(["zonectl", "dma", "check"])
