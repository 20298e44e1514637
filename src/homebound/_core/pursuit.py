"""Pursuers: entries that must run at a task's home, and reach the task although it keeps moving.

An entry sent after a task can reach a home that the task has just left, again and again: on several
cores a task that only moved was followed through 1,800 moves. So a pursuer that has missed its task
is recorded in `pursuing` and then posted to the task's present home. It runs at the first of two
events: its turn in a mailbox while the task is at home there, or the task's next move, before that.

A home that refuses an entry, or that ends with it in its mailbox, may have been left by the task
before. So the entry goes on to the task's present home; only if that has ended is it given up.

It runs once. Both ways run it in the thread of the task's home. But a waker may take a suspended
task elsewhere, and have it run and move there, before this thread holds it: so the thread that
takes the one item of `_turn` runs it. A move changes the task's home after the look at its
pursuers: a thread that sees the new home also sees that the item was taken.

A pursuer acts while the task does not run, in any thread: `at_home` holds it meanwhile.
"""

from __future__ import annotations

from _thread import start_new_thread as start_thread
from typing import TYPE_CHECKING, Any

from .._errors import ContextClosed
from .._os.process import AtFork, at_fork
from .current import current_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from .context import AioContext
    from .task import Task


class Pursuer:
    """A mailbox entry that runs at a task's home, wherever that is."""

    __slots__ = ("_task", "_turn")

    _cancelled = False  # never skipped in a mailbox: it must leave `pursuing`

    def __init__(self, pursued: Task[Any]) -> None:
        self._task = pursued
        self._turn = [None]  # empty once it has run, or is about to. Popped in any home's thread

    def _run(self) -> None:
        there = at_home(self._task, self._act_once)
        if there is None:
            return
        if self._turn:  # after the look at the home: pairs with on_leaving
            self._follow(there)
        else:
            pursuing.discard(self)

    def _act_once(self) -> None:
        pursuing.discard(self)
        try:
            self._turn.pop()
        except IndexError:
            return  # it was caught
        self._act()

    def _follow(self, home: AioContext) -> None:
        pursuing.add(self)
        try:
            self.send(home)
        except ContextClosed:
            self._give_up()

    def send(self, home: AioContext) -> None:
        """Post it to the task's home, ahead of the task, if that is still on its way there.

        Raises ContextClosed if the task has ended with its home. Called from: any thread.
        """
        post_after(self._task, self, home, first=True)

    def _act(self) -> None:
        """Act at the task's home, while the task does not run."""
        raise NotImplementedError

    def _unrun(self) -> None:
        """Follow the task, or give up: the home in whose mailbox it was has ended."""
        home = living_home(self._task)
        if home is not None and self._turn:
            self._follow(home)
        else:
            self._give_up()

    def _give_up(self) -> None:
        """Forget it, as the task has ended, perhaps with its home."""
        pursuing.discard(self)


# The pursuers that have missed their task, until they run. Any thread; each operation is atomic.
pursuing: set[Pursuer] = set()
# For each task and home of `at_home`, its claims. Written by that home's thread; any thread reads.
held: dict[tuple[Any, Any], list[Any]] = {}


def _begin_as_child() -> None:
    pursuing.clear()
    held.clear()


at_fork(AtFork.PURSUERS, _begin_as_child)


def living_home(task: Any) -> AioContext | None:
    """Return where to act on a task, or where it is being taken; None if it or that has ended.

    Called from: any thread.
    """
    home: AioContext | None = None if task.done() else task._seen_from(task._home)
    return None if home is None or home._closed else home


def post_after(task: Any, entry: Any, home: AioContext, *, first: bool = False) -> None:
    """Post an entry to the home of a task, as it was read; if that has ended, to the present one.

    Raises ContextClosed if the task has ended with its home. Called from: any thread.
    """
    while True:
        try:
            if first:
                home._post_first(entry)
            else:
                home._post(entry)
            break
        except ContextClosed:
            there = living_home(task)
            if there is None:
                raise
            home = there
        continue  # last: the jump rule


def at_home(task: Any, act: Callable[[], object]) -> AioContext | None:
    """Call `act` at the task's home, and keep the task there meanwhile.

    If its home is another, or a waker is taking the suspended task to another, return that one. The
    calling thread holds the task, then looks whether it is claimed for elsewhere; a waker claims
    it, then looks whether it is held (`Enterable._claim_in`). So this thread does not act, or the
    waker appends its claim here. This thread has acted and appends None. The first item decides: a
    claim, which is left to this thread; or None, and the waker goes on.
    """
    home = current_context()
    key = task, home
    if key in held:  # by a frame below
        act()
        return None
    claims: list[Any] = []
    cell: list[Any] = []
    try:
        held[key] = claims
        cell = task._cell
        there: AioContext | None = task._seen_from(home)
        if there is not None and there is not home:
            return there
        act()
        return None
    finally:
        try:
            _let_go(key, claims)
            if claims[0] is not None:
                task._queue_early(claims[0])
        except BaseException:  # a signal handler's, or no memory: it may be queued
            try:
                _let_go_surely(key, claims, cell)
            except BaseException:  # noqa: BLE001  (surely.py)
                start_thread(_let_go_surely, (key, claims, cell))
            raise


def _let_go(key: tuple[Any, Any], claims: list[Any]) -> None:
    held.pop(key, None)
    claims.append(None)


def _let_go_surely(key: tuple[Any, Any], claims: list[Any], cell: list[Any]) -> None:
    """Let go again, and have a task that was claimed entered if it has not run since."""
    _let_go(key, claims)
    if claims[0] is not None:
        key[0]._post_resumption(cell)


def on_leaving(task: Task[Any], home: AioContext) -> None:
    """Run the pursuers of a suspended task that is about to move. Called at its home."""
    for each in pursuing.copy():
        if each._task is task:
            try:
                each._run()
            except BaseException as error:  # noqa: BLE001  (reported; the task goes on)
                home._report(each, error)
