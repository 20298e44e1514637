"""No loop in a `try` or `with` ends in a jump that the statement does not cover.

CPython runs signal handlers at jumps back. On 3.12 to 3.14 its exception table leaves out a jump
that depends on a condition (at the end of `while condition:`, or of a loop whose last statement
is an `if`): what a handler raises there passes by `except` and `finally`.
"""

from __future__ import annotations

import ast
import dis
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

import pytest

import homebound

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(homebound.__file__).parent
# Without the test kit: a test that a signal handler interrupts has failed.
SOURCES = [path for path in sorted(ROOT.rglob("*.py")) if "testing" not in path.parts]
EVERYTHING = {"BaseException", "KeyboardInterrupt"}
LOOPS = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp)

# Code of a thread that is never the main one, where no signal handler runs.
ACCEPTED = {
    "VCPUThread._live",
    "VCPUThread._wait_outside",
}


def undoes(node: ast.AST) -> bool:
    """Whether the statement must run code for whatever is raised inside it."""
    if isinstance(node, ast.With):
        return True
    if not isinstance(node, ast.Try):
        return False
    caught = {ast.unparse(each.type) for each in node.handlers if each.type is not None}
    return bool(node.finalbody) or any(name in kind for kind in caught for name in EVERYTHING)


def loops_inside(tree: ast.AST) -> set[int]:
    """Return the lines of loops inside such a statement, in the same function."""
    lines: set[int] = set()

    def visit(node: ast.AST, inside: bool) -> None:  # noqa: FBT001
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            inside = False
        if inside and isinstance(node, LOOPS):
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        covered = node.body if undoes(node) else []  # type: ignore[attr-defined]
        for child in ast.iter_child_nodes(node):
            visit(child, inside or child in covered)

    visit(tree, inside=False)
    return lines


def codes_of(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_of(constant)


def jumps_out(code: CodeType) -> set[int]:
    """Return the lines of jumps back into what a `try` covers, from where it does not."""
    bytecode: Any = dis.Bytecode(code)
    covered = [range(entry.start, entry.end) for entry in bytecode.exception_entries]

    def is_covered(offset: int) -> bool:
        return any(offset in each for each in covered)

    return {
        each.positions.lineno
        for each in bytecode
        if each.opname.startswith("JUMP_BACKWARD")
        and not each.opname.endswith("NO_INTERRUPT")
        and not is_covered(each.offset)
        and is_covered(each.argval)
    }


def uncovered(source: str, name: str = "<string>") -> dict[str, set[int]]:
    """Return, by function, the lines of loops that end outside of their statement."""
    lines = loops_inside(ast.parse(source))
    found = {}
    for code in codes_of(compile(source, name, "exec")):
        if out := jumps_out(code) & lines:
            found[code.co_qualname] = out
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_try_covers_the_loops_in_it(path: Path):
    found = uncovered(path.read_text(), str(path))
    assert {name: lines for name, lines in found.items() if name not in ACCEPTED} == {}
