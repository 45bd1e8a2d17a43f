# SPDX-License-Identifier: Apache-2.0
"""Kills a process (SIGKILL) as soon as a file of zoned's has come as far as it is to.

python3 -m tests.lab.guest_programs.kill PID FILE KEY least|most NUMBER ...

The file is JSON; what is under KEY in it has to have at least or at most so many entries, one step
after the other. Once the process is gone it prints how many there were. /run/kill.ready tells that
it looks.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

READY = Path("/run/kill.ready")
_PAUSE_SECONDS = 0.001


def entries(file: Path, key: str) -> int:
    """Return how many there are; a file that is not there has none."""
    try:
        return len(json.loads(file.read_text()).get(key, ()))
    except FileNotFoundError:
        return 0


def main() -> None:
    pid, file, key, *steps = sys.argv[1:]
    os.nice(-20)
    READY.touch()
    for bound, number in zip(steps[::2], map(int, steps[1::2]), strict=True):
        while not _is_reached(bound, number, found := entries(Path(file), key)):
            time.sleep(_PAUSE_SECONDS)
    os.kill(int(pid), signal.SIGKILL)
    while Path(f"/proc/{pid}").exists():
        time.sleep(_PAUSE_SECONDS)
    # What it had done by then, which may be one step more.
    print(json.dumps({"when": found, "left": entries(Path(file), key)}))


def _is_reached(bound: str, number: int, found: int) -> bool:
    return found >= number if bound == "least" else found <= number


if __name__ == "__main__":
    main()
