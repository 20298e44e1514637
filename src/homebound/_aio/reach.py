"""The search for a task that iterates an asynchronous generator, by what its frames refer to.

gc.get_referents is one operation on each Python: it keeps the GIL, or stops all other threads. No
code of a user's runs in here, except finalisers of objects that are dropped elsewhere meanwhile, as
in the garbage collector. tests/core/test_generators_handed_on.py pins what frames refer to.
"""

from __future__ import annotations

import gc
from asyncio import AbstractEventLoop, Future
from collections import deque
from operator import is_
from threading import Thread
from types import CodeType, FrameType, FunctionType, ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Python's objects through which a task awaits, iterates and leaves blocks. They are read, as are
# contextlib's, as parts of the task's frames.
_FRAMES = {
    "anext_awaitable",
    "async_generator",
    "async_generator_asend",
    "async_generator_athrow",
    "cell",
    "coroutine",
    "coroutine_wrapper",
    "generator",
    "method",
}
# What is not followed, as it is not the task's own or leads nowhere. Other tasks are looked at by
# themselves.
_ENDS = (
    AbstractEventLoop,
    CodeType,
    FrameType,
    FunctionType,
    Future,
    ModuleType,
    Thread,
    TracebackType,
    bytes,
    float,
    int,
    str,
    type,
)
_CONTAINERS = {deque, dict, frozenset, list, set, tuple}
_LARGEST = 10_000  # entries of a container: a larger one is not read
_DEEPEST = 4  # other objects in a row between a frame and a generator: attributes, containers

_END, _FRAME, _OTHER = range(3)


def has_ended(generator: Any) -> bool:
    """Return whether a generator's frame, which refers to its function, is gone."""
    return FunctionType not in map(type, gc.get_referents(generator))


class Search:
    """A search for the tasks that refer to generators.

    The objects that it reads are kept until it ends, so that no other one gets their ids.
    """

    def __init__(self, wanted: Mapping[int, Any]) -> None:
        self._wanted = wanted  # the generators, by their ids; the caller may remove some
        self._ways: dict[type[Any], int] = {}
        # By id, an object that is no frame, and how deep below a frame it was met. Tasks share
        # many. They lead to no generator, and are read again for another task only if they are
        # less deep there.
        self._met: dict[int, tuple[int, Any]] = {}

    def look(self, coroutines: list[Any]) -> list[Any] | None:
        """Return the generators to which suspended tasks lead; None if one has run meanwhile.

        The frames of a task that runs may hide what they refer to, and those of its plain functions
        are not looked at. They are read one after the other, and then all at once: if they refer to
        the same as before, nothing was missed that went from one to another in between.
        """
        found = None if _run(coroutines) else self._read(coroutines)
        if _run(coroutines):
            found = None
        if found != []:
            self._met.clear()  # they may lead to generators
        return found

    def _read(self, coroutines: list[Any]) -> list[Any] | None:
        """Do as `look`, but take no notice of tasks that run just now."""
        found: list[Any] = []
        read: list[Any] = []
        referents: list[Any] = []
        known = {*map(id, coroutines)}
        frames, others = coroutines, list[Any]()
        for depth in range(_DEEPEST):
            while frames:
                read += frames
                held = gc.get_referents(*frames)
                referents += held
                frames = self._follow(held, depth, known, others)
                found += [each for each in frames if id(each) in self._wanted]
            held, others = gc.get_referents(*others), []
            frames = self._follow(held, depth + 1, known, others)
            found += [each for each in frames if id(each) in self._wanted]
        again = gc.get_referents(*read)
        same = len(again) == len(referents) and all(map(is_, again, referents))
        return found if same else None

    def _follow(
        self, objects: Iterable[Any], depth: int, known: set[int], others: list[Any]
    ) -> list[Any]:
        """Return the frames among the objects that are not `known`; append to the `others`."""
        frames = []
        ways, met = self._ways, self._met
        for each in objects:
            kind = type(each)
            way = ways.get(kind)
            if way is None:
                way = ways[kind] = _way_of(kind)
            if way == _END:
                continue
            ident = id(each)
            if way == _FRAME:
                if ident not in known:
                    known.add(ident)
                    frames.append(each)
            elif ident not in met or met[ident][0] > depth:
                met[ident] = depth, each
                if kind not in _CONTAINERS or len(each) <= _LARGEST:
                    others.append(each)
        return frames


def _run(coroutines: list[Any]) -> bool:
    """Return whether one of them runs now, in another thread or further up the stack."""
    return any(getattr(each, "cr_running", False) for each in coroutines)


def _way_of(kind: type[Any]) -> int:
    """Return how objects of a type are followed."""
    if issubclass(kind, _ENDS):
        return _END
    own = kind.__module__ == "builtins" and kind.__name__ in _FRAMES
    return _FRAME if own or kind.__module__ == "contextlib" else _OTHER
