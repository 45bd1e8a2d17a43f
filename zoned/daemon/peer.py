# SPDX-License-Identifier: Apache-2.0
"""Who is at the other end of a connection, and what that allows.

Source: unix(7), SO_PEERCRED; SO_PEERGROUPS of socket(7) (Linux 4.13).
"""

from __future__ import annotations

import grp
import math
import os
import pwd
import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned.errors import Denied, NoSuchProcess
from zoned.kernel.process import find

if TYPE_CHECKING:
    from zoned.kernel.process import Process
    from zoned.kernel.root import Root

GROUP = "zoned"
"""The group whose members may look."""

_SO_PEERGROUPS = 59
_LARGEST_ANSWER = 1024
"""Bytes that Python lets getsockopt(2) return: 256 groups."""
_UCRED = struct.Struct("iII")
_GID = struct.Struct("I")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The process that opened a connection."""

    pid: int
    uid: int
    gids: frozenset[int]
    since: float = math.inf
    """seconds after the boot when it was seen to be connected"""

    @property
    def is_root(self) -> bool:
        """Whether it may change things: root, or whoever runs the daemon itself."""
        return self.uid in {0, os.geteuid()}

    @property
    def is_reader(self) -> bool:
        """Whether it may look."""
        return self.is_root or _group_id(GROUP) in self.gids

    def is_one_of(self, users: tuple[str, ...], groups: tuple[str, ...]) -> bool:
        """Return whether it is one of these users, or in one of these groups, by name."""
        return self.user in users or any(_group_id(group) in self.gids for group in groups)

    def require_reader(self) -> None:
        """Raise Denied unless it may look."""
        if not self.is_reader:
            raise Denied(
                f"user {self.user} may not look at zones",
                hint=f"root and members of the group {GROUP} may",
            )

    def require_writer(self, what: str) -> None:
        """Raise Denied unless it may change things."""
        if not self.is_root:
            raise Denied(f"user {self.user} may not {what}", hint="only root may; try sudo")

    def require_one_of(self, users: tuple[str, ...], zone: str) -> None:
        """Raise Denied unless it is root or one of the users that a zone names."""
        if not (self.is_root or self.user in users or str(self.uid) in users):
            raise Denied(
                f"user {self.user} may not run programs in zone {zone}",
                hint="the zone's `users` say who may, besides root",
            )

    def require_lessee(
        self, users: tuple[str, ...], groups: tuple[str, ...], reservation: str
    ) -> None:
        """Raise Denied unless it is root, or somebody whom a reservation names."""
        if not (self.is_root or self.is_one_of(users, groups)):
            raise Denied(
                f"user {self.user} may not have buffers of reservation {reservation}",
                hint="the reservation's `users` and `groups` in the policy say who may",
            )

    @property
    def user(self) -> str:
        """Return the user's name, or number where it has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)


def peer_of(connection: socket.socket) -> Peer:
    """Return who opened the connection. Raises OSError."""
    size = _UCRED.size
    pid, uid, gid = _UCRED.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    gids = frozenset({gid}) | _supplementary(connection, uid, gid)
    return Peer(pid=pid, uid=uid, gids=gids, since=time.clock_gettime(time.CLOCK_BOOTTIME))


def caller(root: Root, peer: Peer) -> Process:
    """Return the process that opened a connection, which somebody else may have inherited.

    Raises NoSuchProcess where it has ended, also if its number is another process's by now; and
    what `find` does.
    """
    process = find(root, peer.pid)
    if process.start_time / _TICKS > peer.since:
        raise NoSuchProcess(
            f"process {peer.pid}, which opened the connection, has ended",
            hint="each process has to connect by itself",
        )
    return process


def _supplementary(connection: socket.socket, uid: int, gid: int) -> frozenset[int]:
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _LARGEST_ANSWER)
    except OSError:
        return _listed(uid, gid)
    return frozenset(gid for (gid,) in _GID.iter_unpack(raw))


def _listed(uid: int, gid: int) -> frozenset[int]:
    """Return the groups that the user database lists: for a process that is in too many."""
    try:
        return frozenset(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
    except KeyError:
        return frozenset()


def _group_id(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
