# SPDX-License-Identifier: Apache-2.0
"""Who is at the other end, and what it may do."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from zoned.daemon.peer import Peer, caller, peer_of
from zoned.errors import Denied, NoSuchProcess
from zoned.kernel.process import find
from zoned.kernel.root import Root

if TYPE_CHECKING:
    from collections.abc import Callable

ZONED_GID = 4242


def peer(uid: int = 1000, *gids: int) -> Peer:
    return Peer(pid=7, uid=uid, gids=frozenset(gids))


@pytest.fixture(autouse=True)
def database(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user database with root, jo, and the group zoned; the daemon is run by root."""

    def user(uid: int) -> pwd.struct_passwd:
        names = {0: "root", 1000: "jo"}
        return pwd.struct_passwd((names[uid], "x", uid, uid, "", "/", "/bin/sh"))

    def group(name: str) -> grp.struct_group:
        return grp.struct_group((name, "x", {"zoned": ZONED_GID}[name], []))

    monkeypatch.setattr(pwd, "getpwuid", user)
    monkeypatch.setattr(grp, "getgrnam", group)
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def allows(check: Callable[[], None]) -> bool:
    try:
        check()
    except Denied as error:
        return not error.hint
    return True


@pytest.mark.parametrize(
    ("who", "reads", "writes", "enters"),
    [
        (peer(0), True, True, True),
        (peer(1000, 1000), False, False, True),
        (peer(1000, 1000, ZONED_GID), True, False, True),
        (peer(1001, 0), False, False, False),
        (peer(1001, ZONED_GID), True, False, False),
    ],
)
def test_rights(who: Peer, *, reads: bool, writes: bool, enters: bool) -> None:
    assert allows(who.require_reader) is reads
    assert allows(lambda: who.require_writer("create zones")) is writes
    assert allows(lambda: who.require_one_of(("jo",), "db")) is enters


@pytest.mark.parametrize(
    ("who", "users", "groups", "may"),
    [
        (peer(0), (), (), True),
        (peer(1000), (), (), False),
        (peer(1000), ("jo",), (), True),
        (peer(1001), ("jo",), (), False),
        (peer(1001, ZONED_GID), (), ("zoned",), True),
        (peer(1001, ZONED_GID), (), (), False),
        (peer(1001, 5), ("jo",), ("zoned",), False),
    ],
)
def test_who_may_have_buffers(
    who: Peer, users: tuple[str, ...], groups: tuple[str, ...], *, may: bool
) -> None:
    assert allows(lambda: who.require_lessee(users, groups, "capture")) is may
    if not may:
        with pytest.raises(Denied, match="may not have buffers of reservation capture"):
            who.require_lessee(users, groups, "capture")


def test_a_group_that_is_not_there_lets_nobody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> grp.struct_group:
        raise KeyError(name)

    monkeypatch.setattr(grp, "getgrnam", nothing)
    assert not peer(1001, 5).is_one_of((), ("video",))


def test_a_user_can_be_named_by_number() -> None:
    assert allows(lambda: peer(1001).require_one_of(("1001",), "db"))
    assert not allows(lambda: peer(1001).require_one_of((), "db"))


def test_a_denial_tells_who_may_not_what() -> None:
    with pytest.raises(Denied, match="user jo may not create zones"):
        peer(1000).require_writer("create zones")
    with pytest.raises(Denied, match="user 1001 may not run programs in zone db"):
        peer(1001).require_one_of(("jo",), "db")


def test_whoever_runs_the_daemon_may_change_things(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert allows(lambda: peer(1000).require_writer("create zones"))


def test_without_the_group_only_root_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> grp.struct_group:
        raise KeyError(name)

    monkeypatch.setattr(grp, "getgrnam", nothing)
    assert not allows(peer(1000, ZONED_GID).require_reader)
    assert allows(peer(0).require_reader)


def test_the_kernel_tells_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getgrouplist", lambda *_: [99])
    left, right = socket.socketpair()
    with left, right:
        found = peer_of(left)
    assert (found.pid, found.uid) == (os.getpid(), os.getuid())
    assert found.gids == frozenset({os.getgid(), *os.getgroups()})


def test_a_process_in_very_many_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than Python's getsockopt takes: what the user database lists must do."""

    class Many(socket.socket):
        def getsockopt(self, level: int, name: int, size: int = 0) -> bytes:  # type: ignore[override]
            if name == 59:
                raise OSError(34, "Numerical result out of range")
            return super().getsockopt(level, name, size)

    def nobody(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(os, "getgrouplist", lambda user, gid: [gid, len(user), 99])
    left, right = socket.socketpair()
    with Many(fileno=left.detach()) as many, right:
        if os.getuid() == 0:
            assert peer_of(many).gids == frozenset({os.getgid(), 4, 99})
        monkeypatch.setattr(pwd, "getpwuid", nobody)
        assert peer_of(many).gids == frozenset({os.getgid()})


def test_a_number_that_is_another_process_by_now() -> None:
    """A connection outlives who opened it, where a child has inherited it."""
    mine, theirs = socket.socketpair()
    with mine, theirs:
        found = peer_of(mine)
    assert found.since <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert caller(Root(), found) == find(Root(), os.getpid())
    before_this_process = replace(found, since=0.0)
    with pytest.raises(NoSuchProcess, match="which opened the connection, has ended"):
        caller(Root(), before_this_process)
