"""The thread of a vCPU: how it decides what to do, and how it waits.

It makes one decision at a time under the gate's guard (the head of gate.py has the argument), and
then acts on it: it runs work items, runs guest code, sleeps, or ends. Another thread changes what
such a decision depends on under the guard, and wakes this one afterwards; the parker remembers a
wake that comes before the sleep. So no change is missed.

A vCPU that waits for another one, or for its turn to be exclusive, is out of guest code meanwhile
and runs its own work items. So two vCPUs may wait for each other's items, pause each other, or both
claim to be exclusive, without a deadlock.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from .._core.big_lock import big_lock
from .._core.context import whereabouts
from .._errors import ContextClosed, ContextError
from .._os.clock import Deadline
from .._os.process import AtExit, AtFork, at_exit, at_fork
from .._os.reports import report
from .._os.snapshot import snapshot
from .._os.threads import NoticedThread, ended_early
from .._threads.wait_until import Watchers, wait_until
from .gate import Entrant, Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .._os.parking import Parker
    from .._threads.wait_until import Reason
    from .gate import Ticket

_PATIENCE = 1.0  # seconds that a vCPU has at interpreter exit to come out of `execute`
# What the waits are for, as dumps show it; `_needed` goes by it.
JOIN, PAUSE = "VCPU.join", "VCPU.pause"
_EXCLUSIVE, _BACK_IN = "being exclusive", "running guest code again"
gate = Gate()


class _Mine(threading.local):
    cpu: VCPUThread | None = None  # the vCPU whose thread this is


mine = _Mine()


class Work:
    """A call to make in a vCPU's thread. The outcome is written before `done`."""

    __slots__ = ("args", "cpu", "done", "error", "exclusive", "finished", "fn", "result")

    def __init__(
        self, cpu: VCPUThread, fn: Callable[..., Any], args: tuple[Any, ...], *, exclusive: bool
    ) -> None:
        self.cpu = cpu
        self.fn = fn
        self.args = args
        self.exclusive = exclusive  # with all other vCPUs stopped, and without the big lock
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False  # set once, by the vCPU's thread
        self.finished = Watchers()

    def finish(self) -> None:
        """Mark it done, and notify the waiters. Called from: the vCPU's thread."""
        self.done = True
        self.finished.tell()

    def __repr__(self) -> str:
        return f"{self.fn!r} in {self.cpu.name!r}"


class Claim:
    """A vCPU's claim to be exclusive. Used by its own thread only.

    While the thread waits for its turn, it may enter another wait: in a work item, or in a task of
    the main loop that it turns as a stand-in. A turn granted now would not be used, and all other
    vCPUs would wait for one that waits for them. So the inner wait gives the place up, and the
    outer wait queues again when it next looks.
    """

    __slots__ = ("calls", "ticket")

    def __init__(self) -> None:
        self.ticket: Ticket | None = None
        self.calls = 0  # in progress; while there are any, the turn is in use

    def granted(self) -> bool:
        """Return True while it is this vCPU's turn."""
        return self.ticket is not None and self.ticket.granted

    def settled(self) -> bool:
        """Return True once it is this vCPU's turn, or its place in the queue was given up."""
        return self.ticket is None or self.ticket.granted

    def give_up(self) -> None:
        """End the turn, or the wait for it."""
        ticket, self.ticket = self.ticket, None
        if ticket is not None:
            gate.give_up(ticket)


class VCPUThread(Entrant):
    """The thread's half of a `VCPU`: what its users do not call."""

    # Given by the constructor of VCPU.
    index: int
    name: str
    _execute: Callable[[Any], object]
    _has_work: Callable[[Any], object] | None
    _interrupt: Callable[[], object] | None

    def __init__(self) -> None:
        super().__init__()
        # The vCPU's thread only.
        self._claim: Claim | None = None  # to be exclusive, waiting or granted
        self._failure: BaseException | None = None  # constant once `_ended`
        # Where the thread sleeps when it has nothing to do; None before `start` and at the end.
        self._parker: Parker | None = None
        self._nudged = Watchers()  # told with the parker: for a thread that sleeps elsewhere
        self._end = Watchers()  # told when it has ended
        self._thread = NoticedThread(self._live, self._thread_ends, self.name)

    def _refusal(self, what: str) -> ContextError:
        if not self._started:
            return ContextError(
                f"VCPU.{what} from {whereabouts()}: {self!r} runs nothing before start()"
            )
        failure = self._failure
        because = "" if failure is None else f" (execute raised {failure!r})"
        return ContextClosed(
            f"VCPU.{what} from {whereabouts()}: {self!r} has been stopped{because} and runs no "
            "more work items; make another vCPU, or submit it before stop()"
        )

    def _wake(self) -> None:
        """Have its thread look again. Called from: any thread, without the guard."""
        parker = self._parker
        if parker is not None:
            parker.unpark()
        self._nudged.tell()

    def _interrupt_and_wake(self) -> None:
        """Bring the thread out of guest code and out of sleep, after `interrupt_requested`."""
        self._interrupt_execute()
        self._wake()

    def _interrupt_execute(self) -> None:
        if self._interrupt is not None:
            self._interrupt()

    def _ask_to_stop(self) -> None:
        with gate.guard:
            self._stopping = True
            self.interrupt_requested = True
        self._interrupt_and_wake()

    @staticmethod
    def _wait(
        what: Reason, done: Callable[[], object], watched: Watchers, timeout: float | None = None
    ) -> None:
        """Wait in the calling thread, which may be that of a vCPU."""
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
        """Wait in this vCPU's thread, out of guest code, running its work items meanwhile."""
        deadline = Deadline(timeout)
        was_inside = gate.take_out(self)
        try:
            while not done():
                self._pass_turn(waits_for_it=watched is self._nudged)
                wait_until(
                    what,
                    lambda: done() or self._work,
                    watched,
                    self._nudged,
                    timeout=deadline.timeout(),
                )
                self._run_work()
        finally:
            if was_inside:
                self._go_back_in()

    def _pass_turn(self, *, waits_for_it: bool = False) -> None:
        """Give up a turn that was claimed for another wait, as it cannot be used in a sleep."""
        claim = self._claim
        if claim is not None and not claim.calls and not waits_for_it:
            claim.give_up()

    def _go_back_in(self) -> None:
        """Continue the round that a wait has left, once no pause or exclusive vCPU forbids it."""
        what = (_BACK_IN, self)
        while not gate.admit(self, fresh=False):
            self._pass_turn()
            wait_until(what, lambda: self._work or gate.worth_asking(self), self._nudged)
            self._run_work()

    def _run_work(self) -> None:
        """Run as many items as there are now; items that queue others do not keep it here."""
        for _ in range(len(self._work)):
            with gate.guard:
                if not self._work:
                    return  # an item has waited, and so has run the others
                work = self._work.popleft()
            try:
                work.result = self._call(work)
            except BaseException as error:  # noqa: BLE001  (raised in the caller)
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
        if claim is not None:  # inside another exclusive call, which may still wait
            return self._call_in_turn(claim, work)
        was_inside = gate.take_out(self)
        claim = self._claim = Claim()
        try:
            return self._call_in_turn(claim, work)
        finally:
            self._claim = None
            claim.give_up()
            if was_inside:
                self._go_back_in()

    def _call_in_turn(self, claim: Claim, work: Work) -> Any:
        what = (_EXCLUSIVE, self)
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
            gate.take_out(self)  # it may have queued to run guest code, or been let in by now
            if work:
                self._run_work()
            elif stopping:
                return False  # `_submit` refuses items since `_stopping`: none can follow
            elif not self._has_got_work():
                self._sleep()
        elif gate.admit(self, fresh=True):
            try:
                self._execute(self)
            finally:
                gate.take_out(self)
        else:
            self._sleep()
        return True

    def _sleep(self) -> None:
        assert self._parker is not None
        self._parker.park()

    def _has_got_work(self) -> bool:
        """Check the halt condition, after each wake-up; if there is work, end the halt."""
        if self._has_work is None or self._paused or not self._has_work(self):
            return False
        with gate.guard:
            self._halted = False
        return True

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        with gate.guard:
            self._stopping = True
        report(error, f"VCPU {self.name!r} stops it")

    def _thread_ends(self, thread: NoticedThread) -> None:
        """Note the end of a thread that may not have come to the end of `_live`."""
        if not self._ended and self._failure is None:
            self._failure = ended_early(thread)
        self._mark_ended()  # again, if it was cut short

    def _mark_ended(self) -> None:
        with gate.guard:
            self._stopping = self._ended = True
            gate.cpus.discard(self)
            left = list(self._work)
            self._work.clear()
        gate.take_out(self)
        self._parker = (
            None  # a thread about to unpark it has a reference, so the descriptor stays open
        )
        for work in left:  # the thread could not start, or threading.excepthook raised
            work.error = self._refusal("run_on_cpu")
            work.finish()
        self._out.tell()
        self._end.tell()


def thread_of(subject: VCPUThread | Work) -> int | None:
    """Return the ident of the thread that a wait for `subject` is for. Called from: any thread."""
    cpu = subject.cpu if isinstance(subject, Work) else subject
    return cpu._thread.ident


def threads_needed(what: str, subject: VCPUThread | Work, *, serves: bool) -> Iterable[int]:
    """Return the threads, by ident, that must get on before the wait `what` for `subject` ends.

    `serves`: the vCPU's thread is itself in a wait of this kind, and so runs queued work items.

    Called from: any thread.
    """
    return [each for each in _needed(what, subject, serves=serves) if each is not None]


def _needed(what: str, subject: VCPUThread | Work, *, serves: bool) -> Iterable[int | None]:
    own = [thread_of(subject)]
    owner = gate.owner
    if isinstance(subject, Work):
        # A waiting vCPU runs what is queued. An item that it runs already is further up its stack.
        is_served = serves and subject in snapshot(subject.cpu._work)
        return [] if subject.done or is_served else own
    if what == JOIN:
        return [] if subject._ended else own
    if what == PAUSE:
        return [] if gate.is_out(subject) or not subject._paused else own
    if owner is not None and owner.cpu is not subject:
        return [thread_of(owner.cpu)]
    if what == _EXCLUSIVE:
        return [thread_of(each) for each in gate.running.copy()]
    return []


def _stop_all() -> None:
    """Bring all vCPUs out of guest code before the interpreter's exit freezes their threads."""
    with gate.guard:  # a vCPU that ends removes itself
        cpus = tuple(gate.cpus)
    for cpu in cpus:
        cpu._ask_to_stop()
    for cpu in cpus:
        cpu._thread.join(_PATIENCE)


def _begin_as_child() -> None:
    gate.begin_as_child()
    mine.cpu = None


at_exit(AtExit.VCPUS, _stop_all)
at_fork(AtFork.VCPUS, _begin_as_child)
