# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the lab ring: `lab`, `guest`, `zoned_guest` and `settled_guest`."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from tests.lab.block_trials import able
from tests.lab.following import settle
from tests.lab.harness.errors import LabUnavailable
from tests.lab.harness.guest import Guest
from tests.lab.harness.install import install_zoned, share_sources
from tests.lab.harness.lab import Lab, Wanted
from tests.lab.harness.plugin import (
    pytest_report_teststatus,
    pytest_runtest_makereport,
    pytest_sessionfinish,
    pytest_terminal_summary,
)
from tests.lab.harness.qemu import lacks
from tests.lab.harness.recipe import RECIPES
from tests.lab.harness.topology import TOPOLOGIES
from tests.lab.loads import runner_command, set_pools

__all__ = (
    "pytest_report_teststatus",
    "pytest_runtest_makereport",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
)

FOLDER = Path(__file__).parent
_FRESH = "one_node"
"""The machine on which zoned is installed as by a user, with nothing prepared."""
T = TypeVar("T")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lab")
    group.addoption(
        "--lab-releases", default=",".join(RECIPES), help="Debian releases, by commas (%(default)s)"
    )
    group.addoption(
        "--lab-topology", choices=[*TOPOLOGIES], help="run only the lab's tests on this machine"
    )
    group.addoption(
        "--lab-kernel", choices=RECIPES["trixie"].kernels, help="boot all guests with this kernel"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "topology(name): the machine that a lab test wants (default: four_nodes)"
    )
    config.addinivalue_line(
        "markers", "on(release): on this one alone, because the kernel makes no difference"
    )
    config.addinivalue_line(
        "markers", "roomy(n): so many blocks of nodes 2 and 3 can go, or the machine is booted anew"
    )
    config.addinivalue_line("markers", "last: may leave the machine changed, so after all others")
    config.addinivalue_line("markers", "spoils: of no use to others is the machine afterwards")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "release" in metafunc.fixturenames:
        wanted = metafunc.config.getoption("--lab-releases", ",".join(RECIPES)).split(",")
        if unknown := set(wanted) - set(RECIPES):
            msg = f"--lab-releases: no {', '.join(unknown)} (there are {', '.join(RECIPES)})"
            raise pytest.UsageError(msg)
        if mark := metafunc.definition.get_closest_marker("on"):
            wanted = [each for each in wanted if each in mark.args]
        metafunc.parametrize("release", wanted, scope="session")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark this folder's tests."""
    if FOLDER in item.path.parents:
        item.add_marker(pytest.mark.lab)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out this folder's tests on another machine than the one asked for, and sort them."""
    only = config.getoption("--lab-topology", None)
    dropped = []
    for item in items:
        if FOLDER in item.path.parents and only and _topology_name(item) != only:
            dropped.append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]
    items.sort(key=_machine_of)


def _machine_of(item: pytest.Item) -> tuple[bool, str, str, int]:
    """Sort the lab's tests by the machine that they want, so that each is booted once."""
    if FOLDER not in item.path.parents:
        return (False, "", "", 0)
    parameters = getattr(item, "callspec", None)
    release = str(parameters.params.get("release", "")) if parameters else ""
    marks = ("last", "spoils")
    rank = max((n for n, each in enumerate(marks, 1) if item.get_closest_marker(each)), default=0)
    return (True, release, _topology_name(item), rank)


def _topology_name(item: pytest.Item) -> str:
    mark = item.get_closest_marker("topology")
    return str(mark.args[0]) if mark else "four_nodes"


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Lab]:
    """All guests of the session."""
    kernel = pytestconfig.getoption("--lab-kernel")
    shared = hasattr(pytestconfig, "workerinput")
    lab = Lab(tmp_path_factory.mktemp("lab"), shared=shared, kernel=kernel)
    yield lab
    lab.close()


def _or_skip(get: Callable[[], T]) -> T:
    """Get something of the lab, as far as $ZONED_LAB wants it."""
    wanted = Wanted.from_environment()
    if wanted is Wanted.NEVER:
        pytest.skip("the lab is switched off (ZONED_LAB=0)")
    try:
        return get()
    except LabUnavailable as error:
        if wanted is Wanted.ALWAYS:
            pytest.fail(f"ZONED_LAB=1, but there is no lab: {error}", pytrace=False)
        pytest.skip(f"no lab: {error}")


@pytest.fixture
def guest(lab: Lab, release: str, request: pytest.FixtureRequest) -> Iterator[Guest]:
    """The shared guest of this release and of the test's `topology`, cleaned up afterwards."""
    topology = _topology_name(request.node)
    if missing := lacks(TOPOLOGIES[topology]):
        pytest.skip(f"this QEMU has no {missing}")
    fresh = topology == _FRESH

    def get() -> Guest:
        return lab.guest(release, topology, fresh=fresh)

    def get_installed() -> Guest:
        guest = lab.installed(release, get, lambda guest: install_zoned(guest, release))
        if is_roomy(guest, request.node.get_closest_marker("roomy")):
            return guest
        lab.end(guest)
        return get()

    installed = "zoned_guest" in request.fixturenames and not fresh
    guest = _or_skip(get_installed if installed else get)
    yield guest
    if request.node.get_closest_marker("spoils"):
        lab.end(guest)
        return
    with lab.kept_if_clean(guest):
        guest.reclaim()


def is_roomy(guest: Guest, mark: pytest.Mark | None) -> bool:
    """Tell whether nodes 2 and 3 have as many blocks that can go as the mark says."""
    if mark is None:
        return True
    found = able(guest)
    return bool(min(found[2], found[3]) >= mark.args[0])


@pytest.fixture
def zoned_guest(guest: Guest, release: str) -> Guest:
    """The shared guest with zoned installed by `scripts/up`, and only the zones that it made."""
    if "zoned" not in guest.facts:
        fresh = guest.topology.name == _FRESH
        if fresh:
            guest.facts["zoned"] = install_zoned(guest, release, fresh=True)
        else:
            share_sources(guest, release)
            # Waits until it has.
            guest.facts["zoned"] = guest.check(["systemctl", "start", "zoned"])
        guest.facts["held"] = read_held(guest)
        guest.on_reclaim.append(reset_zoned)
        if not fresh:
            guest.use_runner(runner_command(guest))
    return guest


@pytest.fixture
def settled_guest(zoned_guest: Guest, request: pytest.FixtureRequest) -> Guest:
    """The guest with zoned, where nothing but a test's loads has pages on node 1.

    Done anew for each module, because zones take the libraries of their members along.
    """
    module = request.node.path.name
    if "settled" not in zoned_guest.facts:
        zoned_guest.on_reclaim.append(lambda guest: set_pools(guest, 0, 1, 2, 3))
    if zoned_guest.facts.get("settled") != module:
        settle(zoned_guest)
        zoned_guest.facts["settled"] = module
    return zoned_guest


def reset_zoned(guest: Guest) -> None:
    """Take back policies, zones and parked blocks of a test, whose error a failure is.

    What there is to take back is read from zoned's files: each command takes a second there.
    """
    held = read_held(guest)
    if held == guest.facts["held"]:
        return
    if held.policies:
        guest.check(["find", "/etc/zoned/zones.d", "-name", "*.yaml", "-delete"])
        guest.check(["zonectl", "reload"])
        held = read_held(guest)
    for zone in held.zones - guest.facts["held"].zones:
        guest.check(["zonectl", "destroy", "--kill", zone])
    if held.parked:
        blocks = json.loads(guest.check(["zonectl", "blocks", "list", "-o", "json"]))
        for node in {block["node"] for block in blocks if block["id"] in held.parked}:
            guest.check(["zonectl", "blocks", "unpark", "--node", str(node)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What zoned was told and what it holds."""

    policies: str
    zones: frozenset[str]
    parked: frozenset[int]


def read_held(guest: Guest) -> Held:
    """Return what the files of zoned tell; they are not there before there is something to tell."""
    policies, zones, ledger = guest.shell(
        "ls /etc/zoned/zones.d; for each in /var/lib/zoned/zones.json /run/zoned/ledger.json;"
        " do printf '\\0'; cat $each 2> /dev/null || echo '{}'; done"
    ).split("\0")
    blocks = json.loads(ledger).get("blocks", ())
    return Held(
        policies=policies,
        zones=frozenset(zone["spec"]["name"] for zone in json.loads(zones).get("zones", ())),
        parked=frozenset(number for number, owner, *_ in blocks if owner == "parked"),
    )
