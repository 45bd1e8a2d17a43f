# SPDX-License-Identifier: Apache-2.0
"""What moving memory costs, against what people move it with today. Scenarios, and their figures.

The programs beside this file are compiled here, because the guest has no compiler.
"""

import json
import shutil
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lab.bench.measure import Figure, compare, compare_all
from tests.lab.bench.scenarios import LONGEST_SECONDS, MIB, Bench, Findings, scenario
from tests.lab.harness.errors import LabError, LabUnavailable
from tests.lab.harness.guest import PYTHON, Guest

_SHARED = "/mnt/host/bench"
_PROGRAMS = ("holder", "raw_mover")
_COMPILE = ("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-static")
_BIG = 256
_LARGE = 512
_SMALL = (1, 4, 16)
_NODES = (1, 3)
"""Not node 0, which the system uses, nor node 2, where the benchmark's zone is."""

Samples = Mapping[str, Sequence[float]]


def take(bench: Bench, kind: str, **request: Any) -> Any:
    """Take samples in the guest; see migration_guest.py for the kinds."""
    _prepare(bench.guest)
    command = ["env", f"PYTHONPATH={_SHARED}", "PYTHONDONTWRITEBYTECODE=1", PYTHON]
    request |= {"folder": _SHARED, "nodes": _NODES, "rounds": bench.rounds}
    return json.loads(
        bench.guest.check(
            [*command, "-m", "tests.lab.bench.migration_guest", kind],
            input=json.dumps(request),
            timeout=LONGEST_SECONDS,
        )
    )


def _prepare(guest: Guest) -> None:
    if "bench" in guest.facts:
        return
    here = Path(__file__).parent
    folder = Path(guest.share, "bench")
    shutil.copytree(here, folder / "tests/lab/bench", ignore=shutil.ignore_patterns("__pycache__"))
    for name in _PROGRAMS:
        compile_program(here / f"{name}.c", folder / name)
    guest.facts["bench"] = True


def compile_program(source: Path, target: Path) -> None:
    """Make a program that needs no libraries. Raises LabUnavailable where that fails."""
    command = [*_COMPILE, "-o", str(target), str(source)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        msg = "there is no compiler (apt-get install gcc libc6-dev)"
        raise LabUnavailable(msg) from None
    if done.returncode:
        msg = f"cannot compile {source.name} (apt-get install gcc libc6-dev):\n{done.stderr}"
        raise LabUnavailable(msg)


# Throughput


@scenario("migrate-small", f"{_BIG} MiB in 4 KiB pages moved: zoned, migratepages(8), a C loop")
def _small(bench: Bench) -> Findings:
    return _throughput(bench, "small", _BIG)


@scenario("migrate-small-large", f"the same with {_LARGE} MiB")
def _small_large(bench: Bench) -> Findings:
    return _throughput(bench, "small", _LARGE)


@scenario("migrate-thp", f"{_BIG} MiB in huge pages moved: zoned, migratepages(8), a C loop")
def _thp(bench: Bench) -> Findings:
    return _throughput(bench, "thp", _BIG)


@scenario("migrate-thp-large", f"the same with {_LARGE} MiB")
def _thp_large(bench: Bench) -> Findings:
    return _throughput(bench, "thp", _LARGE)


def _throughput(bench: Bench, pages: str, mib: int) -> Findings:
    found = take(bench, "throughput", pages=pages, mib=mib)
    return compare_speeds(found["samples"], mib * MIB), {
        "pages_left_behind": found["left"],
        "bytes_in_huge_pages_at_the_end": found["huge"],
    }


def compare_speeds(samples: Samples, size: int) -> list[Figure]:
    """Compare how fast `size` bytes moved, given seconds; a ratio above 1 is zoned's advantage.

    Movers are compared with the same number of movers, and all of zoned's with the kernel's call
    and with the command that makes it.
    """
    speeds = {name: [size / each / 1e6 for each in values] for name, values in samples.items()}
    ours = [name for name in speeds if not name.startswith(("raw", "migrate"))]
    pairs = [(name, "migrate_pages") for name in [*ours, "raw-1", "raw-2"]]
    pairs += [(name, "migratepages") for name in ours]
    pairs += [(name, f"raw-{name[-1]}") for name in ours]
    return compare_all(speeds, pairs, "MB/s")


# Python's part


@scenario(
    "migrate-python", "processor time of the engine outside of move_pages(2), as a part of all"
)
def _python(bench: Bench) -> Findings:
    figures, profile = [], {}
    for pages in ("small", "thp"):
        spent = take(bench, "python", pages=pages, mib=_BIG)["spent"]
        for bound, rounds in spent.items():
            figures += parts(f"{pages}, --stall {bound}", rounds)
            profile[f"{pages}, --stall {bound}"] = _medians(rounds)
    return figures, profile


def parts(name: str, rounds: Sequence[Mapping[str, float]]) -> list[Figure]:
    """Return what part of all processor time is not the calls', and what part is user time.

    And what part of the elapsed time passes between the calls.
    """
    samples = {
        f"outside the calls ({name})": [each["cpu"] - each["cpu_in_calls"] for each in rounds],
        f"user time ({name})": [each["user"] for each in rounds],
        "all processor time": [each["cpu"] for each in rounds],
        f"between the calls ({name})": [each["seconds"] - each["in_calls"] for each in rounds],
        "all elapsed time": [each["seconds"] for each in rounds],
    }
    outside, user, cpu, between, elapsed = samples
    return compare_all(samples, [(outside, cpu), (user, cpu), (between, elapsed)])


def _medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}


# Stalls


@scenario("migrate-stall", f"longest stall of who touches {_BIG} MiB of small pages that move")
def _stall_touching(bench: Bench) -> Findings:
    return _stalls(bench, "small", "touch")


@scenario("migrate-stall-thp", "the same with huge pages")
def _stall_huge(bench: Bench) -> Findings:
    return _stalls(bench, "thp", "touch")


@scenario("migrate-stall-map", "the same with small pages, by who maps and unmaps others meanwhile")
def _stall_mapping(bench: Bench) -> Findings:
    return _stalls(bench, "small", "allocate")


def _stalls(bench: Bench, pages: str, way: str) -> Findings:
    found = take(bench, "stall", pages=pages, way=way, mib=_BIG)
    laps = {name: _medians(each) for name, each in found["laps"].items()}
    return compare_stalls(found["laps"]), {"medians": laps, "pages_left_behind": found["left"]}


def compare_stalls(laps: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Figure]:
    """Compare the longest gaps: how many times longer others' are than zoned's; all with none.

    Raises LabError where a page did not hold what was written to it.
    """
    wrong = {name: sum(lap["wrong"] for lap in each) for name, each in laps.items()}
    if any(wrong.values()):
        msg = f"pages with wrong content: {wrong}"
        raise LabError(msg)
    samples = {name: [lap["longest"] for lap in each] for name, each in laps.items()}
    ours = [name for name in samples if name.startswith("zoned")]
    others = ["migratepages", "cpuset.mems"]
    pairs = [(other, mine) for other in others for mine in ours]
    pairs += [(name, "still") for name in [*ours, *others]]
    return compare_all(samples, pairs)


# Small processes


@scenario("migrate-whole", "small processes: one migrate_pages(2) against batches of move_pages(2)")
def _whole(bench: Bench) -> Findings:
    found = take(bench, "whole", pages="small", sizes=_SMALL)
    by_size = {int(mib): each["samples"] for mib, each in found.items()}
    figures = [
        compare({f"{name} ({mib} MiB)": values for name, values in samples.items()}, mine, peer)
        for mib, samples in by_size.items()
        for mine, peer in (
            (f"whole ({mib} MiB)", f"batch ({mib} MiB)"),
            (f"whole ({mib} MiB)", f"batches-of-64 ({mib} MiB)"),
            (f"look ({mib} MiB)", f"batch ({mib} MiB)"),
        )
    ]
    return figures, {
        "cost": costs(by_size),
        "pages_left_behind": {mib: each["left"] for mib, each in found.items()},
    }


def costs(by_size: Mapping[int, Samples]) -> dict[str, dict[str, float]]:
    """Return what each way costs as a line through its medians: fixed seconds, and each MiB's."""
    found = {}
    for name in next(iter(by_size.values())):
        medians = [statistics.median(samples[name]) for samples in by_size.values()]
        line = statistics.linear_regression(list(by_size), medians)
        found[name] = {"fixed_seconds": line.intercept, "seconds_per_mib": line.slope}
    return found
