# SPDX-License-Identifier: Apache-2.0
"""How the asking itself goes wrong: nobody there, not allowed, not now, not all."""

from __future__ import annotations

from zoned.errors.root import ZonedError


class NoDaemon(ZonedError):
    """Nobody listens on the socket: the daemon is not running, or the socket is elsewhere."""

    code = "no-daemon"
    exit_status = 3


class Denied(ZonedError):
    """The caller may not do this: reading is open to the group `zoned`, changing to root, running
    in a zone to the users that the zone names.
    """

    code = "denied"
    exit_status = 4


class Partial(ZonedError):
    """Something was done and something is left; the message says what."""

    code = "partial"
    exit_status = 64


class PendingReboot(Partial):
    """Memory that a device can reach cannot be had now, but after a reboot with other words on the
    kernel's command line. The message gives them. What was asked for stays on record.
    """

    code = "pending-reboot"


class TryLater(ZonedError):
    """The same request can succeed later."""

    code = "try-later"
    exit_status = 75


class ZoneBusy(TryLater):
    """A job works on the zone, and nobody else may change the zone until the job is over.

    `zonectl job ID wait` waits for the job, `zonectl job ID cancel` ends it.
    """

    code = "zone-busy"


class PoolExhausted(TryLater):
    """So much of a reservation is not free now, or not in so few pieces.

    The message tells what is free; `zonectl dma leases` who has the rest.
    """

    code = "pool-exhausted"


class PoolBusy(TryLater):
    """Nobody can have memory of a reservation now.

    It is being set up or taken down, or its rung is `devdax` and another user has buffers in the
    region, or still has one open that was given back: whoever has one reaches all of the region.
    """

    code = "pool-busy"


class TooManyLeases(TryLater):
    """A program or a user has as many buffers as one may have, or all together have."""

    code = "too-many-leases"


class JobInterrupted(TryLater):
    """The daemon ended while the job ran, and the job could not be taken up again.

    What was moved by then stays where it is. `zonectl job ID` shows how far the job came; the
    same command begins anew with what is left.
    """

    code = "interrupted"


class JobCancelled(ZonedError):
    """Somebody cancelled the job: `zonectl job ID cancel`, or Ctrl-C where it was started.

    What was moved by then stays where it is, and the job's figures are exact.
    """

    code = "cancelled"


class Bug(ZonedError):
    """A defect of zoned. Please report it with the daemon's log."""

    code = "bug"
