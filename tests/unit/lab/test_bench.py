# SPDX-License-Identifier: Apache-2.0
"""The pure half of the benchmark: statistics, the shape of the JSON, and the registry."""

import json

import pytest

from tests.lab.bench import imports
from tests.lab.bench.guest_side import rounds_of
from tests.lab.bench.measure import Spread, compare, compare_all, spread, to_json
from tests.lab.bench.scenarios import SCENARIOS, scenario

# As `python -X importtime` prints it, with a line of the program's own in between.
IMPORTS = """\
import time: self [us] | cumulative | imported package
import time:       100 |        100 |     base64
import time:       300 |        400 |   ssl
a warning of the program
import time:        50 |        450 | asyncio
"""


def test_spread_is_median_and_quartiles() -> None:
    assert spread([5, 1, 4, 2, 3]) == Spread(median=3, q1=2, q3=4, n=5)
    assert spread([1, 2, 3, 100]) == Spread(median=2.5, q1=1.75, q3=27.25, n=4)


def test_one_value_is_its_own_spread() -> None:
    assert spread([7.0]) == Spread(median=7.0, q1=7.0, q3=7.0, n=1)


def test_nothing_has_no_spread() -> None:
    with pytest.raises(ValueError, match="nothing to summarise"):
        spread([])


def test_ratios_are_taken_within_each_round() -> None:
    # The machine became ten times slower in the last two rounds, for both.
    samples = {"zonectl": [2.0, 20.0, 20.0], "peer": [1.0, 10.0, 10.0]}
    figure = compare(samples, "zonectl", "peer")
    assert figure.ratio == Spread(median=2.0, q1=2.0, q3=2.0, n=3)
    assert figure.values["zonectl"].median == 20.0
    assert figure.values["peer"].median == 10.0


def test_median_of_ratios_is_not_the_ratio_of_medians() -> None:
    figure = compare({"a": [1.0, 9.0, 3.0], "b": [1.0, 3.0, 6.0]}, "a", "b")
    assert figure.ratio is not None
    assert figure.ratio.median == 1.0


def test_peer_that_used_nothing_has_no_ratio() -> None:
    figure = compare({"zoned": [4.0], "peer": [0.0]}, "zoned", "peer", "wakeups")
    assert figure.ratio is None
    assert figure.unit == "wakeups"
    assert figure.values["zoned"].median == 4.0


def test_contestants_must_have_met() -> None:
    with pytest.raises(ValueError, match="a has 2 rounds, b has 1"):
        compare({"a": [1.0, 2.0], "b": [1.0]}, "a", "b")


def test_json_has_every_figure_with_ratio_and_medians() -> None:
    samples = {"a": [2.0, 4.0], "b": [1.0, 2.0], "c": [3.0, 3.0]}
    found = json.loads(to_json({"figures": compare_all(samples, [("a", "b"), ("a", "c")])}))
    assert found["figures"][0] == {
        "subject": "a",
        "peer": "b",
        "ratio": {"median": 2.0, "q1": 2.0, "q3": 2.0, "n": 2},
        "unit": "s",
        "values": {
            "a": {"median": 3.0, "q1": 2.5, "q3": 3.5, "n": 2},
            "b": {"median": 1.5, "q1": 1.25, "q3": 1.75, "n": 2},
        },
    }
    assert found["figures"][1]["peer"] == "c"


def test_json_does_not_pretend_more_digits_than_were_measured() -> None:
    assert json.loads(to_json([1 / 3, 123456.0, 5, None, "x"])) == [0.3333, 123500.0, 5, None, "x"]


def test_every_contestant_runs_in_every_round_and_the_order_turns() -> None:
    ran: list[str] = []
    contestants = {"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}
    samples = rounds_of(3, contestants, warm_up=1)
    assert {name: len(values) for name, values in samples.items()} == {"a": 3, "b": 3}
    assert "".join(ran) == "ab" + "ba" + "ab" + "ba"


def test_import_times_are_read() -> None:
    found = imports.parse(IMPORTS)
    assert [each.module for each in found] == ["base64", "ssl", "asyncio"]
    assert [each.depth for each in found] == [2, 1, 0]
    assert imports.seconds(found) == pytest.approx(450e-6)
    assert [each.module for each in imports.slowest(found, 2)] == ["asyncio", "ssl"]
    assert imports.slowest(found)[1].own == pytest.approx(300e-6)


def test_scenarios_are_known_by_name_and_none_replaces_another() -> None:
    assert {"list", "topology", "create-destroy", "idle"} <= set(SCENARIOS)
    with pytest.raises(ValueError, match="two scenarios list"):
        scenario("list", "again")(SCENARIOS["list"].run)
