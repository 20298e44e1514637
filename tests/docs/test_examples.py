"""The ```python blocks of README.md, docs/*.md and docs/guides/*.md are whole programs.

Each runs as it stands.
A comment beside `print` is the beginning of what that prints: print(await task)  # 21
Prose there has a colon or a comma.

A block that cannot run says so in the source: ```python no-run
One that needs an extra names the module, and is skipped without it: ```python needs uvloop
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .programs import run_program

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"^```python(?: needs (?P<needs>[\w.]+))?\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
PRINTS = re.compile(r"^ *print\(.*\)  # ([^:,\n]+)$", re.MULTILINE)  # and what is printed


def blocks() -> list[tuple[str, str, str | None]]:
    """Return where each block begins, its code, and the module that it needs."""
    return [
        (
            f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, block.start()) + 1}",
            block["code"],
            block["needs"],
        )
        for page in [
            ROOT / "README.md",
            *sorted((ROOT / "docs").glob("*.md")),
            *sorted((ROOT / "docs" / "guides").glob("*.md")),
        ]
        for text in [page.read_text()]
        for block in BLOCK.finditer(text)
    ]


@pytest.mark.parametrize("block", blocks(), ids=lambda block: block[0])
def test_block_runs(block: tuple[str, str, str | None], tmp_path: Path):
    if block[2] is not None:
        pytest.importorskip(block[2])
    program = tmp_path / "example.py"
    program.write_text(block[1])
    printed = "\n" + run_program(program, cwd=tmp_path).stdout
    assert [text for text in PRINTS.findall(block[1]) if f"\n{text}" not in printed] == []
