# SPDX-License-Identifier: Apache-2.0
"""Buffers over the socket: who misbehaves harms nobody.

A device-dax region is a file here, so descriptors, mappings and processes are real.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.daemon.talk import request
from tests.unit.fake_huge import HUGE

if TYPE_CHECKING:
    from collections.abc import Callable
from tests.unit.daemon.buffer_scene import Scene, alloc_and_free, beside, free, open_files, run


def test_client_that_does_not_read_harms_nobody(scene: Scene) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lazy:
            lazy.settimeout(0)
            await loop.sock_connect(lazy, str(scene.socket))
            call = request("DmaBuffers.Alloc", reservation="scsi", size=HUGE)
            await loop.sock_sendall(lazy, call * 8)
            await scene.until(lambda: len(scene.lent) == 8)
            await beside(lambda: alloc_and_free(scene))
            await scene.until(lambda: len(scene.numbers) == 8)
        # The connection is gone, the program is not: its leases stand until it ends or frees them.
        for number in scene.numbers:
            await asyncio.to_thread(free, scene, number)
        await scene.all_back()

    run(scene, body)


def test_client_that_hangs_up_in_mid_call(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        gate = asyncio.Event()
        look = scene.desk._worker.look

        async def slow(work: Callable[[], Any]) -> Any:
            await gate.wait()
            return await look(work)

        monkeypatch.setattr(scene.desk._worker, "look", slow)
        _, writer = await asyncio.open_unix_connection(scene.socket)
        writer.write(request("DmaBuffers.Alloc", reservation="scsi", size=HUGE))
        await writer.drain()
        await scene.until(lambda: True)
        writer.transport.abort()
        gate.set()
        await scene.until(lambda: bool(scene.lent))
        await beside(lambda: free(scene, scene.numbers[0]))
        await scene.all_back()

    run(scene, body)


def test_who_wants_no_reply_gets_no_descriptor(scene: Scene) -> None:
    call = {
        "method": "io.zoned.DmaBuffers.Alloc",
        "parameters": {"reservation": "scsi", "size": HUGE},
        "oneway": True,
    }

    async def body() -> None:
        _, writer = await asyncio.open_unix_connection(scene.socket)
        writer.write(json.dumps(call).encode() + b"\0")
        await writer.drain()
        await scene.until(lambda: bool(scene.lent))
        await scene.until(lambda: str(scene.region) not in open_files())
        await beside(lambda: free(scene, scene.numbers[0]))
        await scene.all_back()
        writer.close()
        await writer.wait_closed()

    run(scene, body)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"size": HUGE}, "bad-input"),
        ({"size": HUGE, "reservation": "scsi", "device": "0000:04:00.0"}, "bad-input"),
        ({"size": HUGE, "reservation": "no"}, "no-such-reservation"),
        ({"size": HUGE, "device": "x" * 5000}, "no-such-reservation"),
        ({"size": 0, "reservation": "scsi"}, "bad-size"),
        ({"size": -HUGE, "reservation": "scsi"}, "bad-size"),
        ({"size": 1 << 70, "reservation": "scsi"}, "bad-size"),
        ({"size": 13 * HUGE, "reservation": "scsi"}, "pool-exhausted"),
        ({"size": 9 * HUGE, "reservation": "scsi", "segments": 1}, "pool-exhausted"),
        ({"size": HUGE, "reservation": "scsi", "segments": 0}, "usage"),
        ({"size": HUGE, "reservation": "scsi", "align": 3}, "usage"),
        ({"size": HUGE, "reservation": "scsi", "align": -4096}, "usage"),
        ({"size": HUGE, "reservation": "scsi", "align": 1 << 64}, "usage"),
        ({"size": HUGE, "reservation": "scsi", "align": 1 << 62}, "pool-exhausted"),
        ({"size": HUGE, "reservation": "scsi", "dmabuf": True}, "unsupported"),
    ],
)
def test_nonsense_is_refused_and_changes_nothing(
    scene: Scene, parameters: dict[str, Any], code: str
) -> None:
    def ask() -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
            raw.connect(str(scene.socket))
            raw.sendall(request("DmaBuffers.Alloc", **parameters))
            found: dict[str, Any] = json.loads(raw.recv(65536)[:-1])
            return found

    async def body() -> None:
        told = await beside(ask)
        assert told["parameters"]["code"] == code
        await scene.all_back()

    run(scene, body)
