"""The modules that `import homebound` loads; every name is available all the same."""

from __future__ import annotations

import ast
import asyncio
import importlib.metadata
import inspect
import json
import pickle
import pydoc
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import homebound
import homebound.block
import homebound.debug
import homebound.nbd
import homebound.nbd.libnbd
import homebound.testing

if TYPE_CHECKING:
    from types import ModuleType

# All rooms except the one that looks at a running program, which is loaded when it is used.
LOADED = {"_aio", "_core", "_errors", "_os", "_sync", "_threads", "_vcpu", "_workers"}
# Modules of the standard library, beyond what asyncio loads.
STANDARD = {
    "__future__", "_queue", "_typing", "gc", "importlib", "importlib._abc", "importlib.util",
    "typing",
}  # fmt: skip
# The most expensive ones by name: dump and the deadlock search, process pools, and their imports.
NOT_LOADED = {
    "concurrent.futures.process", "concurrent.futures.thread", "ctypes", "dataclasses",
    "homebound._core.context_stats", "homebound._debug", "homebound.block", "homebound.cli",
    "homebound.debug", "homebound.nbd", "homebound.testing",
    "multiprocessing", "pickle", "queue", "random", "shutil", "tempfile",
}  # fmt: skip


def run(program: str) -> str:
    """Return what a program prints in a Python of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=50, check=False,
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


@pytest.mark.parametrize("package", [homebound, homebound.block, homebound.nbd])
def test_type_checkers_read_what_is_loaded_at_run_time(package: Any):
    tree = ast.parse(Path(package.__file__).read_text())
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
            if not str(name.asname).startswith("_")
        }
        for body in (tree.body, checked.body)
    )
    assert later == package._LATER
    assert sorted(at_once.keys() | later.keys(), key=str) == sorted(package.__all__)


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


PUBLIC = [
    homebound,
    homebound.block,
    homebound.debug,
    homebound.nbd,
    homebound.nbd.libnbd,
    homebound.testing,
]


def exported(package: ModuleType) -> dict[str, Any]:
    """The classes and functions that a package has from modules of its own."""
    return {
        name: value
        for name in getattr(package, "__all__", vars(package))
        if not name.startswith("_")
        for value in [getattr(package, name)]
        if isinstance(value, type) or inspect.isfunction(value)
        if value.__module__.startswith(
            "homebound"
        )  # QueueShutDown is asyncio's, where that has one
    }


@pytest.mark.parametrize("package", PUBLIC, ids=lambda package: package.__name__)
def test_what_is_exported_says_where_from(package: ModuleType):
    assert exported(package)
    for name, value in exported(package).items():
        assert value.__module__ == package.__name__
        assert pickle.loads(pickle.dumps(value)) is value
        assert sys.modules[value.__module__].__dict__[name] is value
        for base in value.__mro__ if isinstance(value, type) else ():
            assert not base.__module__.startswith("homebound._")


@pytest.mark.parametrize("package", PUBLIC, ids=lambda package: package.__name__)
def test_help_names_no_private_module(package: ModuleType):
    text = pydoc.render_doc(package, renderer=pydoc.plaintext)  # type: ignore[attr-defined]
    head, contents, rest = text.partition("PACKAGE CONTENTS")
    if contents:  # pydoc lists each file of the folder there
        rest = rest[rest.index("\n\n") :]
    assert not re.findall(r"homebound(?:\.\w+)*\._\w+", head + rest)


def test_completion_offers_what_is_public():
    names = {name for name in dir(homebound) if not re.fullmatch(r"__\w+__", name)}
    assert not {name for name in names if name.startswith("_")}
    assert names - set(homebound.__all__) <= {"block", "cli", "debug", "nbd", "testing"}


@pytest.mark.parametrize("package", PUBLIC, ids=lambda package: package.__name__)
def test_completion_offers_no_import_of_a_package(package: ModuleType):
    names = {name for name in dir(package) if not name.startswith("_")}
    assert names
    modules = {"block", "cli", "debug", "libnbd", "nbd", "testing"}
    for name in names - modules:
        value = getattr(package, name)
        module = getattr(value, "__module__", None) or "homebound"  # a constant has none
        assert module.startswith("homebound") or name in getattr(package, "__all__", ()), name
        assert name != "TYPE_CHECKING"


def test_a_context_has_a_public_class():
    with homebound.IOThread() as io:
        assert repr(type(io.context)) == "<class 'homebound.AioContext'>"
    loop = asyncio.new_event_loop()
    assert repr(type(homebound.AioContext.attach(loop))) == "<class 'homebound.AioContext'>"
    loop.close()


def test_methods_say_which_class_they_are_of():
    """In a TypeError and a profile, though they stand in private bases."""
    assert homebound.Task.result.__qualname__ == "Task.result"
    assert homebound.Task.wake.__qualname__ == "Task.wake"
    assert homebound.LifoQueue.get.__qualname__ == "Queue.get"
    with pytest.raises(TypeError, match=r"Queue\.put_nowait\(\) missing 1"):
        homebound.Queue().put_nowait()  # type: ignore[call-arg]


def test_source_is_found_or_refused():
    """Never the lines of another file, where these would be if the class stood in it."""
    assert "wake" in inspect.getsource(homebound.Task.wake)
    assert "def block_on" in inspect.getsource(homebound.block_on)
    with pytest.raises(OSError, match=r"source code not available|class definition"):
        inspect.getsource(homebound.Task)
    assert inspect.getdoc(homebound.Task)
    assert inspect.signature(homebound.Task).parameters
    assert inspect.getmodule(homebound.Task) is homebound


def test_version_is_the_distributions():
    assert homebound.__version__ == importlib.metadata.version("homebound")
