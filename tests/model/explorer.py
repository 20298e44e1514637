"""Runs the real code of a few threads in every order that matters, one line at a time.

A *scenario* makes objects and names the actors, functions that are each called in a thread of its
own. Only one of them runs at any time; at each line of the traced files another may go on instead.
`explore` runs the scenario again and again, until it has tried every order: any number of switches
where an actor has to wait, and up to `preemptions` where it could have gone on. Most races need one
or two.

The explorer must know what blocks, so the guards and the parkers of the code are replaced
(`Run.allocate_lock`, `Run.my_parker`). An actor that may be cancelled is, in some of the runs, at
any moment of its first sleep: before it was woken, or after, when it already has what it waits for.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


class Cancelled(BaseException):
    """Raised in an actor's sleep, like KeyboardInterrupt in a thread's."""


class _Abandoned(BaseException):
    """The run is over: some actor failed, or all wait."""


class StuckError(AssertionError):
    """All actors that have not ended wait."""


class Actor:
    """A thread of the run. What it waits for, if it waits, is a predicate."""

    def __init__(self, run: Run, name: str, body: Callable[[], Any], cancel: str) -> None:
        self.run = run
        self.name = name
        self.body = body
        self.cancellable = cancel != "never"
        self.surely = cancel == "surely"
        self.waits_for: Callable[[], object] | None = None
        self.told = False  # its parker's counter
        self.over = False
        self.result: Any = None  # or "cancelled"
        self.turn = threading.Lock()
        self.turn.acquire()
        self.thread = threading.Thread(target=self.live, name=name, daemon=True)

    def ready(self) -> bool:
        if self.over or self.waits_for is None:
            return not self.over
        self.run.looking = True  # a predicate's code may be traced: it is no actor's step
        try:
            return bool(self.waits_for())
        finally:
            self.run.looking = False

    def live(self) -> None:
        self.turn.acquire()
        sys.settrace(self.run.trace)
        try:
            self.run.check_abandoned()
            self.result = self.body()
        except Cancelled:
            self.result = "cancelled"
        except _Abandoned:
            pass
        except BaseException as error:  # noqa: BLE001  (`explore` raises it)
            self.run.fail(error)
        finally:
            sys.settrace(None)
            self.over = True
            self.run.change(self)

    # The parker that the code takes for its thread's.

    def park(self, timeout: float | None = None) -> None:
        assert timeout is None, "time does not pass here"
        may_cancel = self.cancellable
        self.run.wait(self, lambda: self.told or may_cancel)
        if may_cancel and (not self.told or self.run.choose(2)):
            self.cancellable = False
            raise Cancelled
        self.told = False

    def unpark(self) -> None:
        self.told = True


class Guard:
    """The lock that the code takes for a raw one."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.taken = False

    def acquire(self, blocking: bool = True) -> bool:  # noqa: FBT001, FBT002  (a lock's signature)
        if self.taken and not blocking:
            return False
        if self.taken:
            self.run.wait(self.run.current, lambda: not self.taken)
        self.taken = True
        return True

    def release(self) -> None:
        self.taken = False

    def _is_owned(self) -> bool:
        return False  # no actor is interrupted by a finaliser

    __enter__ = acquire

    def __exit__(self, *_error: object) -> None:
        self.release()


class Run:
    """One run. It begins with the given `choices`, and takes the first option from there on."""

    def __init__(self, files: set[str], preemptions: int, choices: list[int]) -> None:
        self.files = files
        self.left = preemptions
        self.choices = choices
        self.made: list[tuple[int, int]] = []  # the option chosen, of how many
        self.actors: list[Actor] = []
        self.current: Any = None
        self.looking = False
        self.error: BaseException | None = None
        self.ended = threading.Event()

    # For scenarios.

    def actor(self, body: Callable[[], Any], *, cancel: str = "never") -> Actor:
        """`cancel`: never, maybe (in some runs), or surely (in all) in its first sleep."""
        actor = Actor(self, f"actor{len(self.actors)}", body, cancel)
        self.actors.append(actor)
        return actor

    def until(self, predicate: Callable[[], object]) -> None:
        """Have an actor wait for what others do."""
        self.wait(self.current, predicate)

    # For the code under test.

    def allocate_lock(self) -> Guard:
        return Guard(self)

    def my_parker(self) -> Actor:
        actor: Actor = self.current
        return actor

    # The choice of the actor that goes on.

    def choose(self, options: int) -> int:
        at = len(self.made)
        chosen = self.choices[at] if at < len(self.choices) else 0
        self.made.append((chosen, options))
        return chosen

    def trace(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        # Once it may not be stopped any more, its lines are not traced.
        return self.line if self.left and frame.f_code.co_filename in self.files else None

    def line(self, _frame: FrameType, event: str, _arg: Any) -> Any:
        if event == "line" and self.left and not self.looking:
            others = [each for each in self.actors if each is not self.current and each.ready()]
            chosen = self.choose(1 + len(others)) if others else 0
            if chosen:
                self.left -= 1
                self.hand_over(self.current, others[chosen - 1])
        return self.line

    def wait(self, actor: Actor, predicate: Callable[[], object]) -> None:
        actor.waits_for = predicate
        self.change(actor)
        actor.waits_for = None

    def change(self, actor: Actor) -> None:
        """Let another actor run; this one goes on as well once it is ready."""
        ready = [each for each in self.actors if each.ready()]
        if self.error is not None or not ready:
            self.give_up(actor)
        else:
            chosen = ready[self.choose(len(ready))]
            if chosen is not actor:
                self.hand_over(actor, chosen)

    def hand_over(self, actor: Actor, to: Actor) -> None:
        self.current = to
        to.turn.release()
        if not actor.over:
            actor.turn.acquire()
            self.check_abandoned()

    def give_up(self, actor: Actor) -> None:
        """End the run, in which no actor can go on: the actors unwind one after the other."""
        left = [each for each in self.actors if not each.over]
        if left and self.error is None:
            self.error = StuckError([each.name for each in left])
        if not actor.over:
            raise _Abandoned
        if left:
            self.current = left[0]
            left[0].turn.release()
        else:
            self.ended.set()

    def fail(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error

    def check_abandoned(self) -> None:
        if self.error is not None:
            raise _Abandoned

    def go(self) -> None:
        for actor in self.actors:
            if actor.cancellable and not actor.surely:
                actor.cancellable = bool(self.choose(2))  # otherwise never seen to be stuck
            actor.thread.start()
        self.current = self.actors[self.choose(len(self.actors))]
        self.current.turn.release()
        assert self.ended.wait(20), "the explorer itself hangs"
        for actor in self.actors:
            actor.thread.join()


def explore(
    scenario: Callable[[Run], Callable[[], object]], files: set[str], preemptions: int = 2
) -> int:
    """Run a scenario in every order; return the number of runs. A failed run raises its choices.

    The scenario is called with a fresh `Run` each time, and returns the check of the end.
    """
    choices: list[int] = []
    runs = 0
    while True:
        run = Run(files, preemptions, choices)
        check = scenario(run)
        run.go()
        runs += 1
        if run.error is not None:
            run.error.add_note(f"in run {runs}, of the choices {[each for each, _ in run.made]}")
            raise run.error
        check()
        while run.made and run.made[-1][0] + 1 == run.made[-1][1]:
            run.made.pop()
        if not run.made:
            return runs
        choices = [chosen for chosen, _ in run.made]
        choices[-1] += 1
