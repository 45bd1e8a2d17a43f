# SPDX-License-Identifier: Apache-2.0
"""What may stand behind the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoned.errors import BadInput
from zoned.model.policy import Percent
from zoned.model.zone import Backing
from zoned.policy import values

if TYPE_CHECKING:
    from collections.abc import Callable

GIB = 1 << 30
ALL = (
    values.size,
    values.reserve,
    values.swap,
    values.node_list,
    values.cpus,
    values.near,
    values.backing,
    values.user,
    values.zone_name,
    values.node_id,
)


@pytest.mark.parametrize(
    ("function", "value", "result"),
    [
        (values.size, "64GiB", 64 * GIB),
        (values.size, " 1.5 G ", 3 * GIB // 2),
        (values.size, 4096, 4096),
        (values.reserve, "5%", Percent(hundredths=500)),
        (values.reserve, "12.5 %", Percent(hundredths=1250)),
        (values.reserve, " 0.07% ", Percent(hundredths=7)),
        (values.reserve, "90%", Percent(hundredths=9000)),
        (values.reserve, "0%", Percent(hundredths=0)),
        (values.reserve, 0, 0),
        (values.reserve, "0", 0),
        (values.reserve, "2GiB", 2 * GIB),
        (values.swap, "none", 0),
        (values.swap, 0, 0),
        (values.swap, "max", None),
        (values.swap, "2GiB", 2 * GIB),
        (values.node_list, 0, "0"),
        (values.node_list, "0,2", "0,2"),
        (values.node_list, " 0-3 ", "0-3"),
        (values.node_list, "all", "all"),
        (values.node_list, "!1", "!1"),
        (values.node_list, [2, 0, 1], "0-2"),
        (values.cpus, "local", "local"),
        (values.cpus, "none", "none"),
        (values.cpus, "0-3,8", "0-3,8"),
        (values.cpus, [1], "1"),
        (values.cpus, "0-8191", "0-8191"),
        (values.node_list, "0-1023", "0-1023"),
        (values.near, "cpu:3", "cpu:3"),
        (values.near, "node:0", "node:0"),
        (values.near, "pci:0000:3B:00.0", "pci:0000:3b:00.0"),
        (values.near, "netdev:enp3s0f0np0", "netdev:enp3s0f0np0"),
        (values.near, "block:nvme0n1", "block:nvme0n1"),
        (values.near, "zone:db", "zone:db"),
        (values.backing, "limit", Backing.LIMIT),
        (values.backing, "reserve", Backing.RESERVE),
        (values.user, "postgres", "postgres"),
        (values.user, "DOM\\joe@example.org", "DOM\\joe@example.org"),
        (values.zone_name, "a.b_c-1", "a.b_c-1"),
        (values.zone_name, "x" * 63, "x" * 63),
        (values.node_id, "0", 0),
        (values.node_id, "12", 12),
    ],
)
def test_good(function: Callable[[object], object], value: object, result: object) -> None:
    assert function(value) == result


@pytest.mark.parametrize(
    ("function", "value", "complaint"),
    [
        (values.size, "many", "'many' is no size"),
        (values.size, "0", "is zero"),
        (values.size, "5%", "'5%' is no size"),
        (values.size, 64, "64 is less than a page"),
        (values.size, -1, "'-1' is no size"),
        (values.size, True, "true is not a size"),
        (values.size, None, "nothing is not a size"),
        (values.size, [1], "a list is not a size"),
        (values.size, "9" * 39, "more than any machine has"),
        (values.size, "9" * 5000, "is not a size"),
        (values.size, "8388608TiB", "more than any machine has"),
        (values.reserve, "91%", "'91%' leaves too little"),
        (values.reserve, "90.01%", "leaves too little"),
        (values.reserve, "-5%", "'-5%' is no size"),
        (values.reserve, "5.123%", "is no size"),
        (values.reserve, 5, "5 is less than a page"),
        (values.reserve, False, "false is not a size or percentage"),
        (values.reserve, {}, "a mapping is not a size or percentage"),
        (values.swap, "some", "'some' is no size"),
        (values.swap, False, "false is not an amount of swap"),
        (values.swap, 5, "5 is less than a page"),
        (values.node_list, "", "'' is no list"),
        (values.node_list, "!", "'!' is no list"),
        (values.node_list, "a", "'a' is no list of numbers"),
        (values.node_list, "3-1", "'3-1' is no list of numbers"),
        (values.node_list, "local", "'local' is no list of numbers"),
        (values.node_list, [], "a list is no list"),
        (values.node_list, [0, "1"], "a list is no list"),
        (values.node_list, [0, -1], "a list is no list"),
        (values.node_list, True, "true is no list"),
        (values.node_list, "0," * 1000, "names more than any machine has"),
        (values.node_list, "0-1023,0-1023", "names more than any machine has"),
        (values.node_list, "1023-0,0-1023", "names more than any machine has"),
        (values.node_list, 1024, "no machine has a number 1024"),
        (values.cpus, "0-8192", "names more than any machine has"),
        (values.cpus, "8192", "no machine has a number 8192"),
        (values.cpus, "locl", "'locl' is no list of numbers"),
        (values.cpus, None, "nothing is no list"),
        (values.near, "node", "'node' is nothing to be near"),
        (values.near, "disk:sda", "'disk:sda' is nothing to be near"),
        (values.near, 1, "1 is nothing to be near"),
        (values.near, "node:x", "'x' is not the number of a node"),
        (values.near, "cpu:-1", "'-1' is not the number of a CPU"),
        (values.near, "pci:3b:00.0", "'3b:00.0' is no PCI address"),
        (values.near, "netdev:", "'' is not the name of a network interface"),
        (values.near, "netdev:..", "'..' is not the name of a network interface"),
        (values.near, "block:../sda", "'../sda' is not the name of a block device"),
        (values.near, "zone:A", "'A' is no name for a zone"),
        (values.backing, "blocked", "'blocked' is no backing"),
        (values.backing, ["limit"], "a list is no backing"),
        (values.user, "", "'' is no user's name"),
        (values.user, "-x", "'-x' is no user's name"),
        (values.user, "a b", "'a b' is no user's name"),
        (values.user, "a:b", "'a:b' is no user's name"),
        (values.user, "1000", "'1000' is no user's name"),
        (values.user, 1000, "1000 is no user's name"),
        (values.user, "x" * 257, "is no user's name"),
        (values.zone_name, "Db", "'Db' is no name for a zone"),
        (values.zone_name, "x" * 64, "is no name for a zone"),
        (values.zone_name, "x" * 5000, "is no name for a zone"),
        (values.zone_name, 1, "1 is no name for a zone"),
        (values.node_id, "01", "'01' is no node"),
        (values.node_id, "0-1", "'0-1' is no node"),
        (values.node_id, 0, "0 is no node"),
    ],
)
def test_bad(function: Callable[[object], object], value: object, complaint: str) -> None:
    with pytest.raises(BadInput) as caught:
        function(value)
    assert complaint in caught.value.message
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("function", ALL)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)
    )
)
def test_anything_is_judged(function: Callable[[object], object], value: object) -> None:
    message = ""
    try:
        function(value)
    except BadInput as error:
        message = error.message
    assert message.isprintable()
