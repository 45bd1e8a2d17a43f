# SPDX-License-Identifier: Apache-2.0
"""The pure half of the migration scenarios, and the programs that they need."""

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.lab.bench import migration
from tests.lab.bench.guest_side import turns_of
from tests.lab.bench.measure import Figure
from tests.lab.bench.migration import (
    compare_speeds,
    compare_stalls,
    compile_program,
    costs,
    parts,
)
from tests.lab.bench.migration_engine import Stopwatch
from tests.lab.bench.scenarios import SCENARIOS
from tests.lab.harness.errors import LabError, LabUnavailable
from zoned.engine.migration import mover

PROGRAMS = Path(migration.__file__).parent


def ratios(figures: list[Figure]) -> dict[tuple[str, str], float]:
    return {
        (each.subject, each.peer): round(each.ratio.median, 6) for each in figures if each.ratio
    }


def lap(longest: float, wrong: int = 0) -> dict[str, float]:
    return {"longest": longest, "steps": 9, "wrong": wrong, "seconds": 1.0}


def test_scenarios_are_registered() -> None:
    names = {"small", "thp", "python", "stall", "stall-thp", "stall-map", "whole"}
    assert {f"migrate-{name}" for name in names} <= set(SCENARIOS)


def test_what_turns_return_is_kept_but_for_the_warm_up() -> None:
    counter = iter(range(9))
    assert turns_of(2, {"a": lambda: next(counter)}, warm_up=1) == {"a": [1, 2]}


def test_who_is_faster_has_a_ratio_above_one() -> None:
    seconds = {"migrate_pages": [2.0], "migratepages": [4.0], "raw-1": [1.0], "raw-2": [0.5]}
    seconds |= {"zoned-10-1": [4.0], "zoned-100-2": [1.0]}
    figures = compare_speeds(seconds, 256_000_000)
    assert ratios(figures) == {
        ("zoned-10-1", "migrate_pages"): 0.5,
        ("zoned-100-2", "migrate_pages"): 2.0,
        ("zoned-10-1", "migratepages"): 1.0,
        ("zoned-100-2", "migratepages"): 4.0,
        ("raw-1", "migrate_pages"): 2.0,
        ("raw-2", "migrate_pages"): 4.0,
        ("zoned-10-1", "raw-1"): 0.25,
        ("zoned-100-2", "raw-2"): 0.5,
    }
    assert figures[0].unit == "MB/s"
    assert figures[0].values["migrate_pages"].median == 128.0


def test_pythons_part_is_what_the_calls_did_not_use() -> None:
    rounds = [{"cpu": 2.0, "cpu_in_calls": 1.5, "user": 0.2, "seconds": 4.0, "in_calls": 3.0}]
    assert ratios(parts("x", rounds)) == {
        ("outside the calls (x)", "all processor time"): 0.25,
        ("user time (x)", "all processor time"): 0.1,
        ("between the calls (x)", "all elapsed time"): 0.25,
    }


def test_stalls_are_compared_with_ours_and_with_none() -> None:
    laps = {"zoned-10": [lap(0.01)], "migratepages": [lap(0.3)], "cpuset.mems": [lap(0.2)]}
    found = ratios(compare_stalls({**laps, "still": [lap(0.005)]}))
    assert found == {
        ("migratepages", "zoned-10"): 30.0,
        ("cpuset.mems", "zoned-10"): 20.0,
        ("zoned-10", "still"): 2.0,
        ("migratepages", "still"): 60.0,
        ("cpuset.mems", "still"): 40.0,
    }


def test_wrong_content_is_no_measurement() -> None:
    laps = {name: [lap(1.0)] for name in ("zoned-10", "cpuset.mems", "still")}
    with pytest.raises(LabError, match="wrong content"):
        compare_stalls({**laps, "migratepages": [lap(1.0, wrong=3)]})


def test_costs_are_a_line_through_the_medians() -> None:
    found = costs({1: {"whole": [0.5, 0.3, 0.9]}, 4: {"whole": [1.1]}, 16: {"whole": [3.5]}})
    assert found["whole"]["fixed_seconds"] == pytest.approx(0.3)
    assert found["whole"]["seconds_per_mib"] == pytest.approx(0.2)


def test_stopwatch_leaves_the_engine_as_it_was() -> None:
    before = vars(mover)["move_batch"]
    with Stopwatch():
        assert vars(mover)["move_batch"] is not before
    assert vars(mover)["move_batch"] is before


def test_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabUnavailable, match="apt-get install gcc"):
        compile_program(PROGRAMS / "holder.c", tmp_path / "holder")


def compiled(name: str, folder: Path) -> str:
    if not shutil.which("gcc"):
        pytest.skip("there is no gcc")
    compile_program(PROGRAMS / f"{name}.c", folder / name)
    return str(folder / name)


def test_source_that_does_not_compile_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad.c").write_text("int main(void) { return nothing; }\n")
    if not shutil.which("gcc"):
        pytest.skip("there is no gcc")
    with pytest.raises(LabUnavailable, match="nothing"):
        compile_program(tmp_path / "bad.c", tmp_path / "bad")


def test_raw_mover_wants_all_its_words(tmp_path: Path) -> None:
    done = subprocess.run([compiled("raw_mover", tmp_path), "1"], check=False)
    assert done.returncode == 2


@pytest.mark.parametrize("way", ["touch", "allocate"])
def test_holder_counts_steps_and_finds_its_memory_whole(tmp_path: Path, way: str) -> None:
    command = [compiled("holder", tmp_path), "small", "1", "0", way]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            place = process.stdout.readline().split()
            process.send_signal(signal.SIGUSR1)
            lap = process.stdout.readline().split()
        finally:
            process.kill()
    if not place:
        pytest.skip("this kernel or container has no set_mempolicy")
    start, size = map(int, place)
    assert (start % (2 << 20), size) == (0, 1 << 20)
    longest, lost, steps, wrong = map(int, lap)
    assert steps > 0
    assert longest > 0
    assert lost == 0 or longest > 1_000_000
    assert wrong == 0
