# SPDX-License-Identifier: Apache-2.0
"""The machine refuses or lacks something."""

from __future__ import annotations

from zoned.errors.root import ZonedError


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


class BlockBusy(MachineError):
    """The kernel cannot move the pages of a memory block away, so the block stays online.

    Pages of the kernel's own cannot move, and nobody knows whose they are. Another block may do:
    `zonectl blocks list --why` tells which can go.
    """

    code = "block-busy"


class BlockRefused(MachineError):
    """A memory block cannot be in the state that was asked for.

    It has holes, or memory of several zones or nodes, or the firmware says no; trying again does
    not help. The message gives the reason.
    """

    code = "block-refused"


class BlockTimeout(MachineError):
    """The kernel did not get a memory block where it should be in time, and was stopped.

    The block is as it was. Mostly a page in it is pinned: by a device, by io_uring, in a pipe.
    """

    code = "block-timeout"


class BlockStuck(MachineError):
    """A memory block is on its way out, and the kernel did not stop when it was told to.

    The block reads `going-offline` in /sys/devices/system/memory; other blocks may have to wait
    for it.
    """

    code = "block-stuck"


class RungFails(MachineError):
    """A rung of the ladder does not hold the memory that is wanted for a device.

    Nothing is left of the attempt, and the next rung is tried.
    """

    code = "rung-fails"


class NoRung(MachineError):
    """No rung of the ladder holds the memory that is wanted for a device. The message tells of each
    that was allowed; `zonectl dma explain DEVICE` tells of all.
    """

    code = "no-rung"


class StateDamaged(MachineError):
    """A state file of zoned's own cannot be read. It is left as it is, and zoned does not start."""

    code = "state-damaged"
