"""Each repair that is written out where an exception was caught is listed in surely.py."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import homebound
from homebound._os import surely

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(homebound.__file__).parent
STARTS = {"start_thread", "start_new_thread", "_thread.start_new_thread"}

Site = tuple[str, str]


def listed() -> set[Site]:
    row = re.compile(r"^    (_?\w+/\w+\.py) +([\w.]+)$", re.MULTILINE)
    return set(row.findall(surely.__doc__ or ""))


def handlers(tree: ast.AST, names: tuple[str, ...] = ()) -> Iterator[tuple[str, ast.ExceptHandler]]:
    """Return a module's handlers that start a thread, each with its function's name."""
    for node in ast.iter_child_nodes(tree):
        named = isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if isinstance(node, ast.ExceptHandler) and any(map(started, node.body)):
            yield ".".join(names), node
        yield from handlers(node, (*names, node.name) if named else names)  # type: ignore[attr-defined]


def started(statement: ast.stmt) -> tuple[str, str] | None:
    """Return what a statement has a new thread call, and with what; None if it starts none."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call) or ast.unparse(call.func) not in STARTS:
        return None
    act, args = call.args
    return ast.unparse(act), ast.unparse(args)


def tried(handler: ast.ExceptHandler, tree: ast.AST) -> list[ast.stmt]:
    """Return the body of the `try` that a handler belongs to."""
    return next(
        node.body
        for node in ast.walk(tree)
        if isinstance(node, ast.Try) and handler in node.handlers
    )


def is_repair(handler: ast.ExceptHandler, tree: ast.AST) -> bool:
    """Return whether the thread makes the same call as the `try`, in its last statement."""
    last = tried(handler, tree)[-1]
    call = last.value if isinstance(last, ast.Expr) else None
    if not isinstance(call, ast.Call):
        return False
    ((act, args),) = filter(None, map(started, handler.body))
    elements = ast.parse(args, mode="eval").body
    passed = (
        [ast.unparse(each) for each in elements.elts]
        if isinstance(elements, ast.Tuple)
        else [f"*{args}"]
    )
    return ast.unparse(call.func) == act and [ast.unparse(each) for each in call.args] == passed


TREES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text())
    for path in PACKAGE.rglob("*.py")
}
# The thread's call holds the descriptor open, which the one here need not.
OTHERWISE = {("_core/loop_context.py", "LoopContext._ring")}

SITES = [
    ((path, name), handler) for path, tree in TREES.items() for name, handler in handlers(tree)
]


def test_each_site_is_listed():
    assert {site for site, _ in SITES} == listed()


@pytest.mark.parametrize("site", sorted(listed() - OTHERWISE), ids=":".join)
def test_a_new_thread_makes_the_repair_that_failed(site: Site):
    found = [handler for each, handler in SITES if each == site]
    assert found
    for handler in found:
        assert handler.type is not None
        assert ast.unparse(handler.type) == "BaseException"
        assert is_repair(handler, TREES[site[0]])


@pytest.mark.parametrize(
    ("planted", "sound"),
    [
        ("try:\n  f(x)\nexcept BaseException:\n  start_thread(f, (x,))", True),
        ("try:\n  f(*x)\nexcept BaseException:\n  start_thread(f, x)", True),
        ("try:\n  f(x)\nexcept BaseException:\n  start_thread(f, ())", False),
        ("try:\n  f(x)\nexcept BaseException:\n  start_thread(g, (x,))", False),
    ],
)
def test_another_repair_in_the_thread_is_found(planted: str, sound: bool):  # noqa: FBT001
    tree = ast.parse(planted)
    ((_, handler),) = handlers(tree)
    assert is_repair(handler, tree) is sound
