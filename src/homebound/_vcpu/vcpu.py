"""VCPU: a thread that runs guest code without the big lock, and acquires it for device access."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar

from .._core.coroutines import check_callback
from .._errors import ContextError, WouldDeadlock
from .._os.arguments import checked_name
from .._os.counts import check_count
from .._os.greenlets import refuse_green_threads
from .._os.no_copy import refuse_threaded_copy
from .._os.parking import new_parker
from .._os.reports import report
from .._threads.wait_until import check_may_wait
from .thread import JOIN, PAUSE, VCPUThread, Work, gate, mine

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

T = TypeVar("T")


class VCPU(VCPUThread):
    """A thread that calls `execute(vcpu)` again and again, without the big lock.

    `execute` runs guest code, and returns soon after `vcpu.interrupt_requested` has become true. It
    looks at the flag now and then, or `interrupt()`, called in the interrupting thread, makes it
    look (perhaps a little late, or after it has returned). It calls `halt()` when the guest has
    nothing to do; the thread then sleeps until `kick()`, or, with `has_work`, until a kick finds
    `has_work(vcpu)` true. An exception in `execute` stops the vCPU, is reported to
    `threading.excepthook`, and is raised again by `join` and `stop`; SystemExit is logged as well.

    As a context manager, it starts on entry and stops on exit.

    Ctrl-C during a wait in one of the methods raises KeyboardInterrupt and ends only the wait: the
    requested action still happens. (As in asyncio, the first Ctrl-C under `homebound.run` cancels
    the main task, which notices when it next awaits; the second is raised at once.)

    >>> import homebound
    >>> def execute(vcpu):
    ...     with homebound.big_lock:  # the guest accesses a device
    ...         print("vCPU", vcpu.index, "in the context", homebound.current_context().name)
    ...     vcpu.stop()
    >>> async def main():
    ...     vcpu = homebound.VCPU(0, execute)
    ...     vcpu.start()
    ...     vcpu.join()
    >>> homebound.run(main())
    vCPU 0 in the context main

    Called from: any thread.
    """

    interrupt_requested: bool

    def __init__(
        self,
        index: int,
        execute: Callable[[VCPU], object],
        *,
        name: str | None = None,
        has_work: Callable[[VCPU], object] | None = None,
        interrupt: Callable[[], object] | None = None,
    ) -> None:
        check_count("VCPU: index", index, 0)
        check_callback("VCPU: execute", execute)
        self.index = index
        self.name: str = f"vcpu{index}" if name is None else checked_name(self, name)
        self._execute = execute
        self._has_work = has_work
        self._interrupt = interrupt
        super().__init__()

    # Life.

    def start(self) -> None:
        """Start the thread. Raises ContextError if it has been started before.

        Called from: any thread.
        """
        with gate.guard:
            if self._started:
                message = f"VCPU.start(): {self!r} has been started before; make another one"
                raise ContextError(message)
            refuse_green_threads("VCPU.start()")
            self._parker = new_parker()
            self._started = True
            gate.cpus.add(self)
        try:
            self._thread.start()
        except BaseException as error:  # out of threads
            self._failure = error
            self._mark_ended()
            raise

    def stop(self, timeout: float | None = None) -> None:
        """Stop the thread and wait until it has ended; TimeoutError after `timeout` seconds.

        Work items queued so far are run, later ones refused. In its own thread it does not wait:
        the thread ends when `execute` has returned. Raises what `execute` raised. No-op if it was
        never started. After Ctrl-C, or the timeout, the thread still ends.

        Called from: any thread.
        """
        if not self._started:
            return
        own = mine.cpu is self
        if not own and not self._ended:
            check_may_wait("VCPU.stop")
        self._ask_to_stop()
        if not own:
            self.join(timeout)

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended; TimeoutError after `timeout` seconds.

        Raises what `execute` raised, WouldDeadlock in the vCPU's own thread, ContextError before
        `start`.

        Called from: any thread.
        """
        if mine.cpu is self:
            message = f"VCPU.join() was called in the thread of {self!r} itself; call stop()"
            raise WouldDeadlock(message)
        if not self._started:
            message = f"VCPU.join(): {self!r} was not started; call start() first"
            raise ContextError(message)
        if not self._ended:
            check_may_wait(JOIN)
            what = (JOIN, self)
            try:
                self._wait(what, lambda: self._ended, self._end, timeout=timeout)
            except TimeoutError:
                message = f"VCPU.join(): {self!r} has not ended after {timeout} s"
                raise TimeoutError(message) from None
        if self._thread.ident is not None:
            self._thread.join()  # its last step is done: this takes microseconds
        if self._failure is not None:
            raise self._failure

    def kick(self) -> None:
        """Interrupt `execute`, and wake the vCPU if it has halted.

        `execute` is then called again. A kick that arrives while `execute` halts cancels the halt,
        so the next `execute` sees what the kicking thread did before.

        Called from: any thread.
        """
        with gate.guard:
            self._kicked = True
            self.interrupt_requested = True
            if self._has_work is None:
                self._halted = False
        self._interrupt_and_wake()

    def pause(self) -> None:
        """Bring it out of `execute`, wait until it is, and keep it out until `resume()`.

        It still runs work items. In its own thread it does not wait: the pause begins when
        `execute` has returned. Pausing a paused vCPU changes nothing: one `resume()` is enough.
        After Ctrl-C it still comes out, and stays out until `resume()`.

        Called from: any thread.
        """
        own = mine.cpu is self
        if not own:
            check_may_wait(PAUSE)
        with gate.guard:
            self._paused = True
            self.interrupt_requested = True
        self._interrupt_and_wake()
        if not own:
            what = (PAUSE, self)
            self._wait(what, lambda: not self._paused or gate.is_out(self), self._out)

    def resume(self) -> None:
        """End `pause()`; no-op if it is not paused.

        Called from: any thread.
        """
        with gate.guard:
            self._paused = False
        self._wake()
        self._out.tell()  # ends the waits of `pause`, which would be in vain

    def halt(self) -> None:
        """Have it run nothing until the next `kick()`; no-op after a kick during this round.

        `execute` calls it and then returns. Called in another thread, it takes effect when
        `execute` returns by itself, or at once outside `execute`, also before `start()`.

        Called from: any thread.
        """
        with gate.guard:
            if not self._kicked:
                self._halted = True

    @property
    def halted(self) -> bool:
        """True while it sleeps, or is about to, until the next kick.

        Called from: any thread.
        """
        return self._halted

    # Work.

    def run_on_cpu(self, fn: Callable[..., T], *args: Any) -> T:
        """Run `fn(*args)` in the vCPU's thread under the big lock, and wait; returns its result.

        In that thread itself, `fn` is called at once; else between two rounds of `execute`, in the
        order of the calls. The caller's big lock is released while it waits, and a home that waits
        keeps its loop turning. Raises what `fn` raises, ContextClosed if the vCPU has stopped,
        ContextError if it was not started. After Ctrl-C `fn` is still called.

        >>> import homebound, threading
        >>> def where():
        ...     return threading.current_thread().name, homebound.big_lock.held()
        >>> with homebound.VCPU(1, homebound.VCPU.halt) as vcpu:
        ...     vcpu.run_on_cpu(where)
        ('vcpu1', True)

        Called from: any thread.
        """
        work = Work(self, fn, args, exclusive=False)
        return self._do("run_on_cpu", work)  # type: ignore[no-any-return]

    def async_run_on_cpu(self, fn: Callable[..., object], *args: Any) -> None:
        """Have `fn(*args)` run in the vCPU's thread under the big lock, without waiting.

        It runs between two rounds of `execute`, in the order of the calls. An exception in it is
        reported to `threading.excepthook`. Raises ContextClosed if the vCPU has stopped,
        ContextError if it was not started.

        Called from: any thread.
        """
        work = Work(self, fn, args, exclusive=False)
        work.finished.enter(lambda: _report(work))
        self._submit("async_run_on_cpu", work)

    def exclusive(self, fn: Callable[..., T], *args: Any) -> T:
        """Run `fn(*args)` in the vCPU's thread with all other vCPUs out of `execute`, and wait.

        Returns the result of `fn`. In that thread itself, it is called there; else as a work item,
        as in `run_on_cpu`. The work item runs without the big lock, unless the vCPU holds it while
        it waits for something. Other vCPUs may run work items meanwhile. Raises what `fn` raises,
        and what `run_on_cpu` does.

        Called from: any thread.
        """
        work = Work(self, fn, args, exclusive=True)
        return self._do("exclusive", work)  # type: ignore[no-any-return]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    __reduce__ = refuse_threaded_copy

    def __repr__(self) -> str:
        states = (
            (not self._started, "not started"),
            (self._ended, "failed" if self._failure else "stopped"),
            (self._stopping, "stopping"),
            (self._paused, "paused"),
            (self in gate.running, "in guest code"),
            (self._halted, "halted"),
            (True, "idle"),
        )
        state = next(text for holds, text in states if holds)
        return f"<VCPU {self.index} {self.name!r} {state}, {len(self._work)} work items>"

    def _do(self, what: str, work: Work) -> Any:
        if mine.cpu is self:
            return self._call(work)
        check_may_wait(f"VCPU.{what}")
        self._submit(what, work)
        reason = (f"VCPU.{what}", work)
        self._wait(reason, lambda: work.done, work.finished)
        if work.error is not None:
            raise work.error
        return work.result

    def _submit(self, what: str, work: Work) -> None:
        with gate.guard:
            refused = self._stopping or not self._started
            if not refused:
                self.interrupt_requested = True  # first: Ctrl-C may come after the append
                self._work.append(work)
        if refused:
            raise self._refusal(what)
        self._interrupt_and_wake()


def _report(work: Work) -> None:
    """Report the exception of a work item that nothing waits for."""
    if work.error is not None:
        report(work.error, f"a work item of VCPU {work.cpu.name!r}, which goes on")
