# SPDX-License-Identifier: Apache-2.0
"""Bad input to a real daemon: one clear error each, and nothing has changed."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.host.daemon import (
    GROUP,
    LIMIT,
    Daemon,
    as_user,
    cgroup_of,
    groups_left,
    holding,
    limits_of,
    names_of,
    reply,
    request,
)
from zoned.daemon.peer import peer_of

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.host

NOBODY = 65534


@pytest.fixture
def unchanged(daemon: Daemon) -> Iterator[Daemon]:
    """Return a daemon with one zone, which must be as it was after the test."""
    daemon.call("Zones.Create", name="db", size=64 << 20)
    before = groups_left(), limits_of("db")
    yield daemon
    assert (groups_left(), limits_of("db")) == before
    assert names_of(daemon.call("Zones.List")["zones"]) == ["db"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("create", "x", "--size", "1GiB", "--nodes", "99"), "unknown-node"),
        (("create", "x", "--size", "0"), "bad-size"),
        (("create", "x", "--size", "900TiB"), "bad-size"),
        (("create", "x", "--size", "900TiB", "--backing", "limit"), "bad-size"),
        (("create", "X!", "--size", "1GiB"), "bad-name"),
        (("create", "cgroup.procs", "--size", "64MiB"), "bad-name"),
        (("create", "memory.stat", "--size", "64MiB"), "bad-name"),
        (("create", "db", "--size", "64MiB"), "name-taken"),
        (("create", "x", "--size", "64MiB", "--cpus", "9999"), "bad-list"),
        (("resize", "db", "900TiB"), "bad-size"),
        (("resize", "ghost", "64MiB"), "no-such-zone"),
        (("destroy", "ghost"), "no-such-zone"),
        (("attach", "db", "--pid", "1"), "not-confinable"),
        (("attach", "db", "--pid", "2"), "kernel-thread"),
        (("attach", "db", "--pid", "4194305"), "no-such-process"),
        (("attach", "db", "--pid", str(1 << 40)), "no-such-process"),
        (("attach", "db", "--unit", "x.service"), "unsupported"),
        (("attach", "db", "--cgroup", "/nowhere"), "no-such-cgroup"),
        (("attach", "db", "--cgroup", "/"), "no-such-cgroup"),
        (("attach", "db", "--cgroup", "/../.."), "no-such-cgroup"),
        (("attach", "db", "--cgroup", "/" + "x" * 300), "no-such-cgroup"),
        (("attach", "db", "--cgroup", f"/{GROUP}"), "no-such-cgroup"),
        (("attach", "db", "--cgroup", f"/{GROUP}/db"), "no-such-cgroup"),
        (("run", "ghost", "--", "true"), "no-such-zone"),
        (("show", "ghost"), "no-such-zone"),
    ],
)
def test_bad_requests(unchanged: Daemon, arguments: tuple[str, ...], code: str) -> None:
    assert unchanged.refused(*arguments) == code


def test_processes_that_end(unchanged: Daemon) -> None:
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert unchanged.refused("attach", "db", "--pid", str(ended.pid)) == "no-such-process"
    ended.wait()
    assert unchanged.refused("attach", "db", "--pid", str(ended.pid)) == "no-such-process"


def test_processes_that_end_meanwhile(unchanged: Daemon) -> None:
    with unchanged.connect() as connection:
        for _ in range(100):
            process = subprocess.Popen(["true"])
            connection.sendall(request("Zones.Attach", name="db", pid=process.pid))
            found = reply(connection)
            code = found.get("parameters", {}).get("code")
            # Attaching takes a moment: the one before may still be at it.
            assert code in {"no-such-process", "zone-busy"} or "error" not in found
            process.wait(LIMIT)
    assert unchanged.show("db")["members"] == 0


def test_the_daemon_itself_is_never_confined(unchanged: Daemon) -> None:
    assert unchanged.process is not None
    before = cgroup_of(unchanged.process.pid)
    assert unchanged.refused("attach", "db", "--pid", str(unchanged.process.pid)) == (
        "not-confinable"
    )
    assert cgroup_of(unchanged.process.pid) == before


def test_malformed_policy(unchanged: Daemon) -> None:
    path = unchanged.policy / "10-bad.yaml"
    path.write_text("zones:\n  web:\n    size: 64MiB\n    colour: red\n  X: {size: 0}\n")
    found = unchanged.zonectl("reload")
    assert found.returncode == 1
    assert f"[bad-policy] {path}:4:" in found.stderr
    assert f"{path}:5:" in found.stderr
    assert "web" not in [zone["name"] for zone in unchanged.zones()]
    path.write_text("zones: [\n")
    assert unchanged.refused("reload") == "bad-policy"
    assert unchanged.end() == 0
    unchanged.start()
    assert "bad-policy-files" in unchanged.zonectl("status").stdout
    path.unlink()
    unchanged.well("reload")


def test_a_message_of_ten_megabytes(unchanged: Daemon) -> None:
    with unchanged.connect() as connection:
        connection.sendall(b'{"method": "' + b"x" * (10 << 20) + b'"}\0')
        found = reply(connection)
        assert found["error"] == "io.zoned.Failed"
        assert found["parameters"]["code"] == "message-too-large"
        connection.sendall(request("Zones.List"))
        assert "zones" in reply(connection)["parameters"]


@pytest.mark.parametrize("junk", [b"junk\0", b"GET / HTTP/1.1\r\n\r\n\0", b"\0\0\0", b"\xff\0"])
def test_junk(unchanged: Daemon, junk: bytes) -> None:
    with unchanged.connect() as connection:
        connection.sendall(junk)
        found = reply(connection)
        assert found["parameters"]["code"] == "bad-input"
        assert found["parameters"]["hint"]


def test_a_client_that_leaves_in_mid_call(daemon: Daemon) -> None:
    """The zone is there or not, never half."""
    for number in range(20):
        message = request("Zones.Create", name=f"z{number}", size=4 << 20)
        with daemon.connect() as connection:
            connection.sendall(message[: len(message) - number % 3])
    # Changes are made one after the other: when this one is done the others are.
    daemon.well("reload")
    names = {zone["name"] for zone in daemon.zones()}
    assert names == {f"z{number}" for number in range(20) if number % 3 == 0}
    assert {zone["state"] for zone in daemon.zones()} == {"degraded"}
    below = {group.name for group in groups_left()} - {GROUP}
    assert below == names


def test_a_second_daemon_on_the_same_state(unchanged: Daemon) -> None:
    found = subprocess.run(
        unchanged.command(), capture_output=True, text=True, check=False, timeout=LIMIT
    )
    assert found.returncode == 75
    assert "[try-later] another zoned works in" in found.stderr
    assert unchanged.well("list")


def test_a_stranger_is_denied(unchanged: Daemon) -> None:
    unchanged.folder.chmod(0o755)
    with as_user(NOBODY, NOBODY, []):
        connection = unchanged.connect()
    with contextlib.closing(connection):
        for call in (
            request("Zones.List"),
            request("Zones.Create", name="x", size=4 << 20),
            request("Zones.Destroy", name="db"),
            request("Zones.Enter", name="db"),
            request("Reset"),
            request("Policy.Reload"),
        ):
            connection.sendall(call)
            found = reply(connection)
            assert found["parameters"]["code"] == "denied"
            assert found["parameters"]["hint"]


def test_a_user_whom_the_zone_names_may_enter(daemon: Daemon) -> None:
    daemon.folder.chmod(0o755)
    daemon.well("create", "db", "--size", "64MiB", "--user", "nobody")
    daemon.well("create", "dw", "--size", "64MiB", "--user", "daemon")
    before = cgroup_of(os.getpid())
    with as_user(NOBODY, NOBODY, []):
        connection = daemon.connect()
    with contextlib.closing(connection):
        connection.sendall(request("Zones.Enter", name="dw"))
        assert reply(connection)["parameters"]["code"] == "denied"
        connection.sendall(request("Zones.Enter", name="db"))
        assert "error" not in reply(connection)
    assert cgroup_of(os.getpid()) != before
    daemon.well("destroy", "db", "--drain", "root")
    assert cgroup_of(os.getpid()) == before


def test_supplementary_groups_are_known() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    address = f"\0zoned-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(address)
        listener.listen()
        with as_user(NOBODY, NOBODY, [4242, 4343]), socket.socket(socket.AF_UNIX) as client:
            client.connect(address)
            with listener.accept()[0] as connection:
                found = peer_of(connection)
    assert (found.uid, found.gids) == (NOBODY, frozenset({NOBODY, 4242, 4343}))


def test_a_cgroup_that_the_daemon_is_in_stays_whole(unchanged: Daemon) -> None:
    """Nobody is moved where one among them may not be."""
    place = next(
        line.split(":", 2)[2]
        for line in cgroup_of(os.getpid()).splitlines()
        if line.split(":")[1] == "memory"
    )
    if place == "/":
        pytest.skip("this machine's processes are in the root group")
    with holding(1) as bystander:
        before = cgroup_of(bystander.pid)
        assert unchanged.refused("attach", "db", "--cgroup", place) == "not-confinable"
        assert cgroup_of(bystander.pid) == before
