"""Formats told by their first bytes, on images that qemu-img makes."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from homebound.block._probe import probe

if TYPE_CHECKING:
    from pathlib import Path

FORMATS = ["raw", "qcow", "qcow2", "qed", "vmdk", "vhdx", "vdi", "vpc", "parallels"]


@pytest.mark.peers
@pytest.mark.parametrize("name", FORMATS)
def test_what_qemu_makes(tmp_path: Path, name: str):
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img (Debian: qemu-utils) is not installed")
    image = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", name, image, "1M"], check=True, timeout=50)
    assert probe(image) == name


@pytest.mark.peers
@pytest.mark.parametrize("options", [["-o", "compat=0.10"], ["-o", "compat=1.1"]])
def test_both_versions_of_qcow2(tmp_path: Path, options: list[str]):
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img (Debian: qemu-utils) is not installed")
    image = tmp_path / "image"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", *options, str(image), "1M"]
    subprocess.run(command, check=True, timeout=50)
    assert probe(image) == "qcow2"


@pytest.mark.parametrize(
    "head", [b"", b"Q", b"QFI", bytes(4096), b"\x7f\x10\xda\xbe", b"\xff" * 600]
)
def test_anything_else_is_raw(tmp_path: Path, head: bytes):
    (tmp_path / "image").write_bytes(head)
    assert probe(tmp_path / "image") == "raw"


def test_what_cannot_be_read_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        probe(tmp_path / "image")
