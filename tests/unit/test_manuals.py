# SPDX-License-Identifier: Apache-2.0
"""The manual pages build, and tell of every command, option, error, alert and policy key."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from zoned import __version__
from zoned.cli.main import cli
from zoned.errors import by_code
from zoned.model.alert import AlertCode
from zoned.model.dma.allot import DmaState
from zoned.model.dma.rung import Rung
from zoned.model.zone import Backing
from zoned.policy.schema import HotplugSection, SystemSection, ZoneSection
from zoned.policy.schema_dma import DmaSection, MatchSection, QuirkSection, ReservationSection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned.policy.grammar import Section

CHECKOUT = Path(__file__).resolve().parents[2]
MANUALS = CHECKOUT / "zoned/resources/man"
PAGES = {
    "man1/zonectl.1",
    "man5/zoned.yaml.5",
    "man7/zoned-zones.7",
    "man8/zoned.8",
}


def _source(page: str) -> str:
    return (MANUALS / f"{page}.rst").read_text(encoding="utf-8")


def _section(page: str, title: str) -> str:
    """Return what stands below a heading, up to the next one of its rank or higher."""
    found = re.search(
        rf"^{re.escape(title)}\n([=-])\1+\n(.*?)(?=^[^\n]+\n(?:=+|\1+)\n|\Z)",
        _source(page),
        re.DOTALL | re.MULTILINE,
    )
    assert found, f"{page} has no section {title!r}"
    return found[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    subprocess.run(
        [sys.executable, "-W", "error", CHECKOUT / "scripts/build-man", folder],
        check=True,
        capture_output=True,
    )
    return folder


def test_pages_build_without_a_warning(built: Path) -> None:
    found = {str(path.relative_to(built)) for path in built.rglob("*") if path.is_file()}
    assert found == PAGES


@pytest.mark.parametrize("page", sorted(PAGES))
def test_pages_name_themselves_and_the_version(built: Path, page: str) -> None:
    text = (built / page).read_text(encoding="utf-8")
    name, section = page.split("/")[1].rsplit(".", 1)
    heading = re.search(r'^\.TH "(.*?)" "(.*?)" "(.*?)" "(.*?)" "(.*?)"$', text, re.MULTILINE)
    assert heading, text[:500]
    assert heading[1].replace("\\-", "-") == name
    assert heading[2] == section
    assert heading[4] == __version__


@pytest.mark.parametrize("page", sorted(PAGES))
def test_troff_has_nothing_to_complain_of(built: Path, page: str) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    done = subprocess.run(
        ["groff", "-man", "-ww", "-z", "-Tutf8", built / page],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""


@pytest.mark.parametrize("code", sorted(by_code()))
def test_every_error_is_listed(code: str) -> None:
    assert f"``{code}``" in _section("zonectl.1", "ERRORS")


def test_no_error_is_listed_that_is_none() -> None:
    terms = re.findall(r"^``.*``$", _section("zonectl.1", "ERRORS"), re.MULTILINE)
    listed = {code for term in terms for code in re.findall(r"``(.+?)``", term)}
    assert listed == set(by_code())


def test_every_alert_is_listed() -> None:
    listed = re.findall(r"^``(.+)``$", _section("zoned-zones.7", "ALERTS"), re.MULTILINE)
    assert set(listed) == {code.value for code in AlertCode}


def test_every_exit_status_is_listed() -> None:
    section = _section("zonectl.1", "EXIT STATUS")
    listed = {int(status) for status in re.findall(r"^(\d+) ", section, re.MULTILINE)}
    assert listed == {0} | {error.exit_status for error in by_code().values()}


def test_every_backing_is_told() -> None:
    titles = re.findall(r"^(\S+)\n-+$", _source("zoned-zones.7"), re.MULTILINE)
    assert set(titles) == {backing.value for backing in Backing}


def test_every_rung_is_told_in_order() -> None:
    listed = re.findall(r"^``(.+)``$", _section("zoned-zones.7", "MEMORY FOR DEVICES"), re.M)
    assert listed == [rung.value for rung in Rung]


def test_every_state_of_a_reservation_is_told() -> None:
    text = _section("zonectl.1", "zonectl dma list [OPTION]...")
    assert all(f"``{state}``" in text for state in DmaState)


@pytest.mark.parametrize(
    ("title", "sections"),
    [
        ("system", [SystemSection]),
        ("hotplug", [HotplugSection]),
        ("zones", [ZoneSection]),
        ("dma", [DmaSection, QuirkSection, ReservationSection, MatchSection]),
    ],
)
def test_every_key_of_the_policy_is_told(title: str, sections: list[type[Section]]) -> None:
    told = re.findall(r"^``(\w+):``", _section("zoned.yaml.5", title), re.MULTILINE)
    assert told == [key for section in sections for key in section.key_names()]


def _commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from _commands(child, (*path, name))
    else:
        yield " ".join(path), command


COMMANDS = dict(_commands(cli, ("zonectl",)))


def _options(command: click.Command) -> set[str]:
    """Return the options of one command, less those that every command takes."""
    options = {
        name
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    }
    return options - _global_options()


def _global_options() -> set[str]:
    section = _section("zonectl.1", "GLOBAL OPTIONS")
    return {name for line in section.splitlines() if line[:2] == "``" for name in _named(line)}


def _named(text: str) -> set[str]:
    return set(re.findall(r"``(--[a-z-]+)``", text))


def _heading(name: str) -> str:
    found = re.search(rf"^{re.escape(name)}(?: [^a-z\n].*)?(?=\n-+$)", _source("zonectl.1"), re.M)
    assert found, f"zonectl(1) has no section for `{name}`"
    return found[0]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_its_options_are_told(name: str) -> None:
    section = _section("zonectl.1", _heading(name))
    told = {option for line in section.splitlines() for option in _named(line) if line[:2] == "``"}
    assert told == _options(COMMANDS[name])


def test_no_command_is_told_that_does_not_exist() -> None:
    headings = re.findall(
        r"^(zonectl [^A-Z\[\n]+?)(?: [A-Z\[].*)?\n-+$", _source("zonectl.1"), re.M
    )
    assert set(headings) == set(COMMANDS)


def test_every_global_option_is_told() -> None:
    own = {
        name
        for parameter in cli.params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    }
    assert own <= _global_options()
