# SPDX-License-Identifier: Apache-2.0
"""Documents of any shape, and what must come of each as a policy file."""

from __future__ import annotations

from hypothesis import strategies as st

from zoned.errors import PolicyError
from zoned.policy.load import load_text


def documents(words: st.SearchStrategy[str]) -> st.SearchStrategy[object]:
    """Return plain values of any shape, with these words for keys and strings."""
    return st.recursive(
        st.none() | st.booleans() | st.integers() | words,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
        max_leaves=15,
    )


def check_only_policy_errors(text: str) -> None:
    """Load the text; whatever is wrong must be told as it should be."""
    found: tuple[str, ...] = ("f:",)
    try:
        load_text(text, "f")
    except PolicyError as error:
        found = error.problems
    assert found
    assert all(one.startswith("f:") and one.isprintable() for one in found)
