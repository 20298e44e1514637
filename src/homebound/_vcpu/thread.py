"""The thread of a vCPU: how it decides what to do, and how it waits.

It decides one thing at a time, under the gate's guard (`gate.py`, which has the argument for
it), and then does it: run work items, run guest code, sleep, or end. Whoever changes what such a
decision rests on does so under the guard and wakes the thread afterwards; its parker remembers a
wake that comes before the sleep. So no change is slept over.

A vCPU that waits for something in here (another's work item, its turn to be exclusive) is out of
guest code meanwhile, and serves its own work items. So two vCPUs may wait for each other's items,
pause each other, or both want to be exclusive, and none of it hangs.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from .._core.big_lock import big_lock
from .._core.context import whereabouts
from .._errors import ContextClosed, ContextError
from .._os.clock import Deadline
from .._os.process import AtExit, AtFork, at_exit, at_fork
from .._threads.wait_until import Watchers, wait_until
from .gate import Gate

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._os.parking import Parker
    from .._threads.wait_until import Reason
    from .gate import Ticket

_PATIENCE = 1.0  # seconds that a vCPU has at interpreter exit to come out of `execute`
gate = Gate()


class _Mine(threading.local):
    cpu: VCPUThread | None = None  # the vCPU whose thread this is


mine = _Mine()


class Work:
    """A call to be made in a vCPU's thread; the outcome is written before `done`."""

    __slots__ = ("args", "cpu", "done", "error", "exclusive", "finished", "fn", "result")

    def __init__(
        self, cpu: VCPUThread, fn: Callable[..., Any], args: tuple[Any, ...], *, exclusive: bool
    ) -> None:
        self.cpu = cpu  # in whose thread
        self.fn = fn
        self.args = args
        self.exclusive = exclusive  # with all other vCPUs stopped, and without the big lock
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False  # set once, by the vCPU's thread
        self.finished = Watchers()

    def finish(self) -> None:
        self.done = True
        self.finished.tell()

    def __repr__(self) -> str:
        return f"{self.fn!r} in {self.cpu.name!r}"


class Claim:
    """A vCPU's wish to be exclusive. Touched by its own thread only.

    While it waits for its turn the thread may be led into another wait: by a work item, or by a
    task of the main loop, which a stand-in turns. If its turn came now, nobody would take it, and
    all others would wait for the one that waits for them. So a wait inside gives the place up, and
    the wait outside queues again when it is looked at next.
    """

    __slots__ = ("calls", "ticket")

    def __init__(self) -> None:
        self.ticket: Ticket | None = None
        self.calls = 0  # that are being made now: then the turn is in use

    def granted(self) -> bool:
        return self.ticket is not None and self.ticket.granted

    def settled(self) -> bool:
        """It is our turn, or the place in the queue was given up meanwhile."""
        return self.ticket is None or self.ticket.granted

    def give_up(self) -> None:
        ticket, self.ticket = self.ticket, None
        if ticket is not None:
            gate.give_up(ticket)


class VCPUThread:
    """What of a `VCPU` its users do not call."""

    # Given by the constructor of VCPU.
    index: int
    name: str
    _execute: Callable[[Any], object]
    _has_work: Callable[[Any], object] | None
    _interrupt: Callable[[], object] | None

    def __init__(self) -> None:
        # Under the gate's guard, by any thread; read without it by `execute` and for messages.
        self.interrupt_requested: bool = False  # `execute` is to return; see gate.py
        self._kicked = False  # by kick(), since the round that runs now began: it may not halt
        self._halted = False
        self._paused = False
        self._started = False  # these three are set once; `_stopping` refuses new work items
        self._stopping = False
        self._ended = False
        self._work: deque[Work] = deque()  # FIFO; appended by any thread, popped by the vCPU's
        self._entry: Ticket | None = None  # its place in the queue for running guest code
        # The vCPU's thread only.
        self._claim: Claim | None = None  # its wish to be exclusive, or its turn
        self._failure: BaseException | None = None  # constant once `_ended`
        # Where the thread sleeps when it has nothing to do; None before `start` and at the end.
        self._parker: Parker | None = None
        self._nudged = Watchers()  # told with the parker: the thread, when it waits elsewhere
        self._out = Watchers()  # told when it has left guest code, or may not be paused any more
        self._end = Watchers()  # told when it has ended
        self._thread = threading.Thread(target=self._live, name=self.name, daemon=True)

    def _refusal(self, what: str) -> ContextError:
        if not self._started:
            return ContextError(
                f"VCPU.{what} from {whereabouts()}: {self!r} runs nothing before start()"
            )
        failure = self._failure
        because = "" if failure is None else f" (execute raised {failure!r})"
        return ContextClosed(
            f"VCPU.{what} from {whereabouts()}: {self!r} has been stopped{because} and runs no "
            "more work items; make another vCPU, or ask before stop()"
        )

    def _must_stay_out(self) -> bool:
        """No guest code for now. Under the gate's guard."""
        return self._paused and not self._stopping

    def _wake(self) -> None:
        """Its thread looks again. Called from: any thread, without the guard."""
        parker = self._parker
        if parker is not None:
            parker.unpark()
        self._nudged.tell()

    def _call_out(self) -> None:
        """After setting `interrupt_requested`: out of guest code, out of sleep."""
        self._interrupt_execute()
        self._wake()

    def _interrupt_execute(self) -> None:
        if self._interrupt is not None:
            self._interrupt()

    def _ask_to_stop(self) -> None:
        with gate.guard:
            self._stopping = True
            self.interrupt_requested = True
        self._call_out()

    @staticmethod
    def _wait(
        what: Reason, done: Callable[[], object], watched: Watchers, timeout: float | None = None
    ) -> None:
        """Wait, as whatever this thread is: perhaps a vCPU."""
        cpu = mine.cpu
        if cpu is None:
            wait_until(what, done, watched, timeout=timeout)
        else:
            cpu._wait_outside(what, done, watched, timeout=timeout)

    def _wait_outside(
        self,
        what: Reason,
        done: Callable[[], object],
        watched: Watchers,
        timeout: float | None = None,
    ) -> None:
        """A wait of this vCPU: it is out of guest code, and serves its work items."""
        deadline = Deadline(timeout)
        was_inside = gate.leave(self)
        try:
            while not done():
                self._pass_turn(waits_for_it=watched is self._nudged)
                left = deadline.left()
                wait_until(
                    what,
                    lambda: done() or self._work,
                    watched,
                    self._nudged,
                    timeout=None if left is None else max(0.0, left),
                )
                self._run_work()
        finally:
            if was_inside:
                self._go_back_in()

    def _pass_turn(self, *, waits_for_it: bool = False) -> None:
        """Before each sleep, work items may have claimed a turn: nobody takes it while we sleep."""
        claim = self._claim
        if claim is not None and not claim.calls and not waits_for_it:
            claim.give_up()

    def _go_back_in(self) -> None:
        """On with the round that was left for a wait; not while paused, or others are exclusive."""
        what = ("running guest code again", self)
        while not gate.enter(self, fresh=False):
            self._pass_turn()
            wait_until(what, lambda: self._work or gate.worth_entering(self), self._nudged)
            self._run_work()

    def _run_work(self) -> None:
        """As many items as there are now: one that asks for more does not keep us from the rest."""
        for _ in range(len(self._work)):
            with gate.guard:
                if not self._work:
                    return  # an item has waited, and so served the others
                work = self._work.popleft()
            try:
                work.result = self._call(work)
            except BaseException as error:  # noqa: BLE001  (raised where it was asked for)
                work.error = error
            work.finish()

    def _call(self, work: Work) -> Any:
        if work.exclusive:
            return self._call_exclusively(work)
        if big_lock.held():
            return work.fn(*work.args)
        with big_lock:
            return work.fn(*work.args)

    def _call_exclusively(self, work: Work) -> Any:
        claim = self._claim
        if claim is not None:  # inside another exclusive call of ours, which may have to wait yet
            return self._call_in_turn(claim, work)
        was_inside = gate.leave(self)
        claim = self._claim = Claim()
        try:
            return self._call_in_turn(claim, work)
        finally:
            self._claim = None
            claim.give_up()
            if was_inside:
                self._go_back_in()

    def _call_in_turn(self, claim: Claim, work: Work) -> Any:
        what = ("being exclusive", self)
        while not claim.granted():
            if claim.ticket is None:
                claim.ticket = gate.claim(self)
            self._wait_outside(what, claim.settled, self._nudged)
        claim.calls += 1
        try:
            return work.fn(*work.args)
        finally:
            claim.calls -= 1

    def _live(self) -> None:
        mine.cpu = self
        try:
            while self._step():
                pass
        except BaseException as error:  # noqa: BLE001  (reported, and raised by join)
            self._fail(error)
            while self._step():
                pass
        finally:
            self._mark_ended()

    def _step(self) -> bool:
        """Decide under the guard, then do it; False at the end."""
        with gate.guard:
            work, stopping = bool(self._work), self._stopping
            idle = self._paused or self._halted
        if work or stopping or idle:
            gate.leave(self)  # it may have queued for running guest code, or got there by now
            if work:
                self._run_work()
            elif stopping:
                return False  # no item can come any more: `_submit` refuses since `_stopping`
            elif not self._has_got_work():
                self._sleep()
        elif gate.enter(self, fresh=True):
            try:
                self._execute(self)
            finally:
                gate.leave(self)
        else:
            self._sleep()
        return True

    def _sleep(self) -> None:
        assert self._parker is not None
        self._parker.park()

    def _has_got_work(self) -> bool:
        """The halt condition, looked at after whatever has woken us."""
        if self._has_work is None or self._paused or not self._has_work(self):
            return False
        with gate.guard:
            self._halted = False
        return True

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        with gate.guard:
            self._stopping = True
        self._report(error)

    def _report(self, error: BaseException | None) -> None:
        if error is not None:
            args = (type(error), error, error.__traceback__, self._thread)
            threading.excepthook(threading.ExceptHookArgs(args))

    def _mark_ended(self) -> None:
        with gate.guard:
            self._stopping = self._ended = True
            gate.cpus.discard(self)
            left = list(self._work)
            self._work.clear()
        gate.leave(self)
        self._parker = None  # who is about to unpark it holds a reference, and so its descriptor
        for work in left:  # the thread could not start, or threading.excepthook has raised
            work.error = self._refusal("run_on_cpu")
            work.finish()
        self._out.tell()
        self._end.tell()


def _stop_all() -> None:
    """The interpreter ends: let vCPUs come out of guest code before their threads are frozen."""
    with gate.guard:  # one that ends by itself takes itself out
        cpus = tuple(gate.cpus)
    for cpu in cpus:
        cpu._ask_to_stop()
    for cpu in cpus:
        cpu._thread.join(_PATIENCE)


def _begin_as_child() -> None:
    """A forked process has none of its parent's vCPU threads, and perhaps a guard left locked."""
    cpus = tuple(gate.cpus)
    gate.__init__()  # type: ignore[misc]
    mine.cpu = None
    for cpu in cpus:
        cpu._stopping = cpu._ended = True


at_exit(AtExit.VCPUS, _stop_all)
at_fork(AtFork.VCPUS, _begin_as_child)
