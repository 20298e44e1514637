"""Asynchronous generators, which belong to the task that begins them and move along with it.

A hook tells asyncio's loop of a generator's first iteration in its thread (sys.set_asyncgen_hooks).
The loop keeps the generator in a set, and closes the set's members when the loop ends; a generator
dropped earlier is closed in a task of its own. Both would be wrong for a generator whose task has
moved meanwhile. So our loops note which task began a generator, and look up that task's home when
the generator has to be closed.

Python tells of the first iteration only, and the task that made it may have ended: asyncio.wait_for
makes one for it before Python 3.12, as does `create_task(anext(generator))`. So a home about to end
looks for a task that iterates such a generator since, and hands it to that one.
"""

from __future__ import annotations

import _thread
import asyncio
import gc
import sys
from inspect import isasyncgen
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, ref

from .._os.process import AtFork, at_fork
from .._os.snapshot import members
from .reach import Search, has_ended
from .tasks import running_task

if TYPE_CHECKING:
    import selectors
    from collections.abc import AsyncGenerator, Callable, Iterable

    from .._core.context import AioContext
    from .._core.loop_context import LoopContext

_FEWEST = 64  # entries: fewer are not worth tidying
_AT_ONCE = 100  # tasks that are looked at together, at first
_LOOKS = 10  # at a task that runs
_PAUSE = 0.002  # seconds between them


# Weak references: to a generator that was begun, the task that began it, and the context there
# (or, once that has ended, the task's home then). A tuple, which costs a generator the least.
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


def _note(agen: AsyncGenerator[Any, Any], loop: Any, home: AioContext) -> None:
    """Note a generator that is about to begin in the task that runs on the loop."""
    task = running_task(loop)
    by = None if task is None else ref(task)
    _begun[id(agen)] = ref(agen), by, ref(home)
    if len(_begun) > _Tidying.at:
        _forget_dead()


def _close_at_home(agen: AsyncGenerator[Any, Any], loop: Any) -> None:
    """Close a dropped generator where it is at home, or else on the loop where it began."""
    entry = _begun.pop(id(agen), None)
    home = None if entry is None else _home_of(entry)
    if home is not None and not home._closed:
        loop = home.loop
    if loop.is_closed():
        return
    if isinstance(loop, GeneratorLoop) and loop._closes_generators():
        loop.call_soon_threadsafe(loop._begin_close, agen)
    else:
        loop.call_soon_threadsafe(loop.create_task, agen.aclose())


def generators_of(context: AioContext) -> list[AsyncGenerator[Any, Any]]:
    """Return, and forget, the generators to close as `context` ends. Called from: its home.

    A running generator is left out: a task at home elsewhere iterates it, as those here have ended.
    One that began here and whose task has moved is noted as begun at the task's home, which may
    end after the task itself is gone.
    """
    found = []
    for ident, entry in list(_begun.items()):
        generator, task, begun_at = entry[0](), *entry[1:]
        home = _home_of(entry)
        if generator is None or home is None:
            continue
        if home is not context:
            if begun_at() is context:
                _begun[ident] = entry[0], task, ref(home)
        elif not generator.ag_running and _begun.pop(ident, None) is not None:
            found.append(generator)  # of two homes that end, one takes the note
    return found


async def hand_on_strays(context: AioContext) -> None:
    """Hand on the generators at home in `context` whose first task has ended, not by cancellation.

    What a task had begun that was cancelled, as by the end of its home, is closed there.
    """
    strays = []
    for entry in list(_begun.values()):
        task = None if entry[1] is None else entry[1]()
        over = task is None or (task.done() and not task.cancelled())
        if over and _home_of(entry) is context:
            strays.append(entry[0]())
    await hand_on(context, strays)


class Suspects:
    """Where the tasks are known that may iterate a generator: in `_core/left_over.py`."""

    # Returns the unfinished tasks but the running one, with their homes: those of a context first.
    tasks: Callable[[AioContext], Iterable[tuple[Any, AioContext]]]


async def hand_on(context: AioContext, strays: Iterable[Any]) -> list[Any]:
    """Note generators as begun by the tasks that iterate them; return those handed on.

    A task that runs is looked at again, some times. One that runs all the while, perhaps blocked,
    may hold any generator where nothing can be seen of it. To close that would lose its items, so
    the task gets all that are left; they are closed where it is at home, at the latest.
    """
    left = {id(each): each for each in strays if isasyncgen(each) and not has_ended(each)}
    handed: list[Any] = []
    if not left:
        return handed
    search = Search(left)
    tasks = _suspects(search, [*Suspects.tasks(context)])
    for look in range(_LOOKS):
        if look and tasks and left:
            await asyncio.sleep(_PAUSE)
        running = []
        for task, home in tasks:
            found = search.look([task.get_coro()])
            if found is None:
                running.append((task, home))
            else:
                handed += _hand_to(task, home, found, left)
        tasks = running
    for task, home in tasks:
        handed += _hand_to(task, home, [*left.values()], left)
    return handed


def _suspects(search: Search, tasks: list[tuple[Any, AioContext]]) -> list[tuple[Any, AioContext]]:
    """Return those of the tasks that are to be looked at one by one; most lead to no generator."""
    suspects = []
    for at in range(0, len(tasks), _AT_ONCE):
        some = tasks[at : at + _AT_ONCE]
        if search.look([task.get_coro() for task, _ in some]) != []:
            suspects += some
    return suspects


def _hand_to(task: Any, home: AioContext, generators: list[Any], left: dict[int, Any]) -> list[Any]:
    """Note those of the generators that are `left` as begun by a task; return them."""
    handed = [generator for generator in generators if left.get(id(generator)) is generator]
    for generator in handed:
        _begun[id(generator)] = ref(generator), ref(task), ref(home)
    # The note is made, then the task looked at; the end of its home reads the notes once its tasks
    # are done. So that end finds these, unless the task is done by now, and iterates nothing more.
    if task.done():
        return []
    for generator in handed:
        del left[id(generator)]
    return handed


class GeneratorLoop(asyncio.SelectorEventLoop):
    """asyncio's selector loop with its part for asynchronous generators replaced."""

    home: LoopContext
    _asyncgens: Any  # a WeakSet of what shutdown_asyncgens closes
    _asyncgens_shutdown_called: bool

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        super().__init__(selector)
        # Dropped generators whose close has not begun. Home only.
        self._dropped: set[AsyncGenerator[Any, Any]] = set()

    # Set as hooks by run_forever, in the thread that calls it; in a stand-in's by `hear_of_...`.

    def _asyncgen_firstiter_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        """Note a generator that is about to begin in the running task."""
        if not self._closes_generators():
            super()._asyncgen_firstiter_hook(agen)  # type: ignore[misc]  # it warns
        _note(agen, self, self.home)

    def _asyncgen_finalizer_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        """Close a generator, dropped before its end in any thread, at its home."""
        _close_at_home(agen, self)

    def _closes_generators(self) -> bool:
        """Return whether `shutdown_asyncgens` is still to come; the end of a home calls it last."""
        return not self._asyncgens_shutdown_called or self.home._ending

    def _begin_close(self, agen: AsyncGenerator[Any, Any]) -> None:
        """Close a dropped generator in a task.

        The end of the loop cancels tasks, and closes generators afterwards. One that `main` drops
        as it returns is left to that, so that its cleanup is not cancelled.
        """
        self._dropped.add(agen)
        self.create_task(self._close_dropped(agen))

    async def _close_dropped(self, agen: AsyncGenerator[Any, Any]) -> None:
        if agen in self._dropped and not self.home._ending:
            self._dropped.remove(agen)
            await agen.aclose()

    def hear_of_generators(self) -> Any:
        """Install the calling thread's hooks; return the earlier ones, for `set_hooks`."""
        before = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(self._asyncgen_firstiter_hook, self._asyncgen_finalizer_hook)
        return before

    async def shutdown_asyncgens(self) -> None:
        """Close the generators of the tasks at home on this loop, wherever those began."""
        dropped, self._dropped = self._dropped, set()  # `_asyncgens` refers to them weakly
        self._asyncgens.update([*generators_of(self.home), *dropped])
        await super().shutdown_asyncgens()
        _forget_dead()


class GuestHooks:
    """The generators that begin in our tasks on a foreign loop, which is not told of them.

    The context sets `hooks` while it runs its tasks. `shutdown_asyncgens` is replaced on the loop;
    one in C without a dictionary keeps its own, and `hooks` is None.
    """

    hooks: tuple[Callable[[Any], None], Callable[[Any], None]] | None = None

    def __init__(self, loop: Any, context: AioContext) -> None:
        self._loop = loop
        self._context: Any = context  # None once it is closed
        self._shutdown = loop.shutdown_asyncgens
        try:
            loop.shutdown_asyncgens = self._shutdown_asyncgens
        except AttributeError:
            return
        self.hooks = self._first_iteration, self._finalizer

    def _first_iteration(self, agen: AsyncGenerator[Any, Any]) -> None:
        _note(agen, self._loop, self._context)

    def _finalizer(self, agen: AsyncGenerator[Any, Any]) -> None:
        _close_at_home(agen, self._loop)

    async def _shutdown_asyncgens(self) -> None:
        """Close the generators of the tasks at home on the loop, then those that it knows."""
        await hand_on_strays(self._context)
        ours = generators_of(self._context)
        # Those that the loop's own tasks have begun, perhaps each for a single iteration.
        for known in self._known():
            known.difference_update(await hand_on(self._context, members(known)))
        closed = await asyncio.gather(*[each.aclose() for each in ours], return_exceptions=True)
        for generator, error in zip(ours, closed, strict=True):
            if isinstance(error, Exception):
                about = {"exception": error, "asyncgen": generator}
                about["message"] = f"an error occurred during closing of {generator!r}"
                self._loop.call_exception_handler(about)
        await self._shutdown()

    def _known(self) -> list[WeakSet[Any]]:
        """Return the set of generators that the loop is to close; uvloop's is an unnamed field."""
        known = getattr(self._loop, "_asyncgens", None)
        sets = gc.get_referents(self._loop) if known is None else [known]
        return [each for each in sets if type(each) is WeakSet]

    def end(self) -> None:
        """Give the loop its own method back, and forget the context: cycles otherwise."""
        getattr(self._loop, "__dict__", {}).pop("shutdown_asyncgens", None)
        self.hooks = self._context = None


def set_hooks(hooks: Any) -> None:
    """Undo `hear_of_generators`."""
    sys.set_asyncgen_hooks(*hooks)
