"""Asynchronous generators, which belong to the task that begins them and move along with it.

A hook tells asyncio's loop of a generator's first iteration in its thread (sys.set_asyncgen_hooks).
The loop keeps the generator in a set, and closes the set's members when the loop ends; a generator
dropped earlier is closed in a task of its own. Both would be wrong for a generator whose task has
moved meanwhile. So our loops note which task began a generator, and look up that task's home when
the generator has to be closed.
"""

from __future__ import annotations

import _thread
import asyncio
import sys
from typing import TYPE_CHECKING, Any
from weakref import ref

from .._os.process import AtFork, at_fork
from .tasks import running_task

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .._core.context import AioContext
    from .._core.loop_context import LoopContext

_FEWEST = 64  # entries: fewer are not worth tidying


# Weak references: to a generator that was begun, the task that began it, and the context there.
# A tuple, which costs a generator the least.
_Begun = tuple[ref[Any], "ref[Any] | None", ref[Any]]


def _home_of(begun: _Begun) -> AioContext | None:
    """Return its task's home, or last home; else the context in which it began."""
    _, task, begun_at = begun
    home: AioContext | None = None if task is None else getattr(task(), "_home", None)
    return begun_at() if home is None or home._closed else home


# Keyed by the generator's id, as weak references are cleared before the finaliser hook is called.
# An entry outlives its generator until another generator has the same id, or `_forget_dead` runs.
# Any thread reads and writes it; each operation is atomic.
_begun: dict[int, _Begun] = {}


class _Tidying:
    """The state of `_forget_dead`."""

    lock = _thread.allocate_lock()  # never waited for: the garbage collector may run inside
    at = _FEWEST  # entries at which to tidy next; written under the lock


def _forget_dead() -> None:
    """Drop the entries of generators that have ended."""
    if not _Tidying.lock.acquire(blocking=False):
        return
    try:
        for ident, entry in list(_begun.items()):
            if entry[0]() is not None or _begun.get(ident) is not entry:
                continue
            _begun.pop(ident, None)  # last: the jump rule
        _Tidying.at = max(_FEWEST, 2 * len(_begun))
    finally:
        _Tidying.lock.release()


def _begin_as_child() -> None:
    _Tidying.lock = _thread.allocate_lock()


at_fork(AtFork.GENERATORS, _begin_as_child)


def generators_of(context: AioContext) -> list[AsyncGenerator[Any, Any]]:
    """Return, and forget, the generators to close as `context` ends. Called from: its home.

    A running generator is left out: a task at home elsewhere iterates it, as those here have ended.
    """
    found = []
    for ident, entry in list(_begun.items()):
        generator = entry[0]()
        if generator is not None and _home_of(entry) is context and not generator.ag_running:
            _begun.pop(ident, None)
            found.append(generator)
    return found


class GeneratorLoop(asyncio.SelectorEventLoop):
    """asyncio's selector loop with its part for asynchronous generators replaced."""

    home: LoopContext
    _asyncgens: Any  # a WeakSet of what shutdown_asyncgens closes
    _asyncgens_shutdown_called: bool

    # Set as hooks by run_forever, in the thread that calls it; in a stand-in's by `hear_of_...`.

    def _asyncgen_firstiter_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        """Note a generator that is about to begin in the running task."""
        if self._asyncgens_shutdown_called:
            super()._asyncgen_firstiter_hook(agen)  # type: ignore[misc]  # it warns
        task = running_task(self)
        by = None if task is None else ref(task)
        _begun[id(agen)] = ref(agen), by, ref(self.home)
        if len(_begun) > _Tidying.at:
            _forget_dead()

    def _asyncgen_finalizer_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        """Close a generator, dropped before its end in any thread, at its home."""
        entry = _begun.pop(id(agen), None)
        home = None if entry is None else _home_of(entry)
        loop: Any = self if home is None or home._closed else home.loop
        if not loop.is_closed():
            loop.call_soon_threadsafe(loop.create_task, agen.aclose())

    def hear_of_generators(self) -> Any:
        """Install the calling thread's hooks; return the earlier ones, for `set_hooks`."""
        before = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(self._asyncgen_firstiter_hook, self._asyncgen_finalizer_hook)
        return before

    async def shutdown_asyncgens(self) -> None:
        """Close the generators of the tasks at home on this loop, wherever those began."""
        self._asyncgens.update(generators_of(self.home))
        await super().shutdown_asyncgens()
        _forget_dead()


def set_hooks(hooks: Any) -> None:
    """Undo `hear_of_generators`."""
    sys.set_asyncgen_hooks(*hooks)
