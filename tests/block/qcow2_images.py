"""qcow2 images made by hand, also such as no program would make; and by qemu-img."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
FIELDS = [
    "magic",
    "version",
    "backing_offset",
    "backing_length",
    "cluster_bits",
    "size",
    "encryption",
    "l1_size",
    "l1_offset",
    "refcount_offset",
    "refcount_clusters",
    "snapshots",
    "snapshots_offset",
    "incompatible",
    "compatible",
    "autoclear",
    "refcount_order",
    "header_length",
]
BITS = 12
CLUSTER = 1 << BITS
ENTRIES = CLUSTER // 8
L1, L2, DATA = CLUSTER, 2 * CLUSTER, 3 * CLUSTER
COPIED, COMPRESSED = 1 << 63, 1 << 62
SHIFT = 62 - (BITS - 8)
BACKING_FORMAT = 0xE2792ACA
SIZE = 20 * CLUSTER + 100


def header(backing: str | None = None, form: str | None = "raw", **changes: int | bytes) -> bytes:
    """The first cluster; `changes` replace fields."""
    values = dict.fromkeys(FIELDS, 0) | {
        "magic": b"QFI\xfb",
        "version": 3,
        "cluster_bits": BITS,
        "size": SIZE,
        "l1_size": 1,
        "l1_offset": L1,
        "refcount_order": 4,
        "header_length": 104,
    }
    extensions = b""
    if backing is not None:
        values |= {"backing_offset": 2000, "backing_length": len(backing.encode())}
        if form is not None:
            extensions += struct.pack(">II", BACKING_FORMAT, len(form)) + form.encode()
            extensions += bytes(-len(extensions) % 8)
    values |= changes
    start = HEADER.pack(*(values[name] for name in FIELDS))
    found = bytearray(CLUSTER)
    length = 72 if values["version"] == 2 else 104
    found[: length + len(extensions)] = start[:length] + extensions
    if backing is not None:
        found[2000 : 2000 + len(backing.encode())] = backing.encode()
    return bytes(found)


def tables(entries: dict[int, int]) -> bytes:
    """The L1 table and one L2 table, a cluster each."""
    numbers = [entries.get(n, 0) for n in range(ENTRIES)]
    return struct.pack(f">{ENTRIES}Q", L2 | COPIED, *[0] * (ENTRIES - 1)) + struct.pack(
        f">{ENTRIES}Q", *numbers
    )


def deflated(cluster: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-12)
    return squeeze.compress(cluster) + squeeze.flush()


def at_compressed(offset: int, length: int) -> int:
    """The entry of a compressed cluster."""
    sectors = (offset + length - 1) // 512 - offset // 512
    return COMPRESSED | sectors << SHIFT | offset


def mixed() -> tuple[bytes, bytes]:
    """An image with each kind of cluster, and its disk."""
    one, two, three = b"1" * CLUSTER, bytes(range(256)) * (CLUSTER // 256), b"3" * CLUSTER
    small = deflated(two)
    squeezed = DATA + 3 * CLUSTER + 77
    entries = {
        0: DATA | COPIED,
        1: (DATA + CLUSTER) | COPIED,
        3: at_compressed(squeezed, len(small)),
        4: 1,
        5: (DATA + 2 * CLUSTER) | COPIED | 1,
        7: DATA + 2 * CLUSTER,
        20: DATA + CLUSTER,
    }
    disk = bytearray(SIZE)
    for n, cluster in ((0, one), (1, three), (3, two), (7, b"7" * CLUSTER)):
        disk[n * CLUSTER : (n + 1) * CLUSTER] = cluster
    disk[20 * CLUSTER :] = three[:100]
    data = one + three + b"7" * CLUSTER + bytes(77) + small
    return header() + tables(entries) + data, bytes(disk)


def qemu(*arguments: object) -> str:
    """Run one of QEMU's tools; skips where it is missing."""
    name = str(arguments[0])
    if shutil.which(name) is None:
        pytest.skip(f"{name} (Debian: qemu-utils) is not installed")
    command = list(map(str, arguments))
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
    return done.stdout


def contents(image: Path) -> bytes:
    """The disk in an image, as qemu-img converts it."""
    raw = image.with_name(image.name + ".raw")
    qemu("qemu-img", "convert", "-O", "raw", image, raw)
    return raw.read_bytes()
