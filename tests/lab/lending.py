# SPDX-License-Identifier: Apache-2.0
"""Buffers in the guest: a reservation that they are had of, and programs that have them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from tests.lab.harness.guest import PYTHON, Guest, Process
from tests.lab.harness.wait import wait_until
from tests.lab.loads import command
from tests.lab.reservations import ledger, none_left, stand_for
from tests.lab.test_dma import BRIDGE
from tests.lab.test_zones import ask

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

    def client(
        self, *words: object, user: str | None = None, timeout: float = 900
    ) -> dict[str, Any]:
        """Run a client to its end; return what it said."""
        told = self.guest.check(self.program(*words), user=user, timeout=timeout)
        found: dict[str, Any] = json.loads(told)
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
