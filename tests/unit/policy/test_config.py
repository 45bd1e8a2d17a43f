# SPDX-License-Identifier: Apache-2.0
"""The files in config/ are good, and the JSON schema beside them is fresh."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from zoned.model.policy import SystemReserve
from zoned.policy.load import load, load_text
from zoned.policy.schema import (
    HotplugSection,
    PolicyFile,
    SystemSection,
    ZoneSection,
    json_schema,
)

CONFIG = Path(__file__).parents[3] / "config"
EXAMPLES = sorted((CONFIG / "examples").glob("*.yaml"))


def test_default_policy_fits_any_machine() -> None:
    policy = load([CONFIG])
    assert policy.zones == ()
    assert policy.reserve == SystemReserve()


def test_default_policy_with_everything_uncommented() -> None:
    text = (CONFIG / "zones.d/10-default.yaml").read_text()
    head, _, body = text.partition("\nsystem:")
    assert head.startswith("# SPDX")
    body = re.sub(r"^( +)# (?=\w+:| )", r"\1", "system:" + body, flags=re.MULTILINE)
    policy = load_text(body, "f")
    assert [zone.name for zone in policy.zones] == ["db"]
    assert sorted(policy.reserve.nodes) == [0, 1]


def test_there_are_examples() -> None:
    assert [path.stem for path in EXAMPLES] == ["database", "hpc", "vm"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path: Path) -> None:
    assert load_text(path.read_text(), path.name).zones


def test_examples_show_every_key() -> None:
    text = "".join(path.read_text() for path in EXAMPLES)
    for section in (PolicyFile, SystemSection, HotplugSection, ZoneSection):
        for key in section.model_fields:
            assert re.search(rf"^ *{key}:", text, re.MULTILINE), key


def test_schema_is_fresh() -> None:
    assert (CONFIG / "zoned.schema.json").read_text() == json_schema(), "zonectl schema > it"


def test_schema_describes_every_key() -> None:
    schema = json.loads(json_schema())
    sections = [schema, *(one for one in schema["$defs"].values() if "properties" in one)]
    assert len(sections) == 4
    for section in sections:
        assert section["additionalProperties"] is False
        assert all(key["description"] for key in section["properties"].values())
