# SPDX-License-Identifier: Apache-2.0
"""What taking memory blocks and giving them back costs, against chmem(8) on the same blocks."""

import json
from typing import Any

from tests.lab.bench.measure import compare_all
from tests.lab.bench.scenarios import MIB, Bench, Findings, scenario
from tests.lab.harness.guest import PYTHON

_NODE = "3"
_BLOCKS = 2
_SIZE = f"{_BLOCKS * 128}MiB"


@scenario("blocks", f"{_SIZE} of blocks parked and brought back: zoned's jobs, commands, chmem")
def _blocks(bench: Bench) -> Findings:
    park = ["zonectl", "blocks", "park", "--node", _NODE, "--size", _SIZE]
    unpark = ["zonectl", "blocks", "unpark", "--node", _NODE]
    bench.guest.check(park)
    found = _ask(bench, "blocks", "list")
    mine = [str(each["id"]) for each in found if each["owner"] == "parked"]
    bench.guest.check(unpark)
    samples = bench.time(
        zonectl=[park, unpark],
        chmem=[["chmem", "-b", flag, block] for flag in ("-d", "-e") for block in mine],
        python=[[PYTHON, "-c", "pass"]],
    )
    jobs = _ask(bench, "jobs")[-2 * bench.rounds :]
    times = [job["ended"] - job["started"] for job in jobs]
    samples["job"] = [sum(times[at : at + 2]) for at in range(0, len(times), 2)]
    pairs = [("job", "chmem"), ("zonectl", "chmem"), ("zonectl", "python")]
    profile = {"bytes": _BLOCKS * 128 * MIB, "blocks": mine, "kinds": [job["kind"] for job in jobs]}
    return compare_all(samples, pairs), profile


def _ask(bench: Bench, *words: str) -> Any:
    return json.loads(bench.guest.check(["zonectl", *words, "-o", "json"]))
