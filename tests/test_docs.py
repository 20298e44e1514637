"""The ```python blocks of README.md and docs/*.md are whole programs: each runs as it stands.

A block that cannot run says so where a reader of the source sees it: ```python no-run
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    """Where each block begins, and its code."""
    return [
        (f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, block.start()) + 1}", block["code"])
        for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
        for text in [page.read_text()]
        for block in BLOCK.finditer(text)
    ]


@pytest.mark.parametrize("block", blocks(), ids=lambda block: block[0])
def test_block_runs(block: tuple[str, str], tmp_path: Path):
    program = tmp_path / "example.py"
    program.write_text(block[1])
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
