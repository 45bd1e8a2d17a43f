# SPDX-License-Identifier: Apache-2.0
"""The guests that a session keeps."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from tests.lab.harness.errors import LabLost
from tests.lab.harness.lab import Lab, check_clock

if TYPE_CHECKING:
    from tests.lab.harness.guest import Guest


class FakeGuest:
    """Remembers whether it was ended."""

    ended = False

    def close(self) -> None:
        self.ended = True


@pytest.fixture
def fake() -> FakeGuest:
    return FakeGuest()


@pytest.fixture
def lab(tmp_path: Path, fake: FakeGuest, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab that has a guest running; it can boot no other."""
    lab = Lab(tmp_path)
    monkeypatch.setattr(lab, "boot", lambda *_, **__: cast("Guest", fake))
    return lab


def test_a_clean_guest_stays(lab: Lab, fake: FakeGuest) -> None:
    guest = lab.guest("trixie", "one_node")
    with lab.kept_if_clean(guest):
        pass
    assert not fake.ended
    assert lab.guest("trixie", "one_node") is guest


def test_a_guest_that_cannot_be_cleaned_up_is_ended(
    lab: Lab, fake: FakeGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = lab.guest("trixie", "one_node")
    with pytest.raises(RuntimeError, match="stuck"), lab.kept_if_clean(guest):
        raise RuntimeError("a zone is stuck")
    assert fake.ended
    other = FakeGuest()
    monkeypatch.setattr(lab, "boot", lambda *_, **__: cast("Guest", other))
    assert lab.guest("trixie", "one_node") is cast("Guest", other)


@pytest.mark.parametrize(("uptime", "is_right"), [(13.1, True), (17.0, True), (39.4, False)])
def test_a_clock_that_runs_too_fast_is_found_out(uptime: float, *, is_right: bool) -> None:
    with contextlib.nullcontext() if is_right else pytest.raises(LabLost, match="too fast"):
        check_clock(uptime, 15.0)
