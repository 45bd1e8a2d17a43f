# SPDX-License-Identifier: Apache-2.0
"""Ending the daemon at a step of its work that its own files tell of."""

import json

from tests.lab.following import last_job
from tests.lab.harness.guest import Guest
from tests.lab.harness.wait import wait_until
from tests.lab.loads import command
from tests.lab.reservations import LEDGER

STORE = "/var/lib/zoned/zones.json"
_READY = "/run/kill.ready"
_START = "systemctl reset-failed zoned; systemctl start zoned"


class Kill:
    """Ends the daemon (SIGKILL) as soon as what is under a key of its ledger has come to numbers.

    `steps` are reached one after the other: ``least 3`` is three entries or more.
    """

    def __init__(self, guest: Guest, key: str, *steps: str, file: str = LEDGER) -> None:
        self._guest = guest
        guest.check(["rm", "-f", _READY])
        pid = guest.check(["systemctl", "show", "-P", "MainPID", "zoned"]).strip()
        words = [word for step in steps for word in step.split()]
        self._process = guest.start(command(guest, "kill", pid, file, key, *words))
        wait_until(lambda: guest.exists(_READY), f"watching {key}")

    def during(self, *words: object) -> int:
        """Start this job, wait until the daemon is gone, start it again, and return the job's id.

        When this returns the daemon has looked at the machine once, and may work on the job again.
        """
        # It may be gone before it has answered.
        self._guest.run(["zonectl", *map(str, words), "--no-wait"])
        done = self._process.wait()
        assert done.returncode == 0, done
        print(f"\nkilled: {json.loads(done.stdout)}")
        self._guest.shell(_START)
        return last_job(self._guest)
