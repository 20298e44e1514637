"""Each link of a page leads somewhere, and each column of a table has a heading."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^()\s]+)\)")
HEADING = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)
HEAD = re.compile(r"^(\|.*\|)\n\|[ :|-]+\|$", re.MULTILINE)
ELSEWHERE = re.compile(r"https?://|mailto:")


def links(page: Path) -> list[str]:
    text = CODE.sub("", page.read_text())
    return [link["target"] for link in LINK.finditer(text)]


@cache
def anchors(page: Path) -> set[str]:
    """The headings of a page as a code host names them: repeated ones with a number."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    names: Counter[str] = Counter()
    found = set()
    for heading in HEADING.finditer(text):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading["text"])
        name = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        found.add(f"{name}-{names[name]}" if names[name] else name)
        names[name] += 1
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    broken = []
    for target in links(page):
        if ELSEWHERE.match(target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        inside = there.is_relative_to(ROOT) and there.exists()
        if not inside or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_column_has_a_heading(page: Path):
    """A screen reader names the column of each cell."""
    heads = HEAD.findall(CODE.sub("code", page.read_text()))
    assert [head for head in heads if re.search(r"\|\s*\|", head)] == []


def test_there_are_tables():
    assert sum(len(HEAD.findall(page.read_text())) for page in PAGES) > 20


def test_there_are_links():
    assert sum(len(links(page)) for page in PAGES) > 100
