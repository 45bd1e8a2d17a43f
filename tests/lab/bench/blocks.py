# SPDX-License-Identifier: Apache-2.0
"""What taking memory blocks and giving them back costs, against chmem(8) on the same blocks, and
how often what is said of a block beforehand comes true.
"""

import json
import statistics
from collections.abc import Sequence
from typing import Any

from tests.lab.bench.measure import compare_all
from tests.lab.bench.scenarios import MIB, Bench, Findings, scenario
from tests.lab.block_trials import ask, counted
from tests.lab.harness.guest import PYTHON

_NODE = "3"
_ZONE = "carved"
_BLOCKS = 2
_BYTES = _BLOCKS * 128 * MIB
_SIZE = f"{_BYTES // MIB}MiB"
_GIB = 1 << 30


@scenario("blocks", f"{_SIZE} of blocks parked and brought back: zoned's jobs, commands, chmem")
def _blocks(bench: Bench) -> Findings:
    park = ["zonectl", "blocks", "park", "--node", _NODE, "--size", _SIZE]
    return _there_and_back(bench, park, ["zonectl", "blocks", "unpark", "--node", _NODE], "parked")


@scenario("zone-blocks", f"a zone of {_SIZE} of blocks made and destroyed, likewise")
def _zone(bench: Bench) -> Findings:
    words = ["--size", _SIZE, "--nodes", _NODE, "--backing", "blocks", "--cpus", "none"]
    make = ["zonectl", "create", _ZONE, *words]
    return _there_and_back(bench, make, ["zonectl", "destroy", _ZONE], f"zone:{_ZONE}")


def _there_and_back(bench: Bench, there: list[str], back: list[str], owner: str) -> Findings:
    """Compare a command that takes blocks, and one that gives them back, with chmem."""
    bench.guest.check(there)
    mine = [str(each["id"]) for each in _ask(bench, "blocks", "list") if each["owner"] == owner]
    bench.guest.check(back)
    samples = bench.time(
        zonectl=[there, back],
        chmem=[["chmem", "-b", flag, block] for flag in ("-d", "-e") for block in mine],
        python=[[PYTHON, "-c", "pass"]],
    )
    jobs = _ask(bench, "jobs")[-2 * bench.rounds :]
    times = [job["ended"] - job["started"] for job in jobs]
    taken, given = times[::2], times[1::2]
    samples["job"] = [sum(pair) for pair in zip(taken, given, strict=True)]
    profile = {
        "bytes": _BYTES,
        "blocks": mine,
        "kinds": sorted({job["kind"] for job in jobs}),
        "seconds_per_gib": {
            "taken": _per_gib(taken),
            "given_back": _per_gib(given),
            "both": _per_gib(samples["job"]),
            "both_by_chmem": _per_gib(samples["chmem"]),
        },
    }
    pairs = [("job", "chmem"), ("zonectl", "chmem"), ("zonectl", "python")]
    return compare_all(samples, pairs), profile


@scenario("blocks-said", "what is said of each block beforehand, against what became of it")
def _said(bench: Bench) -> Findings:
    tried = ask(bench.guest, "try")
    said = counted(tried)
    (went, yes), (went_all_the_same, no) = said["yes"], said["no"]
    profile = {
        "blocks": len(tried),
        "went_and_of_how_many_by_what_was_said": said,
        "hit_rate": (went + no - went_all_the_same) / (yes + no),
    }
    return [], profile


def _per_gib(seconds: Sequence[float]) -> float:
    return statistics.median(seconds) * _GIB / _BYTES


def _ask(bench: Bench, *words: str) -> Any:
    return json.loads(bench.guest.check(["zonectl", *words, "-o", "json"]))
