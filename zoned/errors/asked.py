# SPDX-License-Identifier: Apache-2.0
"""What was asked for is wrong, or cannot be had. Nothing was changed."""

from __future__ import annotations

from zoned.errors.root import ZonedError


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
    of a zone must be listed in /sys/devices/system/node/has_normal_memory, and must not be one that
    `zonectl base add --movable-only` is emptying of such memory. `zonectl base add` is refused so
    where a zone would be left on such nodes alone.
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


class TooFewBlocks(BadInput):
    """A node cannot give so many memory blocks. Nothing was changed, or all was put back.

    Blocks with memory that the kernel uses for itself cannot go offline, node 0 keeps its low
    memory for devices, and each node keeps enough memory that the kernel can use (movable:kernel
    at most 3:1 unless the policy says `movable_ratio`). `zonectl blocks list --why` tells of each.
    """

    code = "too-few-blocks"


class WrongBlock(BadInput):
    """A memory block was named that this machine does not have, or that is in no state for it.

    Only online blocks that nobody holds can be taken offline, and only parked ones brought back.
    What zones and devices hold goes back with them. `zonectl blocks list` shows each.
    """

    code = "wrong-block"


class NodeTaken(BadInput):
    """A zone of backing `node` wants a node that others need, or another zone wants its node.

    Such a zone has its nodes for itself. Move or destroy the other zones there first, or name
    other nodes; at least one node with memory that the kernel can use stays for everybody else.
    """

    code = "node-taken"


class FenceImpossible(BadInput):
    """Others cannot be kept off the node of a zone of backing `node`.

    A group outside of the zones has, by its own setting, no other nodes than the zone's, or the
    daemon itself runs in a group with others: kept off the node it could move no pages there.
    zoned.service runs in a group of its own.
    """

    code = "fence-impossible"


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


class NodeInUse(BadInput):
    """A base zone cannot go while zones have a share of it, or blocks of it are parked or held.

    The message names them. `zonectl move NAME --nodes LIST` moves a zone elsewhere,
    `zonectl destroy NAME` ends it, `zonectl blocks unpark` gives parked blocks back, and
    `zonectl dma release NAME` those that are held for a device.
    """

    code = "node-in-use"


class NotRemovable(BadInput):
    """The memory of a base zone cannot leave: the machine started with it, or it is the last that
    the kernel can use for itself. `zonectl base list` tells where memory is from.
    """

    code = "not-removable"


class NoSuchDax(BadInput):
    """There is no device-dax region of that name. `zonectl base list` shows which there are."""

    code = "no-such-dax"


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


class UnknownDevice(BadInput):
    """There is no such device, or it has gone. `zonectl dma list` shows which there are."""

    code = "unknown-device"


class DmaContradiction(BadInput):
    """The policy says two things of one device, and neither names the device more closely.

    The message names both places. A quirk or reservation with `path` counts before one with
    `subsystem`, that before one with `id`, then `modalias`, `driver` and `class`.
    """

    code = "dma-contradiction"


class LimitUnknown(BadInput):
    """Nobody knows how far the device can reach, so no memory can be reserved for it.

    The kernel's masks say something only while a driver has the device. A quirk in the policy, or
    `limit` in the reservation, tells it beforehand.
    """

    code = "limit-unknown"


class LimitTooLow(BadInput):
    """The limit of a device lies below the lowest memory of this machine."""

    code = "limit-too-low"


class TooLittleBelow(BadInput):
    """More memory is wanted below a device's limit than lies there at all."""

    code = "too-little-below"


class NoSuchReservation(BadInput):
    """There is no memory reserved under that name, or for that device.

    `zonectl dma list` shows for which devices there is.
    """

    code = "no-such-reservation"


class AlreadyReserved(BadInput):
    """Memory for the device is wanted already: by the policy, or asked for by hand.

    `zonectl dma list` shows it. One that was asked for by hand goes with `zonectl dma release`.
    """

    code = "already-reserved"


class ReservationInUse(BadInput):
    """Memory that is reserved for a device can neither be given back nor moved while programs have
    buffers of it.

    End the programs first; the message names them.
    """

    code = "reservation-in-use"


class RegionReserved(BadInput):
    """A device-dax region cannot become a base zone while memory of it is reserved for devices.

    The message names the reservations.
    """

    code = "region-reserved"


class KernelOnly(BadInput):
    """The memory is reserved in a way that serves drivers of the kernel, and cannot be lent.

    Programs get buffers from reservations on the rungs `devdax` and `hugetlb` only; `rungs` in the
    policy's reservation says which may be tried.
    """

    code = "kernel-only"


class LeaseGone(BadInput):
    """There is no buffer of that number: it was given back, or its program has ended.

    `zonectl dma leases` lists those that there are.
    """

    code = "lease-gone"


class PolicyError(BadInput):
    """Policy files have mistakes. All of them are listed, each with file, line and field."""

    code = "bad-policy"

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems), hint="nothing of the policy was applied")
        self.problems = problems
