# SPDX-License-Identifier: Apache-2.0
"""A program that drives an edu device with a buffer of zoned's; it needs no rights of its own but
those to the buffer and to the device's registers. Runs with the interpreter that zoned is in.

PYTHON -m tests.lab.guest_programs.dma_client DEVICE SIZE     DMA both ways, told as JSON
"""

import json
import sys
from typing import Any

from tests.lab.guest_programs.edu import Edu, Place, exchange
from zoned import client


def exchange_with(device: str, size: int) -> dict[str, Any]:
    """Do DMA with all segments of a new buffer."""
    with client.allocate(size, device=device) as buffer:
        return _moved(Edu(device), buffer)


def _moved(edu: Edu, buffer: client.Buffer) -> dict[str, Any]:
    # The views have to be gone before the buffer is closed.
    return exchange(
        edu,
        [
            Place(physical=each.address, view=memoryview(buffer.map(each)))
            for each in buffer.segments
        ],
    )


def main(device: str, size: str) -> None:
    """Do DMA with a buffer of so many bytes; print what came of it."""
    print(json.dumps(exchange_with(device, int(size))))


if __name__ == "__main__":
    main(*sys.argv[1:])
