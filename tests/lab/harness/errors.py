# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with the lab itself, as opposed to a test that runs in it.

LabError
├── LabUnavailable   this host cannot have a lab (a tool, a right or the network is missing)
├── LabLost          the guest died, or stopped to answer; says nothing about the code under test
└── CommandFailed    a command in the guest ended with an error, and its caller wanted success
"""

import shlex
import subprocess


class LabError(Exception):
    """Any trouble of the lab."""


class LabUnavailable(LabError):
    """This host cannot build or start a guest; the message says what is missing."""


class LabLost(LabError):
    """The guest is gone. The message ends with the last lines of its console."""


class CommandFailed(LabError):
    """A command in the guest ended with a status other than 0."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.done = done
        super().__init__(
            f"{shlex.join(done.args)} in the guest: status {done.returncode}\n"
            f"--- stdout\n{done.stdout}--- stderr\n{done.stderr}"
        )
