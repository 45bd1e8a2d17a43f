# SPDX-License-Identifier: Apache-2.0
"""What is measured, by name. A new scenario is a function under `@scenario`, here or in a file that
cli.py imports."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.bench import imports
from tests.lab.bench.measure import Figure, compare, compare_all
from tests.lab.harness.guest import PYTHON, Guest
from tests.lab.harness.install import GUEST_PROJECT

MIB = 1 << 20

_GUEST_SIDE = f"{GUEST_PROJECT}/tests/lab/bench/guest_side.py"
LONGEST_SECONDS = 1800
_SETTLE_SECONDS = 5
_BARE = "python"
_INTERPRETER = [PYTHON, "-c", "pass"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A guest with zoned, a zone and an idle member in it, and how much to measure.

    `seconds` is how long an idle daemon is watched.
    """

    guest: Guest
    rounds: int
    seconds: float

    def take(self, kind: str, **request: Any) -> Any:
        """Take samples in the guest; see guest_side.py for the kinds and their requests."""
        command = [PYTHON, _GUEST_SIDE, kind]
        text = self.guest.check(command, input=json.dumps(request), timeout=LONGEST_SECONDS)
        return json.loads(text)

    def time(self, **commands: list[list[str]]) -> dict[str, list[float]]:
        """Time commands in the guest against each other; each name has a list of them."""
        samples: dict[str, list[float]] = self.take(
            "commands", rounds=self.rounds, commands=commands
        )
        return samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a scenario found: ratios, and whatever explains them."""

    what: str
    figures: list[Figure]
    profile: Mapping[str, Any] | None = None


Findings = tuple[list[Figure], Mapping[str, Any] | None]
"""Ratios, and whatever explains them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One thing to measure."""

    name: str
    what: str
    run: Callable[[Bench], Findings]

    def measure(self, bench: Bench) -> Outcome:
        """Run it; takes minutes."""
        figures, profile = self.run(bench)
        return Outcome(what=self.what, figures=figures, profile=profile)


SCENARIOS: dict[str, Scenario] = {}
"""Every scenario by its name, in the order in which they run."""

_Run = Callable[[Bench], Findings]


def scenario(name: str, what: str) -> Callable[[_Run], _Run]:
    """Register a function as the scenario `name`; `what` is one line about it."""

    def register(run: _Run) -> _Run:
        if name in SCENARIOS:
            msg = f"there are two scenarios {name}"
            raise ValueError(msg)
        SCENARIOS[name] = Scenario(name=name, what=what, run=run)
        return run

    return register


@scenario("list", "zonectl list against systemctl list-units, each a whole command")
def _list(bench: Bench) -> Findings:
    samples = bench.time(
        zonectl=[["zonectl", "list"]],
        systemctl=[["systemctl", "list-units", "--no-pager"]],
        python=[_INTERPRETER],
    )
    pairs = [("zonectl", "systemctl"), ("zonectl", _BARE), (_BARE, "systemctl")]
    return compare_all(samples, pairs), _profile(bench, ["list"])


@scenario("topology", "zonectl topology against numactl -H and lsmem, each a whole command")
def _topology(bench: Bench) -> Findings:
    samples = bench.time(
        zonectl=[["zonectl", "topology"]],
        numactl=[["numactl", "-H"]],
        lsmem=[["lsmem"]],
        python=[_INTERPRETER],
    )
    pairs = [("zonectl", "numactl"), ("zonectl", "lsmem"), ("zonectl", _BARE)]
    return compare_all(samples, pairs), _profile(bench, ["topology"])


def _profile(bench: Bench, words: list[str]) -> Mapping[str, Any]:
    """Where the time of a command goes, as far as it goes into imports."""
    zonectl = str(Path(PYTHON).with_name("zonectl"))
    done = bench.guest.run([PYTHON, "-X", "importtime", zonectl, *words])
    bare = bench.guest.run([PYTHON, "-X", "importtime", "-c", "pass"])
    found, before = imports.parse(done.stderr), imports.parse(bare.stderr)
    return {
        "modules": len(found),
        "import_seconds": imports.seconds(found),
        "import_seconds_of_bare_python": imports.seconds(before),
        "slowest_with_what_they_import": imports.slowest(found),
    }


@scenario("create-destroy", "a zone made and destroyed, against bare files and a bare slice")
def _create_destroy(bench: Bench) -> Findings:
    samples = bench.take("create_destroy", rounds=bench.rounds, size=64 * MIB, node=1)
    pairs = [
        ("socket", "files"),
        ("socket", "dbus"),
        ("command", "files"),
        ("command", "systemctl"),
        ("dbus", "files"),
    ]
    return compare_all(samples, pairs), None


@scenario("idle", "the daemon with one zone and one idle member, and others that idle beside it")
def _idle(bench: Bench) -> Findings:
    # Not journald: it is busy with what the guest agent logs.
    names = {"zoned": "zoned.service", "udevd": "systemd-udevd.service", "dbus": "dbus.service"}
    pids = {"systemd": 1}
    for name, unit in names.items():
        pids[name] = int(bench.guest.check(["systemctl", "show", "-P", "MainPID", unit]))
    found = bench.take("idle", pids=pids, settle=_SETTLE_SECONDS, seconds=bench.seconds)
    figures = [
        compare({name: [each[key]] for name, each in found.items()}, "zoned", peer, f"{key} {unit}")
        for key, unit, peer in (
            ("cpu", "s", "systemd"),
            ("wakeups", "switches", "systemd"),
            ("rss", "bytes", _BARE),
            ("pss", "bytes", _BARE),
            ("pss", "bytes", "systemd"),
        )
    ]
    return figures, {"seconds": bench.seconds, "processes": found}
