"""Asynchronous generators, which belong to the task that begins them and go along when it moves.

One of the files that know asyncio's private names; see loop.py.

asyncio's loop hears of a generator's first iteration in its thread (sys.set_asyncgen_hooks), keeps
it in a set, and closes what is in the set at the loop's end; one that is dropped before, it closes
in a task of its own. Both are wrong for a generator whose task has moved meanwhile. So our loops
note which task has begun a generator, and ask where that is at home when the time comes.
"""

from __future__ import annotations

import _thread
import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any
from weakref import ref

from .tasks import running_task

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .._core.context import AioContext
    from .._core.loop_context import LoopContext

_FEWEST = 64  # entries that are not worth looking through


# Weak references: to a generator that was begun, the task that began it, and the context there.
# A tuple, which costs a generator the least.
_Begun = tuple[ref[Any], "ref[Any] | None", ref[Any]]


def _home_of(begun: _Begun) -> AioContext | None:
    """Where its task is at home, or was at its end; else where it was begun."""
    _, task, begun_at = begun
    home: AioContext | None = None if task is None else getattr(task(), "_home", None)
    return begun_at() if home is None or home._closed else home


# By the generator's id: the finaliser is called when the references to it have been cleared. An
# entry outlives its generator until another one has the same id, or `_forget_dead` comes. Any
# thread reads and writes it; each operation is atomic.
_begun: dict[int, _Begun] = {}


class _Tidying:
    """When to look through the entries."""

    lock = _thread.allocate_lock()  # never waited for: the garbage collector may come within
    at = _FEWEST  # entries; written under the lock


def _forget_dead() -> None:
    """Drop the entries of generators that have ended."""
    if not _Tidying.lock.acquire(blocking=False):
        return
    try:
        for ident, entry in list(_begun.items()):
            if entry[0]() is None and _begun.get(ident) is entry:
                _begun.pop(ident, None)
        _Tidying.at = max(_FEWEST, 2 * len(_begun))
    finally:
        _Tidying.lock.release()


def _begin_as_child() -> None:
    _Tidying.lock = _thread.allocate_lock()


os.register_at_fork(after_in_child=_begin_as_child)


def generators_of(context: AioContext) -> list[AsyncGenerator[Any, Any]]:
    """Those that are to be closed as `context` ends, which forgets them. Called from: its home.

    One that runs is iterated by a task elsewhere, since those of here have ended: it is not ours.
    """
    found = []
    for ident, entry in list(_begun.items()):
        generator = entry[0]()
        if generator is not None and _home_of(entry) is context and not generator.ag_running:
            _begun.pop(ident, None)
            found.append(generator)
    return found


class GeneratorLoop(asyncio.SelectorEventLoop):
    """asyncio's selector loop, as far as asynchronous generators are concerned."""

    home: LoopContext
    _asyncgens: Any  # a WeakSet of what shutdown_asyncgens closes
    _asyncgens_shutdown_called: bool

    # Set as hooks by run_forever, in the thread that calls it; in a stand-in's by `hear_of_...`.

    def _asyncgen_firstiter_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        """A generator is about to begin, in the task that runs here."""
        if self._asyncgens_shutdown_called:
            super()._asyncgen_firstiter_hook(agen)  # type: ignore[misc]  # it warns
        task = running_task(self)
        by = None if task is None else ref(task)
        _begun[id(agen)] = ref(agen), by, ref(self.home)
        if len(_begun) > _Tidying.at:
            _forget_dead()

    def _asyncgen_finalizer_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        """A generator was dropped before its end, in any thread: close it where it is at home."""
        entry = _begun.pop(id(agen), None)
        home = None if entry is None else _home_of(entry)
        loop: Any = self if home is None or home._closed else home.loop
        if not loop.is_closed():
            loop.call_soon_threadsafe(loop.create_task, agen.aclose())

    def hear_of_generators(self) -> Any:
        """Have the hooks of the calling thread lead here; returns what to pass to `set_hooks`."""
        before = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(self._asyncgen_firstiter_hook, self._asyncgen_finalizer_hook)
        return before

    async def shutdown_asyncgens(self) -> None:
        """asyncio's; what it closes are the generators of tasks at home here, wherever begun."""
        self._asyncgens.update(generators_of(self.home))
        await super().shutdown_asyncgens()
        _forget_dead()


def set_hooks(hooks: Any) -> None:
    """Undo `hear_of_generators`."""
    sys.set_asyncgen_hooks(*hooks)
