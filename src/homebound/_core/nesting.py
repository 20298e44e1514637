"""Runs of a loop nested in whatever runs there: what is put aside for one, and goes on after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._aio.generators import set_hooks
from .._aio.loop import InheritedLoop
from .._aio.tasks import running_loop, set_running_loop, task_here
from .._os.greenlets import turn_here, turn_in
from .interrupt import note_call

if TYPE_CHECKING:
    from .loop_context import LoopContext


class NestingLoop(InheritedLoop):
    """The part of a loop that begins and ends nested runs."""

    home: LoopContext  # see Loop
    _depth: int  # how many nested runs there are. Home (or its stand-in) only.

    def begin_nested(self) -> tuple[Any, ...]:
        """Let the caller run iterations or tasks of this loop inside whatever runs now.

        The running task, if any, is put aside until `end_nested`; in a stand-in's thread this loop
        is the running one meanwhile. What is left of the batch in which the caller runs goes to the
        next batch.

        `_thread_id` stays the home's, as the home may end or begin a run while a stand-in sleeps.
        """
        task = task_here(self)
        before = running_loop()
        greenlet = turn_here()
        hooks = None
        depth = self._depth
        try:
            if before is not self:
                hooks = self.hear_of_generators()
                set_running_loop(self)
            if task is not None:
                note_call(self.home, task)
                self.home._leave_running(task)
            self._depth = depth + 1
            for _ in self._batch:
                pass
        except BaseException:  # out of stack, for example, or a signal handler's
            turn_in(greenlet)
            if before is not self:
                set_running_loop(before)
                if hooks is not None:
                    set_hooks(hooks)
            if task is not None and task_here(self) is not task:
                self.home._enter_again(task)
            self._depth = depth
            raise
        return task, before, hooks, greenlet

    def end_nested(self, state: tuple[Any, ...]) -> None:
        """Go back to what ran before `begin_nested`."""
        task, before, hooks, greenlet = state
        turn_in(greenlet)
        if before is not self:
            set_running_loop(before)
            set_hooks(hooks)
        if task is not None:
            self.home._enter_again(task)
        self._depth -= 1
