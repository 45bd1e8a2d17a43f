# SPDX-License-Identifier: Apache-2.0
"""What is shipped is complete and agrees with itself."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import zoned
from zoned.api.client import SOCKET
from zoned.daemon.service import MARKS
from zoned.model.dma.marks import ANY_DEVICE
from zoned.policy.files import DIRECTORIES, DROP_INS

CHECKOUT = Path(__file__).resolve().parents[2]
TOP_LEVEL = {
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "config",
    "pyproject.toml",
    "requirements.lock",
    "scripts",
    "systemd",
    "tests",
    "zoned",
}
LOCKS = {"requirements.lock": ("build",), "tests/requirements.lock": ("build", "test")}


def _read(name: str) -> str:
    return (CHECKOUT / name).read_text(encoding="utf-8")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pins(lock: str) -> dict[str, list[str]]:
    """Return name -> the versions pinned; there can be one for each range of Pythons."""
    pins: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9_.-]+)==([^ ;]+)", _read(lock), re.MULTILINE):
        pins.setdefault(_normal(name), []).append(version)
    return pins


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _required(extras: tuple[str, ...]) -> dict[str, str]:
    """Return name -> the condition on its version, of what pyproject.toml asks for."""
    project = tomllib.loads(_read("pyproject.toml"))["project"]
    wanted = list(project["dependencies"])
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    matches = [re.fullmatch(r"([A-Za-z0-9_.-]+)(.*)", text) for text in wanted]
    return {_normal(match[1]): match[2] for match in matches if match}


def test_version_is_the_newest_entry_of_the_changelog() -> None:
    entries = re.findall(r"^## \[(\d[^\]]*)\]", _read("CHANGELOG.md"), re.MULTILINE)
    assert entries[0] == zoned.__version__


@pytest.mark.parametrize("lock", sorted(LOCKS))
def test_lock_has_what_the_project_asks_for(lock: str) -> None:
    pins = _pins(lock)
    for name, condition in _required(LOCKS[lock]).items():
        assert name in pins, f"{lock} lacks {name}: run scripts/lock"
        for version in map(_release, pins[name]):
            for least in re.findall(r">=([0-9.]+)", condition):
                assert version >= _release(least), f"{name}: run scripts/lock"
            for bound in re.findall(r"<([0-9.]+)", condition):
                assert version < _release(bound), f"{name}: run scripts/lock"


def test_locks_agree() -> None:
    tests = _pins("tests/requirements.lock")
    assert {name: tests.get(name) for name in _pins("requirements.lock")} == _pins(
        "requirements.lock"
    )


@pytest.mark.parametrize("lock", sorted(LOCKS))
def test_lock_pins_hashes_and_no_places(lock: str) -> None:
    text = _read(lock)
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == sum(map(len, _pins(lock).values()))
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in text
    assert not re.search(r"^\s*--(index|extra-index|find-links|trusted)", text, re.MULTILINE)


def _files() -> list[str]:
    """Return the files of the checkout, also those that are not yet added."""
    if shutil.which("git") is None or not (CHECKOUT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [name for name in done.stdout.splitlines() if (CHECKOUT / name).exists()]


def test_top_level_is_as_agreed() -> None:
    found = {name.split("/")[0] for name in _files()}
    assert {name for name in found if not name.startswith(".")} == TOP_LEVEL


@pytest.mark.parametrize("folder", ["scripts", ".ci"])
def test_scripts_can_be_run(folder: str) -> None:
    for name in _files():
        path = CHECKOUT / name
        if path.parent == CHECKOUT / folder and path.read_text(encoding="utf-8")[:2] == "#!":
            assert path.stat().st_mode & 0o111, f"{name} is not executable"


def _venv() -> str:
    venv = re.search(r"^venv=(.+)$", _read("scripts/places.sh"), re.MULTILINE)
    assert venv
    return venv[1]


@pytest.mark.parametrize("unit", ["zoned", "zoned-early"])
def test_units_start_what_up_installs(unit: str) -> None:
    text = _read(f"systemd/{unit}.service")
    started = re.findall(r"^Exec(?!Condition)\w+=(\S+)", text, re.MULTILINE)
    scripts = tomllib.loads(_read("pyproject.toml"))["project"]["scripts"]
    assert started
    assert set(started) <= {f"{_venv()}/bin/{name}" for name in scripts}


def test_the_udev_rule_runs_what_up_installs_before_drivers_are_loaded() -> None:
    name = re.search(r"^rules=.*/udev/rules\.d/(.+)$", _read("scripts/places.sh"), re.MULTILINE)
    assert name
    assert name[1] < "80-drivers.rules"
    (run,) = re.findall(r'^PROGRAM=="([^"]*)"', _read(f"systemd/{name[1]}"), re.MULTILINE)
    assert run == f"{_venv()}/bin/zonectl dma prepare $kernel"


def test_the_udev_rule_tests_for_what_the_daemon_keeps() -> None:
    rule = _read("systemd/70-zoned-dma.rules")
    tests = re.findall(r'^TEST[!=]="([^"]*)"', rule, re.MULTILINE)
    folder = f"/run/zoned/{MARKS}"
    identity = f"{folder}/$attr{{vendor}}"
    assert set(tests) == {
        SOCKET,
        f"{folder}/$kernel",
        identity,
        f"{identity}:$attr{{device}}",
        f"{folder}/{ANY_DEVICE}",
    }


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("dma:\n  reservations:\n    x: {}", 0),
        ('dma: {"reservations": {x: {}}}', 0),
        ("zones:\n  x: {size: 1GiB}", 1),
    ],
)
def test_the_early_unit_costs_a_boot_nothing_where_nothing_is_reserved(
    tmp_path: Path, text: str, status: int
) -> None:
    unit = _read("systemd/zoned-early.service")
    unit = unit.replace("\\\n", " ")
    found = re.search(r"^ExecCondition=(\S+ \S+ \S+) (.+)$", unit, re.MULTILINE)
    assert found
    folders = {f"{folder}/{DROP_INS}" for folder in DIRECTORIES}
    assert set(found[2].split()) == folders | {"/var/lib/zoned/dma.json"}
    shutil.copytree(CHECKOUT / "config/zones.d", tmp_path / "vendor")
    (tmp_path / "site.yaml").write_text(text)
    assert subprocess.run([*found[1].split(), tmp_path]).returncode == status
