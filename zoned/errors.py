# SPDX-License-Identifier: Apache-2.0
"""Every error that a user can meet, with its stable code.

ZonedError
├── BadInput            the request or the policy is wrong; nothing was changed     exit 1
│   ├── UsageError      an argument makes no sense                                  exit 2
│   ├── UnknownNode  BadSize  BadName  BadList  NameTaken  NoSuchZone
│   ├── MovableOnly         the nodes have no memory that the kernel itself can use
│   ├── NoCapacity      admission control: the node has too little left
│   ├── NoRoom          pages are to move to nodes that have too little free
│   ├── HasMembers  UnitInZone  BelowUse  InPolicy  NotConfinable
│   ├── MessageTooLarge     a request on the socket has too many bytes
│   ├── NoSuchProcess  KernelThread  NoSuchUnit  NoSuchCgroup  NotAMember
│   ├── NoSuchJob  JobOver
│   └── PolicyError     one or more mistakes in policy files, all of them together
├── MachineError        the machine refuses or lacks something                      exit 1
│   ├── KernelRefused   a write to a kernel file failed
│   ├── Unsupported     this kernel or machine has no such thing
│   ├── NotAsWritten    the kernel shows another value than the one written
│   ├── ServiceManager  systemd refused a request
│   └── StateDamaged    a state file of zoned's own cannot be read
├── NoDaemon            nobody listens on the socket                                exit 3
├── Denied              the caller may not do this                                  exit 4
├── Partial             something was done and something is left                    exit 64
├── TryLater            the same request can succeed later                          exit 75
│   ├── ZoneBusy        a job works on the zone
│   └── JobInterrupted  the daemon ended during the job
├── JobCancelled        somebody cancelled the job                                  exit 1
└── Bug                 a defect of zoned

The code is what programs may rely on: it is in the reply on the socket, in the log, and at the
front of zonectl's message, and ``zonectl explain CODE`` prints the class's docstring. Exit
statuses follow sysexits.h where a meaning there fits.
"""

from __future__ import annotations

from typing import ClassVar


class ZonedError(Exception):
    """Something failed; the message says what, on what and why, the hint what to do."""

    code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class BadInput(ZonedError):
    """The request cannot be carried out as it was written. Nothing was changed."""

    code = "bad-input"


class UsageError(BadInput):
    """An argument makes no sense. Nothing was changed."""

    code = "usage"
    exit_status = 2


class UnknownNode(BadInput):
    """A node was named that this machine does not have, or that has no memory.

    `zonectl topology` lists the nodes.
    """

    code = "unknown-node"


class BadSize(BadInput):
    """A size is zero, not a number of bytes, or larger than what it is to be taken from."""

    code = "bad-size"


class BadName(BadInput):
    """A zone's name is 1 to 63 characters of a-z, 0-9, '.', '_' and '-', the first a letter or
    digit.
    """

    code = "bad-name"


class BadList(BadInput):
    """A list of nodes or CPUs is malformed. It is written as numactl does: 0  0-3,6  all  !1."""

    code = "bad-list"


class NameTaken(BadInput):
    """A zone of that name exists already, made by hand or by the policy."""

    code = "name-taken"


class NoSuchZone(BadInput):
    """There is no zone of that name. `zonectl list` shows which there are."""

    code = "no-such-zone"


class MovableOnly(BadInput):
    """None of the nodes has memory that the kernel can use for itself.

    A group confined to movable memory alone cannot even map memory (ENOMEM), so at least one node
    of a zone must be listed in /sys/devices/system/node/has_normal_memory.
    """

    code = "movable-only"


class NoCapacity(BadInput):
    """The nodes have less memory left than the zone asks for.

    What a node can give to zones of backing `reserve` is its total, less the system reserve,
    less what other such zones have on it. The message gives the numbers.
    """

    code = "no-capacity"


class NoRoom(BadInput):
    """The nodes that pages were to move to have too little free memory. No page was moved.

    The kernel never takes another node instead of a full one. What counts is free memory above
    the kernel's watermarks and clean file cache, less what zones were promised there and do not
    use yet.
    """

    code = "no-room"


class HasMembers(BadInput):
    """The zone has members. zoned kills nothing by itself: drain the zone first
    (`zonectl destroy NAME --drain root`), or say `--kill`.
    """

    code = "has-members"


class UnitInZone(BadInput):
    """A unit of the service manager was started inside the zone's slice.

    systemd cannot move a running unit from one slice to another, and stopping the slice would
    stop the unit. Stop the unit or start it elsewhere, then try again.
    """

    code = "unit-in-zone"


class BelowUse(BadInput):
    """The zone uses more than the new size, and the kernel could not make room.

    Reclaim was tried; the old limit stands. Anonymous memory can only be reclaimed with swap.
    """

    code = "below-use"


class InPolicy(BadInput):
    """The zone is defined by a policy file, which would bring it back. Change the file, then
    `zonectl reload`.
    """

    code = "in-policy"


class NotConfinable(BadInput):
    """Process 1 and the daemon itself are never put into a zone."""

    code = "not-confinable"


class MessageTooLarge(BadInput):
    """A request on the socket has more bytes than any that makes sense. It was not read."""

    code = "message-too-large"


class NoSuchProcess(BadInput):
    """There is no process with that pid, or it ended meanwhile."""

    code = "no-such-process"


class KernelThread(BadInput):
    """Kernel threads cannot be members of a zone: they have no memory of their own."""

    code = "kernel-thread"


class NoSuchUnit(BadInput):
    """The service manager has no such unit loaded, or it is not running."""

    code = "no-such-unit"


class NoSuchCgroup(BadInput):
    """There is no such cgroup, or it is no group that processes may be taken from."""

    code = "no-such-cgroup"


class NotAMember(BadInput):
    """What is to be detached is not a member of the zone."""

    code = "not-a-member"


class NoSuchJob(BadInput):
    """There is no job of that number: there never was, or it ended long ago.

    `zonectl jobs` lists those that run or wait, and the last fifty that are over.
    """

    code = "no-such-job"


class JobOver(BadInput):
    """The job is over, so it can no longer be paused, resumed or cancelled.

    `zonectl job ID` shows how it ended.
    """

    code = "job-over"


class PolicyError(BadInput):
    """Policy files have mistakes. All of them are listed, each with file, line and field."""

    code = "bad-policy"

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems), hint="nothing of the policy was applied")
        self.problems = problems


class MachineError(ZonedError):
    """The machine refuses or lacks something. What had been begun was undone."""

    code = "machine"


class KernelRefused(MachineError):
    """A write to a kernel file failed. The message names file, value and the kernel's reason."""

    code = "kernel-refused"


class Unsupported(MachineError):
    """This kernel or machine has no such feature. `zonectl status` tells what it has."""

    code = "unsupported"


class NotAsWritten(MachineError):
    """A value read back from the kernel differs from the one that was written."""

    code = "not-as-written"


class ServiceManager(MachineError):
    """systemd refused a request over D-Bus. The message carries its reason."""

    code = "service-manager"


class StateDamaged(MachineError):
    """A state file of zoned's own cannot be read. It is left as it is, and zoned does not start."""

    code = "state-damaged"


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


class TryLater(ZonedError):
    """The same request can succeed later."""

    code = "try-later"
    exit_status = 75


class ZoneBusy(TryLater):
    """A job works on the zone, and nobody else may change the zone until the job is over.

    `zonectl job ID wait` waits for the job, `zonectl job ID cancel` ends it.
    """

    code = "zone-busy"


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


def revive(code: str, message: str, hint: str) -> ZonedError:
    """Return the error that came over the socket as the class of its code.

    A code that this version does not know becomes a plain ZonedError.
    """
    cls = by_code().get(code, ZonedError)
    error = cls.__new__(cls, message)
    ZonedError.__init__(error, message, hint=hint)
    return error


def _subclasses(cls: type[ZonedError]) -> list[type[ZonedError]]:
    found = [cls]
    for child in cls.__subclasses__():
        found += _subclasses(child)
    return found


def by_code() -> dict[str, type[ZonedError]]:
    """Return every error class under its code."""
    return {cls.code: cls for cls in _subclasses(ZonedError)}
