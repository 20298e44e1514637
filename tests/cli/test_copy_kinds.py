"""copy, info and bench with disks that are no raw images: qcow2, and scripts."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from .programs import fail, succeed

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
SCRIPT = """
data = bytearray(4 << 20)
def size():
    return len(data)
def read(offset, length):
    return bytes(data[offset : offset + length])
def write(offset, new):
    data[offset : offset + len(new)] = new
"""
FAILING = """
def size():
    return 4 << 20
def read(offset, length):
    if offset <= 1_000_000 < offset + length:
        raise OSError(5, "bad sector")
    return b"x" * length
"""


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "raw.img"
    path.write_bytes(bytes(MIB) + random.Random(1).randbytes(2 * MIB) + bytes(MIB))
    return path


@pytest.mark.peers
@pytest.mark.parametrize("options", [[], ["-c"]])
def test_a_qcow2_image(raw: Path, tmp_path: Path, options: list[str]):
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed")
    image, target = tmp_path / "disk.qcow2", tmp_path / "target.img"
    command = ["qemu-img", "convert", *options, "-O", "qcow2", str(raw), str(image)]
    subprocess.run(command, check=True)
    succeed("copy", image, target, "--verify")
    assert target.read_bytes() == raw.read_bytes()
    assert target.stat().st_blocks * 512 <= 2.5 * MIB
    [facts] = json.loads(succeed("info", image, "--json"))["exports"]
    assert (facts["format"], facts["export-size"], facts["is_read_only"]) == (
        "qcow2",
        4 * MIB,
        True,
    )
    first, *_ = json.loads(succeed("info", image, "--map", "--json"))
    assert (first["length"], first["description"]) == (MIB, "hole,zero")
    assert "it is read-only" in fail("bench", image, "--write")


def test_a_script(raw: Path, tmp_path: Path):
    script = tmp_path / "disk.py"
    script.write_text(SCRIPT)
    succeed("copy", raw, script, "--verify")
    target = tmp_path / "target.img"
    succeed("copy", script, target)
    assert target.read_bytes() == bytes(4 * MIB)
    assert succeed("info", script, "--can", "write") == ""


def test_a_script_that_cannot_read_a_block(tmp_path: Path):
    script = tmp_path / "disk.py"
    script.write_text(FAILING)
    line = fail("copy", script, tmp_path / "target.img")
    assert line.startswith(
        f"homebound: cannot read {str(script)!r} at offset {1_000_000 & ~4095}: "
    )
    assert "bad sector" in line
