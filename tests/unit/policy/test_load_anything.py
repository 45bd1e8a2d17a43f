# SPDX-License-Identifier: Apache-2.0
"""Whatever a policy file holds: it is a policy, or an error for people."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.policy.anything import check_only_policy_errors, documents

WORD_LIST = r"""
system zones reserve nodes size near db backing cpus users limit none max true null 5% 2GiB 0,2
zone:db node:1 ~ - ? : , [ ] { } & * ! | > ' " % @ # << = &a *a !!str !!set --- ... \
\U99999999 \ud800 %YAML %TAG 1.1
"""
WORDS = st.sampled_from([*WORD_LIST.split(), "\n", "\t"])
LIKE_YAML = st.lists(st.tuples(WORDS, st.sampled_from(["", " ", "\n", "\n  ", "\n    "]))).map(
    lambda parts: "".join(word + gap for word, gap in parts)
)
PLAIN = documents(WORDS)


@given(st.text())
@example("\ud800")
@example("\x00")
def test_any_text_is_judged(text: str) -> None:
    check_only_policy_errors(text)


@given(LIKE_YAML)
@example("%YAML 1." + "9" * 5000 + "\n--- a")
@example("a: !<tag:yaml.org,2002:int> x")
def test_anything_like_yaml_is_judged(text: str) -> None:
    check_only_policy_errors(text)


@given(PLAIN)
def test_any_document_is_judged(data: object) -> None:
    import yaml

    check_only_policy_errors(yaml.safe_dump({"zones": {"db": data}, "system": data}))
    check_only_policy_errors(yaml.safe_dump(data, default_flow_style=True))
