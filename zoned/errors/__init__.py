# SPDX-License-Identifier: Apache-2.0
"""Every error that a user can meet, with its stable code.

ZonedError
├── BadInput            the request or the policy is wrong; nothing was changed     exit 1
│   ├── UsageError      an argument makes no sense                                  exit 2
│   ├── UnknownNode  BadSize  BadName  BadList  NameTaken  NoSuchZone
│   ├── MovableOnly         the nodes have no memory that the kernel itself can use
│   ├── NoCapacity      admission control: the node has too little left
│   ├── NoRoom          pages are to move to nodes that have too little free
│   ├── TooFewBlocks    a node cannot give so many memory blocks
│   ├── NodeTaken       a node has, or would have, more than one master
│   ├── WrongBlock      a memory block is not there, or in no state for what is asked
│   ├── FenceImpossible     others cannot be kept off a node
│   ├── HasMembers  UnitInZone  BelowUse  InPolicy  NotConfinable
│   ├── NodeInUse       a base zone is to go, and zones are on it
│   ├── NotRemovable    a base zone's memory cannot leave the machine
│   ├── NoSuchDax       there is no such device-dax region
│   ├── MessageTooLarge     a request on the socket has too many bytes
│   ├── NoSuchProcess  KernelThread  NoSuchUnit  NoSuchCgroup  NotAMember
│   ├── NoSuchJob  JobOver
│   ├── UnknownDevice       there is no such device
│   ├── DmaContradiction    the policy says two things of one device
│   ├── LimitUnknown        nobody knows how far a device can reach
│   ├── LimitTooLow  TooLittleBelow     a device's limit leaves too little memory, or none
│   ├── NoSuchReservation  AlreadyReserved  ReservationInUse  RegionReserved
│   ├── KernelOnly  LeaseGone   no buffers of such a reservation; no such buffer
│   └── PolicyError     one or more mistakes in policy files, all of them together
├── MachineError        the machine refuses or lacks something                      exit 1
│   ├── KernelRefused   a write to a kernel file failed
│   ├── Unsupported     this kernel or machine has no such thing
│   ├── NotAsWritten    the kernel shows another value than the one written
│   ├── ServiceManager  systemd refused a request
│   ├── BlockBusy       the kernel cannot move the pages of a memory block away
│   ├── BlockRefused    a memory block cannot be in the state that was asked for
│   ├── BlockTimeout    the kernel did not get a memory block where it should be in time
│   ├── BlockStuck      a memory block is on its way out and does not come back
│   ├── RungFails  NoRung   memory for a device cannot be had in one way, or in any
│   └── StateDamaged    a state file of zoned's own cannot be read
├── NoDaemon            nobody listens on the socket                                exit 3
├── Denied              the caller may not do this                                  exit 4
├── Partial             something was done and something is left                    exit 64
│   └── PendingReboot   memory for a device is to be had after a reboot
├── TryLater            the same request can succeed later                          exit 75
│   ├── ZoneBusy        a job works on the zone
│   ├── PoolExhausted  PoolBusy  TooManyLeases    no buffer of a reservation now
│   └── JobInterrupted  the daemon ended during the job
├── JobCancelled        somebody cancelled the job                                  exit 1
└── Bug                 a defect of zoned

The code is what programs may rely on: it is in the reply on the socket, in the log, and at the
front of zonectl's message, and ``zonectl explain CODE`` prints the class's docstring. Exit
statuses follow sysexits.h where a meaning there fits.
"""

from __future__ import annotations

from zoned.errors.asked import (
    AlreadyReserved,
    BadInput,
    BadList,
    BadName,
    BadSize,
    BelowUse,
    DmaContradiction,
    FenceImpossible,
    HasMembers,
    InPolicy,
    JobOver,
    KernelOnly,
    KernelThread,
    LeaseGone,
    LimitTooLow,
    LimitUnknown,
    MessageTooLarge,
    MovableOnly,
    NameTaken,
    NoCapacity,
    NodeInUse,
    NodeTaken,
    NoRoom,
    NoSuchCgroup,
    NoSuchDax,
    NoSuchJob,
    NoSuchProcess,
    NoSuchReservation,
    NoSuchUnit,
    NoSuchZone,
    NotAMember,
    NotConfinable,
    NotRemovable,
    PolicyError,
    RegionReserved,
    ReservationInUse,
    TooFewBlocks,
    TooLittleBelow,
    UnitInZone,
    UnknownDevice,
    UnknownNode,
    UsageError,
    WrongBlock,
)
from zoned.errors.course import (
    Bug,
    Denied,
    JobCancelled,
    JobInterrupted,
    NoDaemon,
    Partial,
    PendingReboot,
    PoolBusy,
    PoolExhausted,
    TooManyLeases,
    TryLater,
    ZoneBusy,
)
from zoned.errors.machine import (
    BlockBusy,
    BlockRefused,
    BlockStuck,
    BlockTimeout,
    KernelRefused,
    MachineError,
    NoRung,
    NotAsWritten,
    RungFails,
    ServiceManager,
    StateDamaged,
    Unsupported,
)
from zoned.errors.root import (
    ZonedError,
)

__all__ = (
    "AlreadyReserved",
    "BadInput",
    "BadList",
    "BadName",
    "BadSize",
    "BelowUse",
    "BlockBusy",
    "BlockRefused",
    "BlockStuck",
    "BlockTimeout",
    "Bug",
    "Denied",
    "DmaContradiction",
    "FenceImpossible",
    "HasMembers",
    "InPolicy",
    "JobCancelled",
    "JobInterrupted",
    "JobOver",
    "KernelOnly",
    "KernelRefused",
    "KernelThread",
    "LeaseGone",
    "LimitTooLow",
    "LimitUnknown",
    "MachineError",
    "MessageTooLarge",
    "MovableOnly",
    "NameTaken",
    "NoCapacity",
    "NoDaemon",
    "NoRoom",
    "NoRung",
    "NoSuchCgroup",
    "NoSuchDax",
    "NoSuchJob",
    "NoSuchProcess",
    "NoSuchReservation",
    "NoSuchUnit",
    "NoSuchZone",
    "NodeInUse",
    "NodeTaken",
    "NotAMember",
    "NotAsWritten",
    "NotConfinable",
    "NotRemovable",
    "Partial",
    "PendingReboot",
    "PolicyError",
    "PoolBusy",
    "PoolExhausted",
    "RegionReserved",
    "ReservationInUse",
    "RungFails",
    "ServiceManager",
    "StateDamaged",
    "TooFewBlocks",
    "TooLittleBelow",
    "TooManyLeases",
    "TryLater",
    "UnitInZone",
    "UnknownDevice",
    "UnknownNode",
    "Unsupported",
    "UsageError",
    "WrongBlock",
    "ZoneBusy",
    "ZonedError",
    "by_code",
    "revive",
)


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
