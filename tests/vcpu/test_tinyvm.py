"""The tiny PC of examples/tinyvm: its boot sector against the listing. tests/docs runs it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

TINYVM = Path(__file__).parents[2] / "examples" / "tinyvm"
HAS_ASSEMBLER = shutil.which("as") and shutil.which("ld")


@pytest.mark.skipif(not HAS_ASSEMBLER, reason="GNU as and ld are not installed")
def test_bytes_agree_with_the_listing(tmp_path: Path):
    code, binary = tmp_path / "boot.o", tmp_path / "boot.bin"
    made = subprocess.run(["as", "--32", TINYVM / "boot.s", "-o", code], check=False)
    if made.returncode:
        pytest.skip("this assembler is not for x86")
    linked: list[str | Path] = [
        "ld",
        "-m",
        "elf_i386",
        "-Ttext=0x7c00",
        "--oformat",
        "binary",
        code,
        "-o",
        binary,
    ]
    subprocess.run(linked, check=True)
    source = (TINYVM / "tinyvm.py").read_text()
    (literals,) = re.findall(r"BOOT_CODE = bytes\.fromhex\((.*?)\)", source, re.DOTALL)
    listed = bytes.fromhex("".join(re.findall(r'"([0-9a-f]+)"', literals)))
    assert binary.read_bytes() == listed.ljust(510, b"\0") + b"\x55\xaa"
