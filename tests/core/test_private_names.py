"""Python's private names stand in a few files, and none of ours has one of their names."""

from __future__ import annotations

import ast
import asyncio
import inspect
import selectors
from asyncio import events, tasks
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound._aio.futures import FutureParts, SharedFuture
from homebound._aio.loop import InheritedLoop
from homebound._aio.signals import HearingLoop
from homebound._aio.timers import TimedLoop
from homebound._core.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(homebound.__file__).parent
SOURCES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text())
    for path in PACKAGE.rglob("*.py")
}
KNOWING = {name for name in SOURCES if name.startswith("_aio/")}

# Accepted elsewhere: pytest's, which has no public way to a test's own arguments; the mailbox of a
# Loop, of which the name is ours as well; os._exit, which is documented; a mark of ours on
# functions that users write; and whether this thread holds a guard, an RLock, which is asked on hot
# paths (tests/core/test_asyncio_shapes.py pins the answer). What threading and concurrent.futures
# would leave undone in a thread that is struck (tests/core/test_thread_end.py pins it).
ACCEPTED = {
    *(
        (name, "self._guard._is_owned")
        for name in (
            "_sync/barrier.py",
            "_sync/condition.py",
            "_sync/event.py",
            "_sync/lock.py",
            "_sync/wait_queue.py",
            "block/_gate.py",
        )
    ),
    ("testing/pytest_plugin.py", "pyfuncitem._fixtureinfo"),
    ("block/_gate.py", "operation._homebound_counted"),
    ("block/_gate.py", "request._homebound_counted"),
    ("cli/_interrupt.py", "os._exit"),
    ("cli/_signals.py", "os._exit"),
    ("_core/loop_context.py", "loop._ready"),
    ("_os/fuse.py", "threading._active"),
    ("_os/fuse.py", "threading._active_limbo_lock"),
    ("_os/fuse.py", "lock._is_owned"),
    ("_os/threads.py", "threading._limbo"),
}

# Variables of ours that may hold an object of asyncio's.
ASYNCIOS = {
    "executor", "fut", "future", "handle", "loop", "node", "selector", "timer", "transport",
}  # fmt: skip

# Names that asyncio calls or reads, and our classes define in their own way.
REPLACED_OF_LOOP = {
    "_asyncgen_finalizer_hook",
    "_asyncgen_firstiter_hook",
    "_check_running",
    "_check_thread",
    "_close_self_pipe",
    "_make_datagram_transport",
    "_make_read_pipe_transport",
    "_make_socket_transport",
    "_make_ssl_transport",
    "_make_write_pipe_transport",
    "_process_self_data",
    "_run_once",
    "_write_to_self",
}
REPLACED_OF_TASK = {
    "_asyncio_awaited_by",
    "_asyncio_future_blocking",
    "_callbacks",
    "_coro",
    "_fut_waiter",
    "_log_destroy_pending",
    "_loop",
    "_make_cancelled_error",
    "_must_cancel",
}


def is_private(name: object) -> bool:
    return isinstance(name, str) and name.startswith("_") and not name.startswith("__")


def names_made(tree: ast.AST) -> Iterator[str]:
    """Return the names a file defines: functions, classes, variables, fields of `self`, slots."""
    declared = {
        id(node.target)
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and node.value is None
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            if id(node) not in declared:
                yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if ast.unparse(node.value) in ("self", "cls"):
                yield node.attr
        elif isinstance(node, ast.Assign) and "__slots__" in map(ast.unparse, node.targets):
            yield from (ast.literal_eval(each) for each in ast.walk(node.value) if is_text(each))


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def names_used(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Return the private names that a file uses, and the objects it takes them from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            whose, name = ast.unparse(node.value), node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr"):
            if not is_text(node.args[1]):
                continue
            whose, name = ast.unparse(node.args[0]), ast.literal_eval(node.args[1])
        else:
            continue
        if is_private(name):
            yield whose, name


def modules_of(tree: ast.AST) -> Iterator[str]:
    """Return a file's names for the modules and classes that it imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and not node.level):
            yield from (each.asname or each.name.partition(".")[0] for each in node.names)


def private_imports(tree: ast.AST) -> set[str]:
    """Return the private names that a file imports from modules which are not ours."""
    return {
        f"{node.module}.{each.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not node.level
        for each in node.names
        if is_private(each.name)
    }


def names_of_asyncio() -> set[str]:
    """Return the private names of asyncio's objects on this Python."""
    loop = asyncio.SelectorEventLoop()
    kinds = (asyncio.SelectorEventLoop, asyncio.Task, asyncio.Future, events.TimerHandle)
    names = {name for kind in kinds for name in dir(kind)} | set(vars(loop))
    loop.close()
    with selectors.DefaultSelector() as selector:
        names |= set(vars(selector))
    return {name for name in names if is_private(name)}


def private_parts(kind: type[Any], first: type[Any]) -> set[str]:
    """Return what a class of ours and its bases define, down to the first base of asyncio's."""
    bases = kind.__mro__[: kind.__mro__.index(first)]
    return {name for base in bases for name in vars(base) if is_private(name)}


def test_private_names_of_python_stand_where_they_are_known():
    """Elsewhere a private name is one that we define, of an object which is not Python's."""
    asyncios = names_of_asyncio()
    ours = {name for tree in SOURCES.values() for name in names_made(tree)}
    kinds = (InheritedLoop, TimedLoop, FutureParts)
    declared = {name for kind in kinds for name in inspect.get_annotations(kind)}
    found = set()
    for file in SOURCES.keys() - KNOWING:
        modules = set(modules_of(SOURCES[file]))
        for whose, name in names_used(SOURCES[file]):
            if (
                (name not in ours and not (whose == "self" and name in declared))
                or whose.partition(".")[0] in modules
                or (whose.rpartition(".")[2] in ASYNCIOS and name in asyncios)
            ):
                found.add((file, f"{whose}.{name}"))
        found |= {(file, name) for name in private_imports(SOURCES[file])}
    assert found == ACCEPTED


@pytest.mark.parametrize(
    ("files", "declaring"),
    [
        (["_core/loop.py"], [InheritedLoop, TimedLoop]),
        (["_core/task.py", "_core/cell.py", "_core/task_interface.py"], [FutureParts]),
    ],
)
def test_inherited_parts_are_declared(files: list[str], declaring: list[type[Any]]):
    """Each name that Loop and Task take from asyncio's class by `self` is declared in `_aio`."""
    made = {name for file in files for name in names_made(SOURCES[file])}
    used = {
        name
        for file in files
        for whose, name in names_used(SOURCES[file])
        if whose in ("self", "super()")
    }
    inherited = (used & names_of_asyncio()) - made
    assert inherited  # otherwise nothing was checked
    for each in declaring:
        inherited -= set(inspect.get_annotations(each)) | set(vars(each))
    assert not inherited


def test_a_loop_replaces_only_what_it_means_to():
    """No new private method or field of asyncio's loop has the name of one of ours."""
    asyncios = asyncio.SelectorEventLoop()
    ours = homebound.new_event_loop()
    try:
        theirs = {name for name in dir(asyncios) if is_private(name)}
        assert private_parts(Loop, asyncio.SelectorEventLoop) & theirs == REPLACED_OF_LOOP
        stored = {
            name
            for file in ("_core/loop.py", "_aio/loop.py", "_aio/timers.py", "_aio/signals.py")
            for name in names_made(SOURCES[file])
        }
        fields = stored & set(vars(asyncios))
        parts = (InheritedLoop, TimedLoop, HearingLoop)
        declared = {name for each in parts for name in inspect.get_annotations(each)}
        assert fields <= declared | {"_current_handle"}
        assert not {name for name in declared if is_private(name)} - theirs - {"_epoll", "_keys"}
    finally:
        ours.close()
        asyncios.close()


@pytest.mark.parametrize("kind", [homebound.Task, SharedFuture])
def test_a_task_replaces_only_what_it_means_to(kind: type[Any]):
    """No new private part of asyncio's Task, in C or Python, has the name of one of ours."""
    theirs = set(dir(asyncio.Task)) | set(dir(tasks._PyTask))  # type: ignore[attr-defined]
    assert private_parts(kind, asyncio.Future) & theirs <= REPLACED_OF_TASK
