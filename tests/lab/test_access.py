# SPDX-License-Identifier: Apache-2.0
"""Who may do what, what foreign clients see on the socket, and what bad input gets."""

import json

import pytest

from tests.lab.harness.guest import Guest
from tests.lab.test_zones import ask, refused

SOCKET = "/run/zoned/io.zoned"


@pytest.fixture
def users(zoned_guest: Guest) -> Guest:
    """A guest with the users `outsider`, `looker` (in the group zoned) and `runner`."""
    script = """
        for user in outsider looker runner; do id -u $user || useradd -m $user; done
        usermod -aG zoned looker
    """
    zoned_guest.shell(script)
    zoned_guest.check(
        ["zonectl", "create", "db", "--size", "128MiB", "--nodes", "1", "--user", "runner"]
    )
    return zoned_guest


def test_outsider_may_do_nothing(users: Guest) -> None:
    for words in (["list"], ["status"], ["show", "db"], ["run", "db", "true"], ["reset"]):
        done = users.run(["zonectl", *words], user="outsider")
        assert done.returncode == 4, done
        assert "[denied]" in done.stderr


@pytest.mark.on("bookworm")
def test_member_of_the_group_may_look(users: Guest) -> None:
    assert users.run(["zonectl", "list"], user="looker").returncode == 0
    for words in (
        ["create", "x", "--size", "64MiB"],
        ["destroy", "db"],
        ["resize", "db", "64MiB"],
        ["attach", "db", "--pid", "1"],
        ["reload"],
        ["run", "db", "true"],
    ):
        assert users.run(["zonectl", *words], user="looker").returncode == 4, words


@pytest.mark.on("bookworm")
def test_named_user_may_run(users: Guest) -> None:
    done = users.run(
        ["zonectl", "run", "db", "--", "sh", "-c", "id -un; cat /proc/self/cgroup"], user="runner"
    )
    assert done.stdout.startswith("runner\n"), done
    assert "zone-db.slice" in done.stdout
    assert users.run(["zonectl", "list"], user="runner").returncode == 4


@pytest.mark.on("bookworm")
def test_topology_needs_neither_daemon_nor_root(users: Guest) -> None:
    text = users.check(
        ["zonectl", "--socket", "/nowhere", "topology", "-o", "json"], user="outsider"
    )
    assert [node["id"] for node in json.loads(text)["nodes"]] == [0, 1, 2, 3]


def test_varlink_from_another_implementation(users: Guest, release: str) -> None:
    call = '{"method":"io.zoned.Zones.List","parameters":{}}'
    if release == "bookworm":
        # Its systemd has no varlinkctl yet: the bytes themselves are the other implementation.
        script = (
            "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
            "s.sendall(sys.argv[2].encode()+b'\\0'); print(s.recv(65536)[:-1].decode())"
        )
        reply = json.loads(users.check(["python3", "-c", script, SOCKET, call]))["parameters"]
    else:
        text = users.check(["varlinkctl", "introspect", SOCKET, "io.zoned.Zones"])
        assert "method List() -> " in text.replace("\n", " ").replace("  ", " ")
        for interface in ("io.zoned", "io.zoned.Policy"):
            users.check(["varlinkctl", "introspect", SOCKET, interface])
        assert "io.zoned.Zones" in users.check(["varlinkctl", "info", SOCKET])
        reply = json.loads(
            users.check(["varlinkctl", "call", "-j", SOCKET, "io.zoned.Zones.List", "{}"])
        )
    assert [zone["name"] for zone in reply["zones"]] == ["db"]


BAD_INPUT = [
    ("create x --size 64MiB --nodes 9", "unknown-node"),
    ("create x --size 64MiB --nodes 4", "unknown-node"),
    ("create x --size 64MiB --nodes zwei", "bad-list"),
    ("create x --size 0", "bad-size"),
    ("create x --size 64GiB --nodes 1", "bad-size"),
    ("create X! --size 64MiB", "bad-name"),
    ("create db --size 64MiB", "name-taken"),
    ("create x --size 64MiB --near pci:0000:ff:00.0", "bad-input"),
    ("attach db --pid 4194304", "no-such-process"),
    ("attach db --pid 2", "kernel-thread"),
    ("attach db --pid 1", "not-confinable"),
    ("attach db --unit nothing.service", "no-such-unit"),
    ("attach db --cgroup /nowhere", "no-such-cgroup"),
    ("detach db --pid 1", "not-a-member"),
    ("resize db 64GiB", "bad-size"),
    ("destroy nothing", "no-such-zone"),
]


def test_bad_input_is_one_error_and_changes_nothing(users: Guest) -> None:
    """All in one test: each would otherwise pay for a zone and three users of its own."""
    before = ask(users, "list")
    wrong = []
    for words, code in BAD_INPUT:
        message = refused(users, *words.split())
        if not message.startswith(f"zonectl: [{code}]") or len(message.splitlines()) > 2:
            wrong.append((words, code, message))
    assert not wrong
    assert ask(users, "list") == before


def test_broken_policy_is_told_by_line_and_changes_nothing(users: Guest) -> None:
    path = "/etc/zoned/zones.d/50-lab.yaml"
    good = "zones:\n  cache:\n    size: 64MiB\n    nodes: 3\n"
    users.write(path, good)
    users.check(["zonectl", "reload"])
    assert [zone["name"] for zone in ask(users, "list")] == ["cache", "db"]
    users.write(path, good + "    sise: 1\n    backing: [\n")
    message = refused(users, "reload")
    assert f"{path}:" in message
    assert [zone["name"] for zone in ask(users, "list")] == ["cache", "db"]
    assert ask_status(users)["ok"] is False
    assert "[in-policy]" in refused(users, "destroy", "cache")
    users.check(["rm", path])
    users.check(["zonectl", "reload"])
    assert [zone["name"] for zone in ask(users, "list")] == ["db"]
    assert ask_status(users)["ok"] is True


def ask_status(guest: Guest) -> dict[str, object]:
    """Return `zonectl status`, whatever its exit status."""
    found: dict[str, object] = json.loads(guest.run(["zonectl", "status", "-o", "json"]).stdout)
    return found
