"""Each place that puts an entry into a mailbox is listed in mailbox.py, and looks and rings."""

from __future__ import annotations

import ast
import copy
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import homebound
from homebound._core import mailbox

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(homebound.__file__).parent
PUTS = {"append", "appendleft", "extend", "extendleft", "insert"}

Site = tuple[str, str]


def listed() -> tuple[set[Site], set[Site]]:
    """Return the places that the docstring lists: those that ring, and the home's own."""
    posts, own = (mailbox.__doc__ or "").split("The home is awake")
    row = re.compile(r"^    (_\w+/\w+\.py) +([\w.]+)", re.MULTILINE)
    return set(row.findall(posts)), set(row.findall(own))


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Return a module's functions by qualified name; a nested one also counts for the outer."""
    for node in ast.iter_child_nodes(tree):
        name = getattr(node, "name", "") if not isinstance(node, ast.ExceptHandler) else ""
        inner = f"{prefix}{name}." if name else prefix
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield inner[:-1], node
        yield from functions(node, inner)


def is_mailbox(node: ast.AST, names: set[str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in names
    return isinstance(node, ast.Attribute) and node.attr == "_ready"


def puts(function: ast.AST) -> list[ast.Attribute]:
    """Return where it names a method that puts something into a mailbox, by any variable."""
    names: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and is_mailbox(node.value, names):
            names |= {each.id for each in node.targets if isinstance(each, ast.Name)}
    return [
        node
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and node.attr in PUTS and is_mailbox(node.value, names)
    ]


def lines_of(function: ast.AST, attribute: str) -> list[int]:
    return [
        node.lineno
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and node.attr == attribute
    ]


class _WithoutReturns(ast.NodeTransformer):
    """Drops the branches that return, and put nothing into a mailbox."""

    def visit_If(self, node: ast.If) -> ast.AST:
        if isinstance(node.body[-1], ast.Return) and not puts(node):
            return ast.Pass(lineno=node.lineno)
        return self.generic_visit(node)


SITES = {
    (path.relative_to(PACKAGE).as_posix(), name): function
    for path in PACKAGE.rglob("*.py")
    for name, function in functions(ast.parse(path.read_text()))
    if puts(function)
}


def test_each_place_is_listed():
    posts, own = listed()
    assert SITES.keys() == posts | own
    assert not posts & own


@pytest.mark.parametrize("site", sorted(listed()[0]), ids=":".join)
def test_a_post_appends_then_looks_then_rings(site: Site):
    function = _WithoutReturns().visit(copy.deepcopy(SITES[site]))
    appended = max(node.lineno for node in puts(function))
    looked, rung = lines_of(function, "_bell"), lines_of(function, "_ring")
    assert looked
    assert rung
    assert appended < min(looked) < min(rung)


@pytest.mark.parametrize("site", sorted(listed()[1]), ids=":".join)
def test_the_home_does_not_ring_for_itself(site: Site):
    assert not lines_of(SITES[site], "_bell")


@pytest.mark.parametrize(
    "planted",
    [
        "def wake(home, task):\n    home._ready.append(task)",
        "def wake(home, task):\n    queue = home._ready\n    queue.appendleft(task)",
        "def wake(home, task):\n    push = home._ready.append\n    push(task)",
        "class Waker:\n    def wake(self):\n        pour(self.left, take, self._ready.extend)",
    ],
)
def test_a_place_that_is_not_listed_is_found(planted: str):
    ((name, function),) = functions(ast.parse(planted))
    assert puts(function)
    assert name in {"wake", "Waker.wake"}
    assert not any(site[1] == name for site in SITES)
