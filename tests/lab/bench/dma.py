# SPDX-License-Identifier: Apache-2.0
"""How soon a device that comes has its memory, and what buffers of it cost."""

import re
from typing import Any

from tests.lab.bench.measure import compare, compare_all
from tests.lab.bench.scenarios import MIB, Bench, Findings, scenario
from tests.lab.edu import BITS_31, plugged
from tests.lab.harness.guest import Guest
from tests.lab.harness.wait import wait_until
from tests.lab.loads import set_pools
from tests.lab.reservations import none_left, reserved, stand_for

_POLICY = "/etc/zoned/zones.d/50-bench.yaml"
_NAME = "bench-dma"
_SIZE = 64 * MIB
_PAGE = 2 * MIB
_BUFFERS = (2 * MIB, 32 * MIB)
_PEER_NODE = 3
"""Has the huge pages that anybody can map; the reservation's lie lower."""
_EVENTS = 5
"""Devices that are plugged in, which takes most of the time."""
_BARE = """
cd /sys/devices/system
pool=node/node{node}/hugepages/hugepages-2048kB/nr_hugepages
begin=$(date +%s%N)
for each in {blocks}; do
    echo offline > memory/memory$each/state
    echo online_movable > memory/memory$each/state
done
echo {pages} > $pool
end=$(date +%s%N)
echo 0 > $pool
for each in {blocks}; do
    echo offline > memory/memory$each/state
    echo online_kernel > memory/memory$each/state
done
echo $((end - begin))
"""


def _policy(hold: str) -> str:
    """A reservation of huge pages for a device behind a root port, or held for any to come."""
    match = "{id: 1234:11e8, path: '/devices/*/*/*'}"
    return (
        f"dma:\n  quirks:\n    - {{match: {match}, limit: 31, source: the benchmark}}\n"
        f"  reservations:\n    {_NAME}:\n      match: {match}\n      pool: {_NAME}\n"
        f"      size: {_SIZE}\n      limit: 31\n      rungs: [hugetlb]\n      hold: {hold}\n"
    )


def _bring(guest: Guest, text: str) -> None:
    guest.write(_POLICY, text)
    guest.check(["zonectl", "reload"])


def _end(guest: Guest) -> None:
    guest.check(["rm", "-f", _POLICY])
    guest.check(["zonectl", "reload"])
    none_left(guest)


@scenario("dma-event", "memory for a device from the kernel's event on, against files by hand")
def _event(bench: Bench) -> Findings:
    guest, found = bench.guest, dict[str, list[float]](reservation=[], files=[])
    _bring(guest, _policy("false"))
    profile: dict[str, Any] = {"bytes": _SIZE, "blocks": []}
    for _ in range(min(bench.rounds, _EVENTS)):
        with plugged(guest, BITS_31) as address:
            held = stand_for(guest, address)[address]
            found["reservation"].append(_seconds_after(guest, address))
        none_left(guest)
        profile["blocks"].append(held["blocks"])
        found["files"].append(_by_hand(guest, held))
    _end(guest)
    return [compare(found, "reservation", "files")], profile


def _seconds_after(guest: Guest, address: str) -> float:
    """Return how long after its event the device had its memory, as zoned has logged."""
    words = rf"^event: add {re.escape(address)}: reservation \S+ stands, ([\d.]+) s later$"

    def logged() -> list[str]:
        text = guest.check(["journalctl", "-b", "-o", "cat", "-u", "zoned"])
        return re.findall(words, text, re.MULTILINE)

    return float(wait_until(logged, "the log's line of the device's event")[-1])


def _by_hand(guest: Guest, held: dict[str, Any]) -> float:
    """Return how long it takes to have pages in the same blocks without anything that decides."""
    script = _BARE.format(
        node=held["node"], blocks=" ".join(map(str, held["blocks"])), pages=_SIZE // _PAGE
    )
    return int(guest.shell(script)) / 1e9


@scenario("dma-buffer", "a buffer of reserved memory, against huge pages that anybody can map")
def _buffer(bench: Bench) -> Findings:
    guest = bench.guest
    _bring(guest, _policy("true"))
    wait_until(lambda: _stands(guest), "the reservation")
    set_pools(guest, max(_BUFFERS) // _PAGE, _PEER_NODE)
    samples = bench.take(
        "dma_buffer", rounds=bench.rounds, reservation=_NAME, sizes=_BUFFERS, page=_PAGE
    )
    set_pools(guest, 0, _PEER_NODE)
    _end(guest)
    pairs = [(f"lease-{size}", f"mmap-{size}") for size in _BUFFERS]
    pairs += [("write-lease", "write-mmap")]
    return compare_all(samples, pairs), {"page": _PAGE, "reservation": _SIZE}


def _stands(guest: Guest) -> bool:
    return bool(reserved(guest).get(_NAME, {}).get("standing"))
