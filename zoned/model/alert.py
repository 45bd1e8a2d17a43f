# SPDX-License-Identifier: Apache-2.0
"""Alerts: what is not as it should be, each with a stable code that `zonectl explain` knows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AlertCode(StrEnum):
    """The kinds of alert."""

    WEAK_PROTECTION = "weak-protection"
    NOT_APPLIED = "not-applied"
    LIMITS_DIFFER = "limits-differ"
    OFF_NODE = "off-node"
    UNCONFINED = "unconfined"
    HALF_MOVED = "half-moved"
    OVERCOMMITTED = "overcommitted"
    LEFTOVER = "leftover"
    UNKNOWN_GROUP = "unknown-group"
    BAD_POLICY = "bad-policy-files"
    SELF_CONFINED = "self-confined"
    FENCE_BROKEN = "fence-broken"
    FENCE_LOOSE = "fence-loose"
    BLOCKS_MISSING = "blocks-missing"
    BLOCKS_OWED = "blocks-owed"
    ONLINE_RACE = "online-race"
    NO_KERNEL_MEMORY = "no-kernel-memory"
    RESERVATION_MISSING = "reservation-missing"
    RESERVATION_BROKEN = "reservation-broken"
    BUFFER_MOVED = "buffer-moved"

    def explain(self) -> str:
        """Return what the alert means and what to do."""
        return _EXPLANATIONS[self]


_EXPLANATIONS = {
    AlertCode.WEAK_PROTECTION: (
        "The zone has backing `reserve`, but this machine's cgroups (version 1) have no hard "
        "protection. Admission control holds; under memory pressure the kernel may still reclaim "
        "what the zone uses. Boot with cgroup version 2 to get the full promise."
    ),
    AlertCode.NOT_APPLIED: (
        "The zone is wanted but could not be made or changed on this machine. The message says "
        "why. It is tried again whenever the machine or the policy changes."
    ),
    AlertCode.LIMITS_DIFFER: (
        "The kernel shows other limits than zoned wrote. Somebody else writes to the zone's group, "
        "or the kernel adjusts the values. `zonectl show NAME` tells both."
    ),
    AlertCode.OFF_NODE: (
        "More than 16 MiB and 1 percent of the zone's memory lies on nodes that are not its own: "
        "kernel memory that spilled, file pages shared with others, or pages that a node's "
        "emptying pushed away."
    ),
    AlertCode.UNCONFINED: (
        "The nodes in force are not the zone's: its own have no memory any more, so the kernel "
        "lets its members use those of the parent group."
    ),
    AlertCode.HALF_MOVED: (
        "A move of the zone to other nodes was cancelled or failed half-way. Its members may use "
        "the old nodes and the new ones, its size is accounted on both, and what moved has stayed. "
        "`zonectl move NAME --nodes NEW` goes on, `--nodes OLD` goes back."
    ),
    AlertCode.OVERCOMMITTED: (
        "The zones of backing `reserve` on a node sum to more than the node can give. The node "
        "shrank, or the system reserve was raised. No zone is changed by that; new ones are "
        "refused."
    ),
    AlertCode.LEFTOVER: (
        "The policy does not name the zone any more, but it has members: processes, or units that "
        "are attached to it or run in it. It stays as it is, and is counted, until the last of "
        "them is gone, and is wanted as before if the policy names it again. `zonectl destroy NAME "
        "--drain root` moves them out. Where `zonectl list` does not have it, a step failed and "
        "only its cgroup is left, with all its limits: it goes once its members have ended."
    ),
    AlertCode.UNKNOWN_GROUP: (
        "Below the group that zoned keeps its zones in lies one that zoned did not make. It is "
        "left alone."
    ),
    AlertCode.BAD_POLICY: (
        "The policy files have mistakes, so none of them was applied; what was in force before "
        "goes on. `zonectl check` lists the mistakes, `zonectl reload` tries again."
    ),
    AlertCode.BLOCKS_MISSING: (
        "A zone of backing `blocks`, or the parked pool that the policy wants, has fewer memory "
        "blocks than it should: after a reboot until they are taken, or because too few can go "
        "offline. The zone's limits and protection hold all the same. `zonectl jobs` tells why "
        "the last attempt failed; it is tried again every ten minutes, and at each reload."
    ),
    AlertCode.BLOCKS_OWED: (
        "Memory blocks that zoned took are still movable where they were the kernel's before, "
        "because pages in them cannot move away. Everybody can use them. It is tried again every "
        "ten minutes; `zonectl blocks list --why` tells what keeps them."
    ),
    AlertCode.SELF_CONFINED: (
        "The daemon itself may not use all nodes, so it cannot move pages to every zone. Take it "
        "out of the cpuset that confines it."
    ),
    AlertCode.FENCE_BROKEN: (
        "A group outside of the zones may use the node of a zone of backing `node`, so pages of "
        "others can come to lie there. Its own settings name no other node, or somebody else "
        "writes to it, or the daemon runs in it and would be confined with it: start the daemon "
        "as zoned.service. It is tried again at each look at the machine."
    ),
    AlertCode.FENCE_LOOSE: (
        "Processes are in the root group, which the kernel does not let anybody confine, so their "
        "pages can come to lie on the node of a zone of backing `node`. Move them into a group. "
        "The same holds for the kernel's own threads, which cannot be moved."
    ),
    AlertCode.ONLINE_RACE: (
        "Memory that was plugged in was brought online before zoned could do it, and by whoever "
        "did it as memory that the kernel uses for itself: such memory can hardly leave again. "
        "The message tells whether the kernel did it by itself (auto_online_blocks, or "
        "memhp_default_state= on its command line) or somebody else, mostly a udev rule for the "
        "subsystem `memory`. `zonectl base add NODE` takes the blocks offline that still can go, "
        "and brings them back as movable (say `--movable-only` where it was added so); switch the "
        "rule off so that it does not come again."
    ),
    AlertCode.NO_KERNEL_MEMORY: (
        "None of the zone's nodes has memory left that the kernel can use for itself, so nothing "
        "in the zone can map memory any more, however much is free: it was taken offline by "
        "somebody else, or came back as movable memory after a reboot. Move the zone to a node "
        "that has some, or take one in addition: `zonectl move NAME --nodes LIST`."
    ),
    AlertCode.RESERVATION_MISSING: (
        "Memory that the policy wants for a device, or that was asked for by hand, is not "
        "reserved. The message says why, and where only another boot helps the words for the "
        "kernel's command line. `zonectl dma explain DEVICE` tells of each way in which it could "
        "be had. It is tried again every ten minutes, when a device comes or goes, and at each "
        "reload."
    ),
    AlertCode.RESERVATION_BROKEN: (
        "Memory that is reserved for a device is not as it should be any more: somebody else wrote "
        "a setting, took a region, or pages have moved. The message says what. It is repaired at "
        "once where that is possible, and tried again every ten minutes."
    ),
    AlertCode.BUFFER_MOVED: (
        "Pages of a buffer that a program has for a device do not lie any more where the program "
        "was told: somebody took their memory block offline, moved the program's memory, or pinned "
        "it. The device may still use the former addresses, which may be anybody's memory by now. "
        "Stop the device and end the program, or have it give the buffer back and ask for another."
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One thing that is not as it should be, and the zone or node that it is about."""

    code: AlertCode
    subject: str
    message: str
