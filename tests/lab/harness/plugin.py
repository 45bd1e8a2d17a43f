# SPDX-License-Identifier: Apache-2.0
"""pytest: a guest that died is an error of the lab, not a failure of the test.

The test that met it is reported as "LAB LOST", the session stops, and pytest ends with the
status `LAB_LOST`. A test that failed is reported with what its guest logged.
"""

import subprocess
from collections.abc import Generator

import pytest

from tests.lab.harness.errors import LabError, LabLost
from tests.lab.harness.guest import Guest

LAB_LOST = 70
"""The exit status of a session that lost its lab (EX_SOFTWARE of sysexits.h)."""

_lost = pytest.StashKey[str]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.excinfo is not None and call.excinfo.errisinstance(LabLost):
        report.user_properties.append(("lab_lost", True))
        # The message has the console's end; a traceback through the harness tells nothing.
        report.longrepr = f"lab lost: {call.excinfo.value}"
        item.session.shouldstop = f"lab lost in {item.nodeid}"
    elif report.failed:
        report.sections += _logged(item)
    return report


def _logged(item: pytest.Item) -> list[tuple[str, str]]:
    """Return what the guests of a test logged last; or why that is not to be had."""
    values = getattr(item, "funcargs", {}).values()
    guests = {id(value): value for value in values if isinstance(value, Guest)}
    logs = []
    for guest in guests.values():
        if guest.ended:  # it could not be cleaned up
            continue
        try:
            logs.append(("log of the guest", guest.log()))
        except (LabError, subprocess.TimeoutExpired) as error:
            logs.append(("log of the guest", f"not to be had: {error}"))
    return logs


def pytest_report_teststatus(
    report: pytest.CollectReport | pytest.TestReport, config: pytest.Config
) -> tuple[str, str, str] | None:
    # Reports may come from another process (xdist), which turns tuples into lists.
    properties = [tuple(each) for each in getattr(report, "user_properties", ())]
    if ("lab_lost", True) in properties:
        config.stash[_lost] = report.nodeid
        return "error", "L", "LAB LOST"
    return None


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _lost in session.config.stash:
        session.exitstatus = LAB_LOST


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests of the lab that passed have printed: figures, which decide nothing."""
    told = [
        (report.nodeid, report.capstdout.strip())
        for report in terminalreporter.getreports("passed")
        if report.when == "call" and "tests/lab/" in report.nodeid and report.capstdout.strip()
    ]
    if told:
        terminalreporter.section("what the lab measured")
        for name, text in told:
            terminalreporter.line(f"{name}:")
            terminalreporter.line(text)
