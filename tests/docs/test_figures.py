"""The README's measured figures are those of docs/performance.md: a range over its columns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The README's row, and the row of the page that it is made from.
ROWS = {
    "a task woken from another thread": "a task woken from another thread, run to its end",
    "`block_on` inside a running task": "`block_on` nested in a task",
    "an item through an unbounded `Queue` between two loops": (
        "an unbounded `Queue` between two loops"
    ),
}
FIGURE = re.compile(r"\d\.\d+")


def row(page: Path, first: str) -> str:
    """The cells after the first one of a table's row."""
    found = re.search(rf"^\| {re.escape(first)} \|(.*)$", page.read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("shown", ROWS)
def test_range(shown: str):
    measured = FIGURE.findall(row(ROOT / "docs" / "performance.md", ROWS[shown]))
    claimed = FIGURE.findall(row(ROOT / "README.md", shown))
    assert claimed == [min(measured), max(measured)]
