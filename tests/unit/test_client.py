# SPDX-License-Identifier: Apache-2.0
"""zoned.client: what programs that drive devices use."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import zoned.client
from tests.unit.cli.conftest import daemon, zonectl  # noqa: F401 - fixtures
from tests.unit.engine.dma.fakes import DAX_BASE, add_dax
from tests.unit.fake_huge import HUGE
from zoned.client import Buffer, Segment, allocate
from zoned.daemon import buffers as buffers_module
from zoned.errors import BadSize, NoDaemon, NoSuchReservation, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.cli.conftest import Daemon


@pytest.fixture
def get(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Buffer]:  # noqa: F811
    """Return what allocates of a region of which 4 and 8 huge pages follow each other."""
    monkeypatch.setattr(buffers_module, "FIRST_LOOK", 0.01)
    monkeypatch.setenv("ZONED_SOCKET", str(daemon.socket))
    add_dax(daemon.engine.machine, daemon.world.folder)

    def found(size: int | str, **more: Any) -> Buffer:
        return allocate(size, **({"reservation": "scsi"} | more))

    return found


def target(descriptor: int) -> Path | None:
    """Return what a descriptor is open for; the daemon beside may have got its number since."""
    link = Path(f"/proc/self/fd/{descriptor}")
    return link.readlink() if link.is_symlink() else None


def test_buffer(get: Callable[..., Buffer], daemon: Daemon) -> None:  # noqa: F811
    with get("5MiB", reservation=None, device="04:00.0") as buffer:
        assert buffer.size == 3 * HUGE
        assert buffer.segments == (
            Segment(address=DAX_BASE + 4 * HUGE, size=3 * HUGE, offset=4 * HUGE),
        )
        assert (buffer.reservation, buffer.lease, buffer.granule) == ("scsi", 1, HUGE)
        assert (buffer.fileno(), buffer.dmabuf_fd) == (buffer.fd, None)
        assert not os.get_inheritable(buffer.fd)
        memory = buffer.map()
        memory[-1:] = b"x"
        with buffer.map(buffer.segments[0]) as again:
            assert again[3 * HUGE - 1 :] == b"x"
        descriptor, file = buffer.fd, target(buffer.fd)
        lease = daemon.engine.machine.ledger.touched.leases[1]
        assert (lease.pid, lease.ending) == (os.getpid(), False)
    assert memory.closed
    # Memory from anywhere else would be worse than none.
    with pytest.raises(UsageError, match="was closed"):
        buffer.map()
    assert buffer.fd == -1
    assert file is not None
    assert target(descriptor) != file
    left = daemon.engine.machine.ledger.touched.leases
    assert 1 not in left or left[1].ending
    buffer.close()


def test_buffer_in_pieces_is_mapped_piece_by_piece(get: Callable[..., Buffer]) -> None:
    with get(10 * HUGE) as buffer:
        assert not buffer.contiguous
        with pytest.raises(UsageError, match="in 2 pieces"):
            buffer.map()
        sizes = [len(buffer.map(segment)) for segment in buffer.segments]
        assert sizes == [2 * HUGE, 8 * HUGE]


def test_buffer_that_somebody_looks_at_is_not_given_back(
    get: Callable[..., Buffer],
    daemon: Daemon,  # noqa: F811
) -> None:
    buffer = get(HUGE)
    view = memoryview(buffer.map())
    with pytest.raises(BufferError):
        buffer.close()
    assert target(buffer.fd)
    assert not daemon.engine.machine.ledger.touched.leases[1].ending
    view.release()
    buffer.close()
    assert buffer.fd == -1


def test_align_and_segments_are_handed_on(get: Callable[..., Buffer]) -> None:
    with get(HUGE, align="16MiB", segments=1) as buffer:
        assert [each.address for each in buffer.segments] == [DAX_BASE + (1 << 28)]


def test_nobody_there_at_the_end(
    get: Callable[..., Buffer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = get(HUGE)
    monkeypatch.setattr(buffer, "_socket", tmp_path / "nowhere")
    descriptor, file = buffer.fd, target(buffer.fd)
    buffer.close()
    assert file is not None
    assert target(descriptor) != file


def test_errors(get: Callable[..., Buffer], tmp_path: Path) -> None:
    with pytest.raises(NoSuchReservation) as caught:
        get(HUGE, reservation="x")
    assert isinstance(caught.value, zoned.client.ZonedError)
    with pytest.raises(BadSize):
        get("much")
    with pytest.raises(NoDaemon):
        get(HUGE, socket=tmp_path / "nowhere")


def test_descriptors_of_an_error_are_closed(tmp_path: Path) -> None:
    """A daemon that sends descriptors with what is no buffer."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        read, write = os.pipe()

        def serve() -> None:
            with listener.accept()[0] as connection:
                connection.recv(65536)
                socket.send_fds(connection, [b'{"parameters":{"buffer":5}}\0'], [write])

        server = threading.Thread(target=serve)
        server.start()
        with pytest.raises(zoned.client.ZonedError, match="int as buffer"):
            allocate(1, reservation="x", socket=path)
        server.join()
    os.close(write)
    # The end of the pipe that was sent is open nowhere else.
    assert os.read(read, 1) == b""
    os.close(read)
