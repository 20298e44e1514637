"""Fork and exit: what is done is registered in one place, and done in one order."""

from __future__ import annotations

import ast
import os
import random
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

import homebound
from homebound._os.process import AtExit, AtFork

PACKAGE = Path(homebound.__file__).parent
TREES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text())
    for path in PACKAGE.rglob("*.py")
}

PROGRAM = """
import os, sys
import homebound
from homebound._os.process import AtExit, AtFork, at_exit, at_fork

def record(place):
    def fn():
        print(place.name, flush=True)
        if place.name == failing:
            raise ValueError("of " + place.name)
    return fn

def at(*places):
    for place in places:
        (at_fork if isinstance(place, AtFork) else at_exit)(place, record(place))
"""


def run(program: str) -> tuple[list[str], str]:
    """Run a program; return the lines that it prints, and its stderr."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + textwrap.dedent(program)],
        capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    return done.stdout.split(), done.stderr


def uses(tree: ast.AST) -> set[str]:
    """Return the ways to register with the interpreter that a file uses."""
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {str(node.module), *(each.name for each in node.names)}
    return names & {"register_at_fork", "_register_atexit", "atexit"}


def registered(tree: ast.AST) -> list[str]:
    """Return the places that a file takes: at_fork(AtFork.PARKERS, ...)."""
    return [
        ast.unparse(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("at_fork", "at_exit")
    ]


def test_one_module_registers_with_the_interpreter():
    known = {file: ways for file, tree in TREES.items() if (ways := uses(tree))}
    assert known == {"_os/process.py": {"register_at_fork", "atexit"}}


def test_each_place_has_one_owner():
    taken = Counter(place for tree in TREES.values() for place in registered(tree))
    places = [
        *(f"AtFork.{each.name}" for each in AtFork),
        *(f"AtExit.{each.name}" for each in AtExit),
    ]
    assert taken == Counter(places)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_order_at_a_fork_is_that_of_the_places(seed: int):
    shuffled = random.Random(seed).sample(list(AtFork), len(AtFork))
    lines, errors = run(f"""
    failing = ""
    at({", ".join(f"AtFork.{place.name}" for place in shuffled)})
    if not os.fork():
        os._exit(0)
    os.wait()
    """)
    assert lines == [place.name for place in AtFork]
    assert errors == ""


def test_the_order_at_exit_is_that_of_the_places(seed: int):
    shuffled = random.Random(seed).sample(list(AtExit), len(AtExit))
    lines, errors = run(f"""
    failing = ""
    at({", ".join(f"AtExit.{place.name}" for place in shuffled)})
    """)
    assert lines == [place.name for place in AtExit]
    assert errors == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_an_exception_is_reported_and_the_others_are_called():
    lines, errors = run("""
    failing = "VCPUS"
    at(AtFork.CONTEXTS, AtFork.VCPUS)
    if not os.fork():
        os._exit(0)
    os.wait()
    at(AtExit.WORKERS, AtExit.VCPUS)
    """)
    assert lines == ["VCPUS", "CONTEXTS", "VCPUS", "WORKERS"]
    assert errors.count("Exception ignored in") == errors.count("ValueError: of VCPUS") == 2


def test_handlers_of_the_program_find_everything_running():
    """Handlers registered after the import of homebound are called first, whatever loads later."""
    lines, errors = run("""
    import atexit
    io = homebound.IOThread()
    io.start()
    def last_call():
        print(homebound.block_on(answer(), io.context), pool.submit(int).result())
    async def answer():
        return 42
    atexit.register(last_call)
    pool = homebound.WorkerPool()
    pool.submit(int).result()  # Python 3.12 starts no thread while it ends
    """)
    assert lines == ["42", "0"]
    assert errors == ""
