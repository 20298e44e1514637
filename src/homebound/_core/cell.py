"""Who may enter a suspended task: the cell.

That is decided by its *cell*, a list made afresh for each suspension, to which everyone concerned
appends one thing and then looks:

    the home appends PARK once the coroutine has given up control in `suspend()`;
    who wants to enter it appends a token of his own.

The first two entries decide, and `list.append` is atomic, so all see the same two. [PARK, mine]: I
have the task to myself and put it into its home's mailbox. [mine, ...]: I was early; the home finds
my token there when it appends PARK, and does it for me. Anything else: somebody was first, I get
AlreadyScheduled. A latecomer holds the old list and loses there. tests/model/wakecell.pml searches
every interleaving of this, and catches the variants that look before they append.

A token is for one suspension, so none may stay behind for the next. A task that does not give up
control because it was cancelled before claims the suspension itself. A wait that ends before its
suspension, by an exception, moves on to another cell (`_renew_cell`): what a completion has left in
the old one, a negative number, is dropped, and what `wake` has left there is kept. A waker that
finds itself in a cell that was left goes on in the next.
"""

from __future__ import annotations

import _thread
from _thread import start_new_thread as start_thread
from typing import TYPE_CHECKING, Any, TypeVar

from .._aio.tasks import task_here
from .._errors import AlreadyScheduled, ContextClosed, ContextError, NotSuspended
from .big_lock import thread_name
from .context import whereabouts
from .current import here
from .task_interface import TaskFuture

if TYPE_CHECKING:
    from .context import AioContext
    from .task import Task

T = TypeVar("T")


class _Park:
    """What `suspend` yields, and what stands in a cell for "it has given up control"."""

    def __repr__(self) -> str:
        # asyncio shows this as "Task got bad yield: ..." when a task of its own awaits suspend().
        return (
            "homebound.suspend() (only a homebound.Task can be suspended: make the task with "
            "AioContext.spawn, or run it on a loop of homebound.new_event_loop)"
        )


PARK = _Park()


class _Promised(list[Any]):
    """The cell of every task that its maker has queued: whoever comes, comes too late."""

    def append(self, _: object) -> None:
        """Lose."""


PROMISED = _Promised([PARK, 0])


class _Left:
    """In a cell that the task has left before any token came: the next one."""

    __slots__ = ("cell",)

    def __init__(self) -> None:
        self.cell: list[Any] = []


NEW = 2  # the value of _parked for a task that has not begun; any other parked task has True


class Enterable(TaskFuture[T]):
    """What can be suspended, and entered again by one of those who want to."""

    __slots__ = (
        "_cell",  # who has promised to enter it. Any thread appends; the home replaces it
        "_fut_waiter",  # the future it awaits, else None. Home only
        "_parked",  # False, or True while suspended in suspend(), or NEW. Home only
    )

    _cell: list[Any]
    _fut_waiter: Any
    _parked: int

    _cancelled = False  # as a mailbox entry it is never passed over

    def _run(self) -> None:
        """One step."""
        raise NotImplementedError

    def wake(self) -> None:
        """Resume it at home: `home.enter(task)`.

        In its home's thread (or a stand-in's) it runs at once, or when the running task suspends;
        from any other thread it is queued at home. If it has not suspended yet, it resumes once it
        has: store the result, then wake. Raises AlreadyScheduled if somebody was first,
        NotSuspended if it is finished, runs, or waits for something else, ContextClosed if its home
        has ended.

        Called from: any thread.
        """
        home = self._home
        if home is None:
            message = (
                f"Task.wake(): {self!r} has no home yet; "
                "start it with AioContext.schedule or .enter"
            )
            raise NotSuspended(message)
        if here.context is home:
            home._enter_here(self)  # type: ignore[arg-type]
            return
        self._wake_in(self._cell, home)

    def _wake_in(self, cell: list[Any], home: AioContext) -> None:
        token = _thread.get_ident()  # a new int each time, so it is told apart by identity
        try:
            cell.append(token)
            if cell[0] is PARK and cell[1] is token:
                home = self._home  # type: ignore[assignment]  # nobody but us moves the task now, before it has run
                home._ready.append(self)
                if home._bell:
                    home._ring(self)
                return
        except ContextClosed:
            self._abandon("ended with it")  # the closer has left it to us
            raise
        except BaseException:
            try:
                resume_surely(self, cell, token)
            except BaseException:  # noqa: BLE001  (no stack here: the first one is raised)
                start_thread(resume_surely, (self, cell, token))
            raise
        if cell[0] is not token or self.done():
            if home._closed:
                home._refuse()
            later = self._cell_after(cell)
            if later is None:
                raise self._refusal("wake", cell)
            self._wake_in(later, home)

    def _claim(self, target: AioContext) -> bool:
        """Promise to enter it in `target`. True: the caller must queue it there now."""
        return self._claim_in(self._cell, target)

    def _claim_in(self, cell: list[Any], target: AioContext) -> bool:
        token = (target, _thread.get_ident())
        try:
            cell.append(token)
        except BaseException:
            if len(cell) > 1 and cell[0] is PARK and cell[1] is token:
                self._cell = [PARK]  # as `_unclaim`: nothing has happened
            raise
        if cell[0] is PARK:
            if cell[1] is token:
                self._home = target
                return True
        elif cell[0] is token and not self.done():
            return False  # early: the home does it when the task has suspended
        later = self._cell_after(cell)
        if later is None:
            raise self._refusal("enter", cell)
        return self._claim_in(later, target)

    def _claim_own_suspension(self) -> Any:
        """Claim the suspension of a task cancelled before it; the token that has won it."""
        self._parked = True
        cell = self._cell
        cell.append(_thread.get_ident())
        return cell[0]  # a wake's that came first, or ours

    def _renew_cell(self, cell: list[Any]) -> None:
        """Forget the wait of the running task that failed, if before its suspension in `cell`.

        Home only. The completion that was to wake it, and has come or comes yet, is for nothing.
        """
        if self._cell is not cell:
            return
        left = _Left()
        cell.append(left)
        first = cell[0]
        if first is left or _is_completion(first):
            self._cell = left.cell

    def _cell_after(self, cell: list[Any]) -> list[Any] | None:
        """Where to go on if `cell` was left by `_renew_cell`; else None: the entry has lost."""
        first = cell[0]
        if type(first) is _Left:
            return first.cell
        latest = self._cell
        return latest if _is_completion(first) and latest is not cell else None

    def _unclaim(self, home: AioContext | None) -> None:
        """The promise of our claim cannot be kept: it is suspended, and at home where it was."""
        self._home = home
        self._cell = [PARK]

    def _post_resumption(self, cell: list[Any]) -> None:
        """Have it entered if it has not run since `cell` promised that. Any thread."""
        home: Any = self._home
        try:
            home._post(_Resumption(self, cell))
        except ContextClosed:
            self._abandon("ended with it")

    def _claimed_by_closer(self) -> bool:
        """Its home ends: True if nobody has promised to enter it elsewhere, and nobody will."""
        token = _thread.get_ident()
        cell = self._cell
        cell.append(token)
        return cell[0] is PARK and cell[1] is token

    def _claim_at_home(self, context: AioContext) -> bool:
        """Promise to enter it in `context`, whose home the calling thread is."""
        if self._home is context and not self._parked:
            message = (
                f"{self!r} was entered in {whereabouts()}, but it "
                + (
                    "is finished"
                    if self.done()
                    else "is running"
                    if task_here(context.loop) is self
                    else f"waits for {self._fut_waiter!r}"
                    if self._fut_waiter is not None
                    else "is about to run"
                )
                + "; only a task in suspend() can be entered or woken"
            )
            raise NotSuspended(message)
        return self._claim(context)

    def _refusal(self, what: str, cell: list[Any]) -> ContextError:
        if self.done():
            return NotSuspended(f"{what}: {self!r} is finished; it cannot be entered again")
        first = cell[1] if cell[0] is PARK else cell[0]
        target, ident = first if type(first) is tuple else (self._home, first)
        who = (
            f"thread {thread_name(abs(ident))}" if ident else "whoever made it (spawn, create_task)"
        )
        return AlreadyScheduled(
            f"{what} from {whereabouts()}: {who} has already promised to "
            f"enter {self!r} in {target!r}; it must run before it can be entered again"
        )

    def _begin_if_new(self, target: AioContext) -> None:
        """If it was made without being queued, and nobody has: have it begin, at home or there."""
        cell = self._cell  # before the look: a task that has begun has another
        if self._parked != NEW:
            return
        token = _thread.get_ident()
        cell.append(token)
        if cell[1] is token:
            if self._home is None:
                self._home = target
            self._home._post(self)

    def _abandon(self, why: str) -> None:
        """Its home has ended: whoever waits for it is told."""
        raise NotImplementedError


def _is_completion(token: Any) -> bool:
    """Whether it is for one wait only, of a Waker or a TaskWaiter: theirs are negative."""
    return type(token) is int and token < 0


class _Resumption:
    """A mailbox entry that enters a task, unless it has run since it was promised that.

    For a promise that may have been kept: then the task stands in the mailbox before this entry,
    and has run when it is this entry's turn, as a step of the task begins by taking another cell.
    """

    __slots__ = ("_cell", "_task")

    _cancelled = False

    def __init__(self, task: Any, cell: list[Any]) -> None:
        self._task = task
        self._cell = cell

    def _run(self) -> None:
        if self._task._cell is self._cell:
            self._task._run()

    def _unrun(self) -> None:
        """Abandon the task: its home has ended."""
        if self._task._cell is self._cell:
            self._task._abandon("ended with it")


def resume_surely(task: Any, cell: list[Any], token: Any) -> None:
    """Have `task` entered if `token`, in `cell`, promised that, for a wake that was cut short.

    Called from: any thread.
    """
    if cell[0] is PARK and len(cell) > 1 and cell[1] is token:
        task._post_resumption(cell)


class OneSuspension:
    """A mixin that wakes a task from one given suspension, once, and from no later one.

    A subclass has the two fields as slots, and sets them in the running task before it suspends.
    """

    __slots__ = ()

    task: Task[Any]
    cell: list[Any]  # that of the suspension

    def wake(self) -> bool:
        """Put the task into its home's mailbox, unless it is there, or not suspended yet.

        False if its home has ended. Called from: any thread.
        """
        token = -_thread.get_ident()  # negative: for this wait, and for none to come
        cell = self.cell
        task = self.task
        try:
            cell.append(token)
            if cell[0] is PARK and cell[1] is token:
                home: Any = task._home
                home._ready.append(task)
                if home._bell:
                    home._ring(task)
        except ContextClosed:
            # The closer found our promise and left the task to us, who cannot keep it.
            task._abandon("ended with it")
            return False
        except BaseException:
            try:
                resume_surely(task, cell, token)
            except BaseException:  # noqa: BLE001  (no stack here: the first one is raised)
                start_thread(resume_surely, (task, cell, token))
            raise
        # Else too early, and the task will find the token; or too late, after another wake.
        return True

    def rearm(self) -> None:
        """Wake the running task from its next suspension. Called from: task."""
        self.cell = self.task._cell  # type: ignore[misc]  # a slot of the subclass's

    def forget(self) -> None:
        """Leave a wait that failed, perhaps before its suspension, so that no later one is woken.

        Called from: task.
        """
        self.task._renew_cell(self.cell)


class Waker(OneSuspension):
    """Wakes a task from its next suspension, once, and from no later one.

    Made by the running task before it suspends. For whoever completes something for a task: a
    cancellation that came first wins, and the late completion disturbs nobody.
    """

    __slots__ = ("cell", "task")

    def __init__(self, task: Task[Any]) -> None:
        self.task = task
        self.cell = task._cell

    def __call__(self, _: object) -> None:
        """Wake it, as a future's callback. Called from: any thread."""
        self.wake()
