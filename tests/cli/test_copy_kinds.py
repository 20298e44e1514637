"""copy, info and bench with disks that are no raw images: qcow2, and scripts."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from .programs import fail, homebound, need, succeed

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


@pytest.fixture
def snapshot(raw: Path, tmp_path: Path) -> Path:
    """A qcow2 image of 6 MiB on a qcow2 image on a raw one of 4 MiB."""
    need("qemu-img", "qemu-io")
    middle, top = tmp_path / "middle.qcow2", tmp_path / "top.qcow2"

    def create(path: Path, below: Path, kind: str) -> None:
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", kind]
        subprocess.run([*map(str, command), str(path), "6M"], check=True)

    def write(path: Path, *commands: str) -> None:
        options = [part for each in commands for part in ("-c", each)]
        subprocess.run(["qemu-io", "-f", "qcow2", *options, path], check=True, capture_output=True)

    create(middle, raw, "raw")
    write(middle, "write -P 1 0 64k", "write -P 2 5M 64k")
    create(top, middle, "qcow2")
    write(top, "write -P 3 64k 64k", "write -z 1M 1M")
    return top


@pytest.mark.peers
def test_a_qcow2_image_with_backing_files(snapshot: Path, tmp_path: Path):
    target, converted = tmp_path / "target.img", tmp_path / "converted.img"
    convert = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(snapshot), str(converted)]
    subprocess.run(convert, check=True)
    assert "homebound copy --source-format qcow2" in fail("copy", snapshot, target)
    out = succeed("copy", snapshot, target, "--source-format", "qcow2", "--verify", "--json")
    summary = json.loads(out.splitlines()[-1])
    assert target.read_bytes() == converted.read_bytes()
    # Of the raw image's noise, the half that the top has not zeroed; and three clusters.
    data = MIB + 3 * 65536
    assert (summary["written"], summary["zeroes"]) == (data, 6 * MIB - data)
    # What is zeroed at the top, or past the end of the raw image, is not read.
    assert (summary["size"], summary["read"]) == (6 * MIB, 3 * MIB + 65536)
    assert target.stat().st_blocks * 512 <= data + MIB
    done = homebound("copy", snapshot, "-", "--source-format", "qcow2")
    assert (done.returncode, done.stdout) == (0, converted.read_bytes())


@pytest.mark.peers
def test_a_backing_file_is_no_target(snapshot: Path, raw: Path, tmp_path: Path):
    before = raw.read_bytes()
    assert "denies it to others" in fail("copy", snapshot, raw, "--source-format", "qcow2")
    assert raw.read_bytes() == before
    state = tmp_path / "state"
    succeed("copy", snapshot, tmp_path / "other.img", "--source-format", "qcow2", "--resume", state)
    assert not state.exists()


@pytest.mark.peers
def test_the_bytes_of_a_qcow2_image(snapshot: Path, tmp_path: Path):
    succeed("copy", snapshot, tmp_path / "bytes", "--source-format", "raw")
    assert (tmp_path / "bytes").read_bytes() == snapshot.read_bytes()


@pytest.mark.parametrize("source", ["memory:1M", "-", "nbd://localhost/", "disk.py"])
def test_a_source_that_has_no_format(source: str, tmp_path: Path):
    line = fail("copy", source, tmp_path / "target", "--source-format", "qcow2", code=2)
    assert f"--source-format qcow2 is for an image; {source!r} is none" in line


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
