"""The modules that `import homebound` loads; every name is available all the same."""

from __future__ import annotations

import ast
import inspect
import json
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import homebound

# All rooms except the one that looks at a running program, which is loaded when it is used.
LOADED = {"_aio", "_core", "_errors", "_os", "_sync", "_threads", "_vcpu", "_workers"}
# Modules of the standard library, beyond what asyncio loads.
STANDARD = {"__future__", "_typing", "importlib", "importlib._abc", "importlib.util", "typing"}
# The most expensive ones by name: dump and the deadlock search, process pools, and their imports.
NOT_LOADED = {
    "concurrent.futures.process", "concurrent.futures.thread", "ctypes", "dataclasses",
    "homebound._core.context_stats", "homebound._debug", "homebound.block", "homebound.cli",
    "homebound.nbd", "homebound.testing",
    "multiprocessing", "pickle", "queue", "random", "shutil", "tempfile",
}  # fmt: skip


def run(program: str) -> str:
    """Return what a program prints in a Python of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def loaded_by(program: str) -> set[str]:
    """The modules that a program loads beyond asyncio's."""
    listed = run(f"""
    import asyncio, json, sys
    before = set(sys.modules)
    {program}
    print(json.dumps(sorted(set(sys.modules) - before)))
    """)
    return set(json.loads(listed))


@pytest.mark.parametrize(
    "program",
    [
        "import homebound",
        "import homebound; homebound.run(asyncio.sleep(0))",
        "import homebound; asyncio.Runner(loop_factory=homebound.new_event_loop).close()",
    ],
)
def test_what_is_not_used_is_not_loaded(program: str):
    loaded = loaded_by(program)
    assert not loaded & NOT_LOADED
    ours = {name for name in loaded if name.partition(".")[0] == "homebound"}
    assert {name.split(".")[1] for name in ours - {"homebound"}} == LOADED
    assert loaded - ours <= STANDARD


def test_a_pool_of_processes_is_not_loaded_for_one_of_threads():
    program = "import homebound, concurrent.futures as cf; pool = cf.ThreadPoolExecutor(); "
    loaded = loaded_by(program + "homebound.run(homebound.run_in(pool, int)); pool.shutdown()")
    assert "homebound._workers.run_in" in loaded
    assert not loaded & {"concurrent.futures.process", "multiprocessing", "tempfile"}


def test_every_name_is_there():
    """The names of a fresh import: listed by dir(), found by getattr and `import *`."""
    run("""
    import homebound
    assert set(homebound.__all__) <= set(dir(homebound))
    names = {}
    exec("from homebound import *", names)
    assert set(homebound.__all__) == names.keys() - {"__builtins__"}
    for name in homebound.__all__:
        assert getattr(homebound, name) is names[name] is vars(homebound)[name]
    """)


def test_tools_find_what_is_loaded_later():
    run("""
    import doctest, homebound, inspect, pickle
    members = dict(inspect.getmembers(homebound))
    assert members["dump"] is homebound.dump
    assert any(found.examples for found in doctest.DocTestFinder().find(homebound.dump))
    """)
    assert pickle.loads(pickle.dumps(homebound.Stall)) is homebound.Stall
    assert pickle.loads(pickle.dumps(homebound.dump)) is homebound.dump
    assert inspect.signature(homebound.watch_stalls).parameters


def test_a_missing_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'homebound' has no attribute 'Mutex'"):
        homebound.Mutex  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(homebound, "nursery")


def test_type_checkers_read_what_is_loaded_at_run_time():
    tree = ast.parse(Path(homebound.__file__).read_text())
    (checked,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    at_once, later = (
        {
            name.asname: node.module
            for node in body
            if isinstance(node, ast.ImportFrom) and node.level
            for name in node.names
        }
        for body in (tree.body, checked.body)
    )
    assert later == homebound._LATER
    assert sorted(at_once.keys() | later.keys(), key=str) == sorted(homebound.__all__)


@pytest.mark.parametrize(
    "program",
    [
        # What a module adds to a class of a lower room when it is loaded.
        """
        context = homebound.AioContext.attach(asyncio.SelectorEventLoop())
        assert not context.stats().closed
        context.loop.close()
        """,
        """
        async def main():
            loop = asyncio.get_running_loop()
            with homebound.WorkerPool() as pool:
                loop.set_default_executor(pool)
                return await loop.run_in_executor(None, int)
        assert homebound.run(main()) == 0
        """,
        """
        async def main():
            loop = asyncio.get_running_loop()
            loop.set_default_executor(concurrent.futures.ThreadPoolExecutor())
            return await loop.run_in_executor(None, int)
        assert homebound.run(main()) == 0
        """,
    ],
)
def test_modules_loaded_late_extend_the_lower_rooms(program: str):
    run("import asyncio, concurrent.futures, homebound\n" + textwrap.dedent(program))
