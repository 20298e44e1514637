"""The cell of a task: it decides which thread may enter a suspended task.

A cell is a list, made afresh for each suspension. Each side appends one item and then looks:

    the home appends SUSPENDED once the coroutine has given up control in `suspend()`;
    a waker (`wake`, `schedule`, `enter`, a completion) appends its own token.

The first two items decide, and `list.append` is atomic, so all see the same two. A waker finds

    [SUSPENDED, its token]: it alone has the task, and puts it into its home's mailbox;
    [its token, ...]: it was early; the home finds the token, and queues the task on its behalf;
    anything else: another waker was first, and this one raises AlreadyScheduled.

A late waker still holds the list of an earlier suspension, and loses. tests/model/wakecell.pml
searches every interleaving of this, and catches the variants that look before they append.

A token counts for one suspension, and none may remain for the next. A task that was cancelled
before it gives up control claims the suspension itself. A wait that fails before its suspension
moves on to another cell (`_renew_cell`): the token of a completion in the old cell, a negative
number, is dropped, and that of `wake` is kept. A waker that finds that its cell was left goes on in
the next one.
"""

from __future__ import annotations

import _thread
from _thread import start_new_thread as start_thread
from typing import TYPE_CHECKING, Any, TypeVar

from .._aio.tasks import keep_alive, task_here
from .._errors import AlreadyScheduled, ContextClosed, ContextError, NotSuspended
from .big_lock import shown_thread
from .context import whereabouts
from .coroutines import waited_for
from .current import current_context, here
from .pursuit import held
from .resting import keep
from .resumption import Resumption
from .task_interface import CANCEL, CANCEL_SURELY, CANCELS, TaskFuture

if TYPE_CHECKING:
    from .context import AioContext
    from .task import Task

T = TypeVar("T")


class _Suspended:
    """The type of SUSPENDED, which `suspend` yields and the home appends to the cell."""

    def __repr__(self) -> str:
        # asyncio shows this as "Task got bad yield: ..." when a task of its own awaits suspend().
        return (
            "homebound.suspend() (only a homebound.Task can be suspended: make the task with "
            "AioContext.spawn, or run it on a loop of homebound.new_event_loop)"
        )


SUSPENDED = _Suspended()


class _Promised(list[Any]):
    """The cell of each task that was queued as it was made: every waker is too late."""

    def append(self, _: object) -> None:
        """Drop the token: its waker has lost."""


PROMISED = _Promised([SUSPENDED, 0])


class _Left:
    """An item in a cell that the task has left before any token came; it has the next cell."""

    __slots__ = ("cell",)

    def __init__(self) -> None:
        self.cell: list[Any] = []


# Values of _suspended for a task that is not; for one that is suspended it is True.
NEW = 2  # it has not begun
MOVING = -1  # it has left one home for another, and has not run there


class Enterable(TaskFuture[T]):
    """The part of a task that suspends it and that one of many wakers enters again."""

    __slots__ = (
        "_cancelled",  # always False, as a mailbox has it. A slot is what is read fastest
        "_cell",  # the tokens of its wakers. Any thread appends; the home replaces it
        "_fut_waiter",  # the future it awaits, else None. Home only
        "_suspended",  # False, True while suspended in suspend(), NEW or MOVING. Home only
    )

    _cell: list[Any]
    _fut_waiter: Any
    _suspended: int

    _cancelled: bool

    def _run(self) -> None:
        """Run one step of the coroutine."""
        raise NotImplementedError

    def wake(self) -> None:
        """Resume the task at its home: `home.enter(task)`.

        In its home's thread (or a stand-in's) it runs at once, or when the running task suspends;
        from any other thread it is queued at home. If it has not suspended yet, it resumes once it
        has: store the result, then wake. Raises AlreadyScheduled if it has already been woken,
        NotSuspended if it is finished, runs, or waits for something else, ContextClosed if its home
        has ended.

        Called from: any thread.
        """
        home = self._home
        if home is None:
            message = (
                f"Task.wake(): task {self.get_name()!r} has no home yet; "
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
            if cell[0] is SUSPENDED and cell[1] is token:
                # Read again: until it has run, only this thread can move the task.
                home = self._home  # type: ignore[assignment]
                home._ready.append(self)
                if home._bell:
                    home._ring(self)
                return
        except ContextClosed:
            self._abandon("ended with it")  # the closer has left that to this thread
            raise
        except BaseException:
            try:
                resume_surely(self, cell, token)
            except BaseException:  # noqa: BLE001  (surely.py)
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
        """Claim the task for `target`. True: the caller must queue it there now."""
        return self._claim_in(self._cell, target)

    def _claim_in(self, cell: list[Any], target: AioContext) -> bool:
        token = (target, _thread.get_ident())
        try:
            cell.append(token)
        except BaseException:
            if len(cell) > 1 and cell[0] is SUSPENDED and cell[1] is token:
                self._cell = [SUSPENDED]  # as `_unclaim`: nothing has happened
            raise
        if cell[0] is SUSPENDED:
            if cell[1] is token:
                if self._home is not target:
                    if held and self._left_to_holder(token):
                        return False
                    self._home = target  # then keep: pairs with `rest`
                    keep(self)
                return True
        elif cell[0] is token and not self.done():
            return False  # early: the home does it when the task has suspended
        later = self._cell_after(cell)
        if later is None:
            raise self._refusal("enter", cell)
        return self._claim_in(later, target)

    def _left_to_holder(self, claim: Any) -> bool:
        """Leave the claim to the thread that acts on the task at its home, if one does."""
        claims = held.get((self, self._home))
        if claims is None:
            return False
        claims.append(claim)
        return claims[0] is claim

    def _seen_from(self, home: AioContext | None) -> AioContext | None:
        """Return where to act on it, seen from the thread of `home`: there, or where it goes."""
        cell = self._cell  # in this order, as in `_claim_to_cancel`
        there = self._home
        tokens = cell.copy()  # through the list's own lock: pairs with the append in `_claim_in`
        if there is home and len(tokens) > 1 and tokens[0] is SUSPENDED:
            first = tokens[1]
            if type(first) is tuple:
                return first[0]  # type: ignore[no-any-return]
        return there

    def _claim_to_cancel(self, home: AioContext) -> bool | AioContext:
        """Claim the task in the thread of `home`, before it is changed there.

        True: the caller must queue it. False: it runs next in this thread, or waits for something
        else. A context: another thread takes it there, where it may run by now.
        """
        # In this order: a waker sets the new home before the task runs there, and only then has it
        # another cell. So a cell that is seen with this home is the last one, or is decided.
        cell = self._cell
        suspended = self._suspended > 0
        there = self._home
        if there is not home and there is not None:
            return there
        if not suspended or not cell or cell[0] is not SUSPENDED:
            return False
        token = _thread.get_ident()
        cell.append(token)
        first = cell[1]
        if type(first) is tuple and first[0] is not home and (self, home) not in held:
            return first[0]  # type: ignore[no-any-return]
        return first is token

    def _arrive(self) -> None:
        """Begin a step of a task that was suspended, or is new, or has moved here. Home only."""
        before = self._suspended
        if before == NEW:
            keep_alive(self)  # it was made without being queued
        self._suspended = False
        if before != MOVING:
            self._cell = []

    def _claim_own_suspension(self) -> list[Any]:
        """Claim the suspension of a task that has something to throw; return its cell. Home only.

        The first token there is that of an earlier wake, or this one.
        """
        if self._throw is CANCEL:  # before it suspended
            self._throw = CANCEL_SURELY
        tokens = (_thread.get_ident(), SUSPENDED)
        self._suspended = True
        cell = self._cell
        cell.extend(tokens)
        return cell

    def _queue_early(self, token: Any) -> None:
        """Queue it as it suspends, for a wake that came first, with that token."""
        if type(token) is tuple:
            self._home = token[0]
        home: AioContext = self._home  # type: ignore[assignment]
        try:
            home._post(self)
        except ContextClosed as closed:
            self._resume_with(closed)

    def _resume_with(self, error: BaseException) -> None:
        """Throw `error` in the task's next step, in the current context.

        A cancellation that is pending is thrown instead, as by asyncio.
        """
        context = current_context()
        if context is not None:
            self._home = context
        self._throw = CANCEL_SURELY if self._throw in CANCELS else error
        self._home._ready.append(self)  # type: ignore[union-attr]

    def _renew_cell(self, cell: list[Any]) -> None:
        """Leave `cell` if a wait of the running task failed before its suspension there.

        Home only. The completion that was to wake it has no effect, before or after this.
        """
        if self._cell is not cell:
            return
        left = _Left()
        cell.append(left)
        first = cell[0]
        if first is left or _is_completion(first):
            self._cell = left.cell

    def _cell_after(self, cell: list[Any]) -> list[Any] | None:
        """Return the cell to go on in, if `_renew_cell` left `cell`; None if the token has lost."""
        first = cell[0]
        if type(first) is _Left:
            return first.cell
        latest = self._cell
        return latest if _is_completion(first) and latest is not cell else None

    def _unclaim(self, home: AioContext | None) -> None:
        """Undo a claim that the caller cannot fulfil: suspended again, at home in `home`."""
        self._home = home
        self._cell = [SUSPENDED]

    def _post_resumption(self, cell: list[Any]) -> None:
        """Have it entered if it has not run since `cell` promised that. Any thread."""
        home: Any = self._home
        try:
            home._post(Resumption(self, cell))
        except ContextClosed:
            self._abandon("ended with it")

    def _resume_as_promised(self) -> None:
        """Have it entered if this thread was to queue it, and it has not run since. Home only."""
        cell = self._cell
        if len(cell) < 2:  # noqa: PLR2004  (it waits to be woken)
            return
        token = cell[0]
        if token is SUSPENDED:  # else the wake came first, and the home queues the task
            token = cell[1][1] if type(cell[1]) is tuple else abs(cell[1])
            if token != _thread.get_ident():
                return
        if type(token) is int:
            self._post_resumption(cell)

    def _begin_surely(self) -> None:
        """Have a task that was made to be queued begin, if it has not; its post was cut short."""
        try:
            self._post_resumption(PROMISED)
        except BaseException:  # noqa: BLE001  (surely.py)
            start_thread(self._post_resumption, (PROMISED,))

    def _claimed_by_closer(self) -> bool:
        """Claim a task that waits, for its home, which is being closed.

        False if a waker has claimed it, or if it is on its way here.

        True again if this thread repeats it, as it was interrupted. (A wake by it is over: it has
        queued the task at home, or abandoned it.)
        """
        if self._suspended <= 0:
            return self._fut_waiter is not None
        token = _thread.get_ident()
        cell = self._cell
        cell.append(token)
        return cell[0] is SUSPENDED and bool(cell[1] == token)

    def _claim_at_home(self, context: AioContext) -> bool:
        """Claim the task for `context`, whose home is the calling thread."""
        suspended = self._suspended  # compared by identity first: that of a bool and an int is slow
        if self._home is context and suspended is not True and suspended != NEW:
            hint = ""
            if self.done():
                state = "is finished"
                hint = "; a late waker looks at task.done() first"
            elif task_here(context.loop) is self:
                state = "is running"
            elif self._fut_waiter is not None:
                state = f"waits for {waited_for(self._fut_waiter)}"
                hint = "; another wait ends by what it waits for, or by cancel()"
            else:
                state = "is about to run"
            message = (
                f"task {self.get_name()!r} {state}, and only a task in suspend() can be entered or "
                f"woken{hint}. Called in {whereabouts()}"
            )
            raise NotSuspended(message)
        return self._claim(context)

    def _refusal(self, what: str, cell: list[Any]) -> ContextError:
        if self.done():
            return NotSuspended(
                f"{what}: task {self.get_name()!r} is finished; it cannot be entered again"
            )
        first = cell[1] if cell[0] is SUSPENDED else cell[0]
        target, ident = first if type(first) is tuple else (self._home, first)
        if ident:
            who = f"thread {shown_thread(abs(ident))}"
        else:
            who = "the call that made it (spawn, create_task)"
        return AlreadyScheduled(
            f"{what}: {who} has already scheduled task {self.get_name()!r} in {target!r}, and it "
            "has not run since: let one waker wake it, or use a Queue or a Semaphore, which count. "
            f"Called in {whereabouts()}"
        )

    def _begin_if_new(self, target: AioContext) -> None:
        """Queue a task that was made but never queued, at its home or else in `target`."""
        cell = self._cell  # before the look: a task that has begun has another
        if self._suspended != NEW:
            return
        token = _thread.get_ident()
        cell.append(token)
        if cell[1] is token:
            if self._home is None:
                self._home = target
            self._home._post(self)

    def _abandon(self, why: str) -> None:
        """End the task, as its home has ended, and notify its waiters."""
        raise NotImplementedError


def _is_completion(token: Any) -> bool:
    """Return whether the token is for one wait only, a Waker's or TaskWaiter's: a negative one."""
    return type(token) is int and token < 0


def resume_surely(task: Any, cell: list[Any], token: Any) -> None:
    """Have `task` entered if `token`, in `cell`, promised that, for a wake that was cut short.

    Called from: any thread.
    """
    if cell[0] is SUSPENDED and len(cell) > 1 and cell[1] is token:
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
            if cell[0] is SUSPENDED and cell[1] is token:
                home: Any = task._home
                home._ready.append(task)
                if home._bell:
                    home._ring(task)
        except ContextClosed:
            # The closer found this token and left the task, which cannot run any more.
            task._abandon("ended with it")
            return False
        except BaseException:
            try:
                resume_surely(task, cell, token)
            except BaseException:  # noqa: BLE001  (surely.py)
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

    The running task makes it before it suspends, for the code that completes what it waits for. If
    a cancellation comes first, it wins, and the late completion has no effect.
    """

    __slots__ = ("cell", "task")

    def __init__(self, task: Task[Any]) -> None:
        self.task = task
        self.cell = task._cell

    def __call__(self, _: object) -> None:
        """Wake it, as a future's callback. Called from: any thread."""
        self.wake()
