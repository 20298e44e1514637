"""The unfinished tasks of a loop that no thread runs: they rest with its context.

asyncio's record of unfinished tasks keeps ours alive (`_aio/tasks.py`), and each task its home and
the loop. A loop that has stopped may be dropped without a `close`; it is then to be collected with
its tasks, as asyncio's. So a stop hands the tasks at home from that record to the context, and they
rest: `all_tasks` finds them as long as something refers to the loop. The next run hands them back.

Tasks that are made while the loop does not run are handed over when another loop is made, so that
making one costs nothing more. Of the loops that were given tasks after their last run, or instead
of one, the latest is therefore kept until there is another. While the process has more than _MANY
unfinished tasks, loops that stop in quick succession are kept as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._aio.tasks import keep_alive, let_die, let_rest, report_lost, unfinished
from .._os.clock import monotonic

if TYPE_CHECKING:
    from .context import AioContext


_MANY = 1000  # unfinished tasks in the process: with more, it takes milliseconds to read them all
_SPARED = 20  # how many times as long as that took none of them is read again
_MOST_SPARED = 1.0  # seconds; the thread that read them may have had no processor meanwhile


class _Pace:
    """The time at which a long record may be read again. Any thread writes it."""

    again_at = 0.0


_pace = _Pace()


def keep(task: Any) -> None:
    """Keep a task alive that may have rested, unless it is done. Called from: any thread."""
    keep_alive(task)
    if task.done():  # pairs with its end: done, then let_die
        let_die(task)


def rest(kind: type[Any], *contexts: AioContext) -> None:
    """Have the tasks, instances of `kind`, rest whose homes are among these and have no thread.

    Called from: any thread.
    """
    begun = monotonic()
    if begun < _pace.again_at:
        return
    record = unfinished(kind)
    for context in contexts:
        if context._occupy():
            try:
                _rest_at(context, record)
            finally:
                context._vacate()
    if len(record) > _MANY:
        ended = monotonic()
        _pace.again_at = ended + min(_SPARED * (ended - begun), _MOST_SPARED)


def _rest_at(context: AioContext, record: list[Any]) -> None:
    """Have the record's tasks that are at home in a context rest. Called from: its occupant."""
    resting = context._resting
    for task in tuple(resting):
        if task._home is not context or task.done():
            resting.discard(task)
    for task in record:
        if task._home is context and not task.done():
            resting.add(task)
            let_rest(task)
            if task._home is not context:  # pairs with Enterable._claim_in: a new home, then keep
                keep(task)


def rouse(context: AioContext) -> None:
    """Undo `rest`, as a thread is about to run the loop. Called from: home."""
    resting = context._resting
    for task in tuple(resting):
        keep(task)
    resting.clear()


def lose(loop: Any) -> None:
    """Report the pending tasks of an open loop that is collected. Called from: its finaliser."""
    home = getattr(loop, "home", None)
    if home is not None and not home._closed and not loop.is_running():
        home._stand_in.turns = 0  # no thread stands in for a home to which nothing refers
        for task in home._tasks():
            report_lost(task, loop)
