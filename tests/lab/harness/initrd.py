# SPDX-License-Identifier: Apache-2.0
"""A 5 MB initial ramdisk: busybox, the modules of a virtio disk, and a script.

The distribution's own takes several seconds more in an emulated guest.
Format: Documentation/driver-api/early-userspace/buffer-format.rst ("newc").
"""

import lzma
import stat
from pathlib import Path

_DIRECTORY = stat.S_IFDIR | 0o755
_PROGRAM = stat.S_IFREG | 0o755
_FILE = stat.S_IFREG | 0o644


def make_initrd(tree: Path, version: str, modules: tuple[str, ...], init: str) -> bytes:
    """Build the archive for one version of the kernel, from the files of the system in `tree`."""
    entries = [(name, _DIRECTORY, b"") for name in ("bin", "dev", "modules", "root")]
    entries.append(("bin/busybox", _PROGRAM, (tree / "usr/bin/busybox").read_bytes()))
    entries.append(("init", _PROGRAM, init.encode()))
    for number, path in enumerate(load_order(tree / "usr/lib/modules" / version, modules)):
        entries.append((f"modules/{number:03}.ko", _FILE, _module(path)))
    entries.append(("TRAILER!!!", 0, b""))
    return b"".join(_entry(number, *entry) for number, entry in enumerate(entries, 1))


def load_order(folder: Path, modules: tuple[str, ...]) -> list[Path]:
    """The files of `modules` and of what they need, each after its needs, below the `folder` of a
    kernel's modules.

    A name that modules.dep does not know is built into the kernel.
    """
    needs = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        path, _, words = line.partition(":")
        needs[path] = words.split()
    paths = {Path(path).name.split(".")[0]: path for path in needs}
    order: dict[str, None] = {}
    for name in modules:
        if name in paths:
            order |= dict.fromkeys([*reversed(needs[paths[name]]), paths[name]])
    return [folder / path for path in order]


def _module(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def _entry(number: int, name: str, mode: int, data: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08x" % value for value in fields)
    return _padded(header + encoded) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
