# SPDX-License-Identifier: Apache-2.0
"""The command scripts/bench: boot, install, measure, print JSON."""

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.bench import blocks, dma, migration  # noqa: F401 - they register their scenarios
from tests.lab.bench.measure import to_json
from tests.lab.bench.scenarios import SCENARIOS, Bench, Outcome
from tests.lab.harness.accel import choose_acceleration
from tests.lab.harness.errors import CommandFailed, LabError, LabLost
from tests.lab.harness.guest import Guest
from tests.lab.harness.image import get_image
from tests.lab.harness.install import install_zoned, share_sources
from tests.lab.harness.lab import Lab
from tests.lab.harness.plugin import LAB_LOST
from tests.lab.harness.recipe import RECIPES
from tests.lab.harness.wait import wait_until

_TOPOLOGY = "four_nodes"
_ZONE = "bench"

_DESCRIPTION = """\
Measure zoned in a guest of the lab, and print JSON. Each figure is a ratio against a peer that
took its turn in the same rounds, with quartiles; seconds are there for information only.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that is printed."""

    zoned: str
    release: str
    kernel: str
    topology: str
    acceleration: str
    host: dict[str, Any]
    rounds: int
    scenarios: dict[str, Outcome]
    failed: dict[str, str]
    """why a scenario has no outcome"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run scripts/bench; return its exit status."""
    options = _parse(arguments)
    try:
        found = _measure(options)
    except LabLost as error:
        print(f"bench: lost: {error}", file=sys.stderr)
        return LAB_LOST
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    report = to_json(found)
    if options.output:
        options.output.write_text(report + "\n")
    else:
        print(report)
    return 1 if found.failed else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=_DESCRIPTION,
        epilog="scenarios:\n" + "\n".join(f"  {one.name:<17} {one.what}" for one in _all()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--release", choices=[*RECIPES], default="trixie")
    parser.add_argument("--rounds", type=_positive, default=15, help="(default: %(default)s)")
    parser.add_argument(
        "--only",
        choices=[*SCENARIOS],
        action="append",
        metavar="NAME",
        help="measure this alone; may be given several times",
    )
    parser.add_argument(
        "--seconds",
        type=_positive,
        default=60,
        help="how long the idle daemon is watched (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there, not to stdout")
    return parser.parse_args(arguments)


def _all() -> list[Any]:
    return [*SCENARIOS.values()]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        msg = f"{text} is not positive"
        raise argparse.ArgumentTypeError(msg)
    return number


def _measure(options: argparse.Namespace) -> Report:
    load_before = os.getloadavg()
    with _guest(options.release) as guest:
        _make_zone(guest)
        bench = Bench(guest=guest, rounds=options.rounds, seconds=options.seconds)
        outcomes, failed = {}, {}
        for name in options.only or SCENARIOS:
            _say(f"measuring {name}: {SCENARIOS[name].what}")
            try:
                outcomes[name] = SCENARIOS[name].measure(bench)
            except CommandFailed as error:
                # What the others found took long.
                _say(f"{name} failed: {error}")
                failed[name] = str(error)
        return Report(
            zoned=guest.check(["zonectl", "--version"]).split()[-1],
            release=options.release,
            kernel=guest.check(["uname", "-r"]).strip(),
            topology=_TOPOLOGY,
            acceleration=choose_acceleration(get_image(options.release)),
            host={
                "cpus": os.cpu_count(),
                "machine": platform.machine(),
                "load_before": load_before,
                "load_after": os.getloadavg(),
            },
            rounds=options.rounds,
            scenarios=outcomes,
            failed=failed,
        )


@contextlib.contextmanager
def _guest(release: str) -> Iterator[Guest]:
    """A guest of the benchmark's own with zoned installed; the first takes minutes."""
    with tempfile.TemporaryDirectory(prefix="zoned-bench-") as name:
        lab = Lab(Path(name))
        try:
            _say(f"booting {release}, {_TOPOLOGY}")
            guest = lab.installed(
                release,
                lambda: lab.guest(release, _TOPOLOGY),
                lambda guest: _install(guest, release),
            )
            # It may have been installed by another run.
            share_sources(guest, release)
            guest.check(["systemctl", "start", "zoned"])
            yield guest
        finally:
            lab.close()


def _install(guest: Guest, release: str) -> None:
    _say("installing zoned in it")
    install_zoned(guest, release)


def _make_zone(guest: Guest) -> None:
    """Make the zone that is there all the time, with a member that does nothing."""
    guest.check(["zonectl", "create", _ZONE, "--size", "128MiB", "--nodes", "2"])
    guest.start(["zonectl", "run", _ZONE, "--", "sleep", "infinity"])
    wait_until(lambda: _members(guest) == 1, f"zone {_ZONE} has a member")


def _members(guest: Guest) -> int:
    return int(json.loads(guest.check(["zonectl", "show", _ZONE, "-o", "json"]))["members"])


def _say(text: str) -> None:
    print(f"bench: {text} …", file=sys.stderr, flush=True)
