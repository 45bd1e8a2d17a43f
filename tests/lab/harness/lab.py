# SPDX-License-Identifier: Apache-2.0
"""The guests of one test session."""

import contextlib
import enum
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from tests.lab.harness.accel import choose_acceleration
from tests.lab.harness.errors import LabError, LabLost, LabUnavailable
from tests.lab.harness.guest import Guest
from tests.lab.harness.image import Image, get_image
from tests.lab.harness.installed import installed_disk, keep_disk
from tests.lab.harness.places import locked
from tests.lab.harness.qemu import Machine, check_can_run
from tests.lab.harness.topology import TOPOLOGIES, Topology

_MORE_BOOTS = 2
_FASTEST = 1.25
"""How much faster than the host's a guest's clock may seem to be"""


class Wanted(enum.StrEnum):
    """How much the lab is wanted: the values of $ZONED_LAB."""

    IF_POSSIBLE = ""
    NEVER = "0"
    ALWAYS = "1"

    @classmethod
    def from_environment(cls) -> "Wanted":
        """Raise LabError for a value that is none of ours."""
        value = os.environ.get("ZONED_LAB", "")
        try:
            return cls(value)
        except ValueError:
            msg = f"ZONED_LAB={value}: must be 0, 1 or unset"
            raise LabError(msg) from None


def check_clock(uptime: float, seconds: float) -> None:
    """Raise LabLost where a guest thinks it is up for longer than it can be.

    The kernel measures its clock once, at the start; emulated on a busy processor it may come out
    several times too fast. Whatever is given a minute in the guest then has twenty seconds.
    """
    if uptime > _FASTEST * seconds:
        msg = f"the guest's clock is too fast: {uptime:.0f} s in {seconds:.0f} s"
        raise LabLost(msg)


class Lab:
    """Boots guests when they are asked for, and keeps one at a time.

    `shared` where other processes have labs at the same time. With `kernel` all boot that one of
    their recipe's, whatever their topology wants.
    """

    def __init__(self, folder: Path, *, shared: bool = False, kernel: str | None = None) -> None:
        self._kernel = kernel
        self._shared = shared
        self._folder = folder
        self._guests: dict[tuple[str, str], Guest] = {}
        self._unavailable: str | None = None
        self._boots = 0
        self._disks: dict[str, Path] = {}

    def installed(
        self, release: str, get: Callable[[], Guest], install: Callable[[Guest], object]
    ) -> Guest:
        """Return the guest that `get` returns or boots, with zoned on its disk.

        The first one ever has it installed, and its disk is kept, from which it is booted again;
        other processes wait for that.
        """
        with contextlib.ExitStack() as waiting:
            if not self._disk(release).exists():
                waiting.enter_context(locked(f"installed-{release}"))
            guest = get()
            if not guest.facts["installed"]:
                install(guest)
                if not self._disk(release).exists():
                    keep_disk(guest.keep_disk(), self._disk(release))
                # To install takes memory of the kernel's own all over a machine, which then has few
                # blocks that can go: what was installed is tested on one that was just booted.
                self.end(guest)
                guest = get()
            return guest

    def _disk(self, release: str) -> Path:
        """Return the disk that has zoned installed, which is there once one was kept."""
        if release not in self._disks:
            self._disks[release] = installed_disk(self._image(release))
        return self._disks[release]

    def guest(self, release: str, topology: str, *, fresh: bool = False) -> Guest:
        """Return the running guest of this kind, or boot it; see `boot`.

        Others are ended first, because of the memory that they take.
        Raises LabUnavailable, each time, once it was found out.
        """
        if self._unavailable:
            raise LabUnavailable(self._unavailable)
        if (release, topology) not in self._guests:
            self._end_all()
            self._guests[release, topology] = self.boot(release, TOPOLOGIES[topology], fresh=fresh)
        return self._guests[release, topology]

    def boot(self, release: str, topology: Topology, *, fresh: bool = False) -> Guest:
        """Boot a guest of the caller's own, who has to close it: with the disk that was kept of its
        release, unless it is to be `fresh`.

        One that dies on the way is booted again, and again: an emulated kernel now and then trips
        over its own clock while it patches itself, and that says nothing about what is to be
        tested. So is one whose clock is wrong.
        """
        image = self._image(release)
        acceleration = choose_acceleration(image)
        if self._kernel:
            topology = replace(topology, kernel=self._kernel)

        def attempt() -> Guest:
            self._boots += 1
            folder = self._folder / f"{self._boots}-{release}-{topology.name}"
            found = not fresh and self._disk(release).exists()
            disk = self._disk(release) if found else None
            if disk:
                disk.touch()  # it is in use, and not to be removed
            machine = Machine(
                image, topology, folder, acceleration=acceleration, shared=self._shared, disk=disk
            )
            guest = Guest(machine)
            with contextlib.ExitStack() as undo:
                undo.callback(guest.close)
                uptime = float(guest.read("/proc/uptime").split()[0])
                check_clock(uptime, time.monotonic() - machine.began)
                undo.pop_all()
            guest.facts["installed"] = found
            return guest

        for _ in range(_MORE_BOOTS):
            try:
                return attempt()
            except LabLost as error:
                print(f"\nbooting {release} once more: {error}")
        return attempt()

    def _image(self, release: str) -> Image:
        try:
            check_can_run()
            return get_image(release)
        except LabUnavailable as error:
            self._unavailable = str(error)
            raise

    @contextlib.contextmanager
    def kept_if_clean(self, guest: Guest) -> Iterator[None]:
        """Clean up a guest here; where that fails the next test gets another one.

        Else whatever one test broke would be the error of all that come after it.
        """
        try:
            yield
        except BaseException:
            self.end(guest)
            raise

    def end(self, guest: Guest) -> None:
        """End a guest that is of no use any more; the next test gets another one."""
        self._guests = {key: each for key, each in self._guests.items() if each is not guest}
        guest.close()

    def _end_all(self) -> None:
        while self._guests:
            self._guests.popitem()[1].close()

    def close(self) -> None:
        """End what still runs."""
        self._end_all()
