"""The threads of a worker pool: their start, search for jobs, rest, leave and death.

There is no future and no call_soon_threadsafe: a worker that has done its job puts the waiting task
into the mailbox of the task's home. Jobs wait in one deque, idle workers in another; each operation
on them is atomic. At most one woken worker is *searching* at a time, and a worker that finds a job
while there are more wakes the next before it begins. So a burst of short jobs runs on few threads,
and long jobs get one each.

Two orders make sure that no job is lost: a submitter appends the job and then looks whether a
worker searches; a worker that found nothing lists itself as idle, stops searching, and then looks
at the jobs again.

Waking a thread costs more than a brief job, and with the GIL it takes the interpreter away from
the worker that is busy. So while jobs are brief on average, a worker that finds more of them does
not send for help as long as an idle one *watches*: it looks each millisecond, and if jobs wait and
none was taken since its last look, the pool treats its jobs as long again. No job waits behind a
long one for more than two looks.

A worker may die of an exception in its own code, or before that begins: the process is out of
memory, a debugger throws one into the thread, a profiler's hook fails. The pool then removes it and
fails its job, and the other workers do the other jobs. If there are none and none can be started,
as at the limit of threads, the waiting jobs fail as well. No caller waits for a worker that is
gone.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections import deque
from functools import partial
from itertools import count, repeat, starmap
from typing import TYPE_CHECKING, Any

from .._core.current import here
from .._errors import ContextClosed
from .._os.clock import monotonic, perf_counter
from .._os.guard import new_guard
from .._os.parking import new_parker
from .._os.reports import log_exit, report
from .._os.surely import surely
from .._os.threads import NoticedThread, ended_early

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable

    from .._core.context import AioContext
    from .._os.parking import Parker


_BRIEF = 20e-6  # seconds: less than it costs to wake a thread
_LONG = 4 * _BRIEF
_TICK = 1e-3  # seconds between two looks of a worker that watches
_QUIET = 16  # looks at which nothing happened, after which it stops watching


class Worker(NoticedThread):
    """A worker's thread. It may be joined while another thread is about to start it."""

    def __init__(
        self, live: Callable[[], None], ended: Callable[[Worker], object], name: str
    ) -> None:
        super().__init__(live, partial(ended, self), name)
        self.tried = threading.Event()  # set once it is known whether the thread could be started
        self.begun = False  # the thread has begun; written by it under the pool's lock
        self.worked = False  # it has done a job, or found none to do; written by it
        self.gone = False  # set as the last step of its leaving, or of its removal once it is dead
        self.parker: Parker | None = None  # set while the thread lives; written by it

    def start(self) -> None:
        try:
            super().start()
        finally:
            self.tried.set()

    def join(self, timeout: float | None = None) -> None:
        self.tried.wait()
        if timeout is not None:
            timeout = min(timeout, threading.TIMEOUT_MAX)  # beyond that, OverflowError
        if self.ident is not None:  # else it could not be started
            super().join(timeout)


def _matters(worker: Worker) -> bool:
    """Return whether a worker that left, or died, is still there, or its end was cut short."""
    return worker.is_alive() or not worker.gone


class WorkerThreads:
    """The part of a `WorkerPool` that its users do not call."""

    def __init__(self, name: str, limits: tuple[int, int], idle_timeout: float) -> None:
        self.name: str = name
        self._limits = limits  # how many threads stay when idle, and how many there may be
        self._idle_timeout = idle_timeout
        self._jobs: deque[Any] = deque()  # any thread appends, workers pop: FIFO
        self._idle: deque[Parker] = deque()  # workers append themselves; the latest is woken first
        self._searching = False  # a woken worker has not found its job yet; any thread
        # The average time of a job in seconds, and whether that is brief; how many were taken;
        # whether an idle worker watches. Any worker writes them: they are hints, and _watch makes
        # up for a lost update.
        self._average = _LONG
        self._brief = False
        self._taken = 0
        self._watched = False
        self._shut_down = False  # set once, under _lock
        # Of a context's own pool: that context, for which its threads work. Set before it has any.
        self._serves: weakref.ref[AioContext] | None = None
        # Guards the set of threads and its count; never held while a job runs or a thread sleeps.
        self._lock = new_guard()  # a finaliser may submit, anywhere
        self._threads: set[Worker] = set()
        self._going: list[Worker] = []  # out of the set, but perhaps still in their last steps
        self._number = count()
        # Called when the last thread has left; under _lock.
        self._when_empty: list[Callable[[], object]] = []

    def _begin_as_child(self) -> None:
        """Have no workers and no jobs, as when it was made: this is a forked process."""
        self._lock = new_guard()
        self._threads = set()
        self._going = []
        self._idle = deque()
        self._jobs = deque()
        self._searching = self._watched = False
        self._when_empty = []

    # In a submitter.

    def _put(self, job: Any) -> None:
        """Queue a job and see that a worker does it. Raises if none will: the job is not queued."""
        queued = refused = False
        try:
            self._jobs.append(job)
            queued = True
            if self._shut_down:
                refused = self._take_out(job)  # else a worker has it, or shutdown dropped it
            elif self._searching:  # after the append: pairs with _rest and _send_instead
                return
            elif not (self._brief and self._watched) or self._all_idle():
                self._send_one()
        except BaseException as error:
            ours = self._take_out(job)
            self._send_instead()  # other submitters have relied on the search that failed
            # If a worker has it, it does not matter that no other one could be sent.
            if ours or not queued or not isinstance(error, (MemoryError, OSError, RuntimeError)):
                raise
        if refused:
            message = f"WorkerPool {self.name!r} was shut down: it takes no more work"
            raise RuntimeError(message)

    def _all_idle(self) -> bool:
        """Return whether no worker is busy, which would look for jobs before it rests.

        A worker lists itself as idle before that look, and `rotate` passes through the list's own
        lock: so this sees that listing.
        """
        self._idle.rotate(0)
        return len(self._idle) >= len(self._threads)

    def _take_out(self, job: Any) -> bool:
        """Remove a queued job; False if a worker has it."""
        try:
            self._jobs.remove(job)
        except ValueError:
            return False
        return True

    def _send_one(self) -> None:
        """Send one more worker to look for work: wake an idle one, or start a thread."""
        self._searching = True
        parker: Parker | None = None
        try:
            # `for` pops and stores in one step of the interpreter: whatever a signal handler raises
            # here, the worker is woken.
            for parker in starmap(self._idle.pop, repeat((), 1)):
                parker.unpark()
        except IndexError:
            pass
        except BaseException:
            if parker is not None:
                parker.unpark()
            raise
        else:
            return
        self._hire()

    def _send_instead(self) -> None:
        """Send another worker after a search that failed, or fail the jobs."""
        self._searching = False
        if not self._jobs:  # after that: pairs with _put
            return
        try:
            self._send_one()
        except BaseException as error:  # noqa: BLE001  (the callers get it)
            self._searching = False
            if not self._threads:
                self._fail_jobs(error)

    def _hire(self) -> None:
        """Start one more worker. Raises if that fails and there is no other to do the work."""
        thread: Worker | None = None
        try:
            with self._lock:
                if len(self._threads) >= self._limits[1]:
                    self._searching = False  # all are busy, and each looks again when it is done
                    return
                thread = Worker(self._live, self._remove_ended, f"{self.name}-{next(self._number)}")
                self._threads.add(thread)
            thread.start()
        except BaseException:
            self._searching = False
            with self._lock:
                if thread is not None and not thread.begun:
                    self._threads.discard(thread)  # else it lives: Ctrl-C came during `start`
                alone = not self._threads
            if thread is not None:
                thread.tried.set()  # so that `join` does not wait for it
            if alone:
                raise

    # In a worker.

    def _live(self) -> None:
        """Run a worker, from its first step to its last, and have the pool note how it ends."""
        worker: Any = threading.current_thread()
        try:
            with self._lock:
                worker.begun = True
                self._threads.add(worker)
            self._work(worker)
        except BaseException as error:
            self._lost(worker, error)
            log_exit(error, f"{worker.name!r}, a worker, ends it")
            raise  # to threading.excepthook
        finally:
            worker.parker = None  # its descriptor goes with the thread, not with this object

    def _work(self, worker: Worker) -> None:
        here.serves = self._serves
        parker = worker.parker = new_parker()
        # `for` takes a job and stores it in one step of the interpreter: an exception thrown into
        # this thread comes before that step or after it, and no job is lost in between.
        jobs = self._jobs
        take = starmap(jobs.popleft, repeat(()))
        job: Any = None
        sent = True  # this worker is the searching one, and has not found a job yet
        try:
            while True:
                try:
                    for job in take:  # noqa: B007  (it is read below)
                        break
                except IndexError:
                    worker.worked = True
                    if self._rest(parker, sent=sent):
                        sent = True
                        continue
                    return
                if sent:
                    sent = self._searching = False
                self._taken += 1
                if jobs and not self._searching and not (self._brief and self._watched):
                    self._send_help()
                self._do(job)
                job = None  # an idle worker keeps nothing alive
                worker.worked = True
        except BaseException as error:
            if job is not None:
                surely(self._fail_job, job, error)
            raise

    def _send_help(self) -> None:
        """Send another worker for the other jobs. If that fails, this one does them in turn."""
        try:
            self._send_one()
        except Exception:  # noqa: BLE001  (out of memory: no reason to drop the job taken)
            self._searching = False

    def _do(self, job: Any) -> None:
        began = perf_counter()
        try:
            job.work()
        except BaseException as error:  # noqa: BLE001  (reported; the worker goes on)
            # Not an exception of the function called: reporting its outcome has failed, as when a
            # future's callback raises SystemExit.
            job.fail(self._broken(error))
            report(error, f"{threading.current_thread().name!r}, a worker, which goes on")
        del job  # the traceback of its error holds this frame, through that of `work`
        # Capped: a single job that had to wait for the GIL does not make the average long.
        took = min(perf_counter() - began, _LONG)
        self._average += (took - self._average) / 8
        self._brief = self._average < _BRIEF

    def _rest(self, parker: Parker, *, sent: bool) -> bool:
        """Sleep until sent, having found no job. Returns False if the worker is to end."""
        self._idle.append(parker)
        if sent:
            self._searching = False
        if self._jobs or self._shut_down:  # after the listing: pairs with _put and shutdown
            return not self._leave(parker)
        if self._brief and not self._watched and self._watch(parker):
            return True
        if not self._sleep(parker):
            if self._may_leave():
                return not self._leave(parker)
            parker.park()  # still listed: a submitter wakes this worker and starts no thread
        self._unlist(parker)
        return True

    def _unlist(self, parker: Parker) -> bool:
        """Remove a worker from the idle list; False if it is not there, because it was sent.

        A worker whose parker was set for an earlier search has not been sent now and is still
        listed. Left on the list twice, it would be sent after its end.
        """
        try:
            self._idle.remove(parker)
        except ValueError:
            return False
        return True

    def _sleep(self, parker: Parker) -> bool:
        """Sleep until sent; False: the idle timeout is over. The parker may wake before that."""
        left = self._idle_timeout
        end = monotonic() + left
        while not parker.park(left):
            left = end - monotonic()
            if left <= 0:
                return False
        return True

    def _watch(self, parker: Parker) -> bool:
        """Watch, idle, that brief jobs keep being taken. Returns True to look for work now."""
        self._watched = True
        quiet = 0
        while quiet < _QUIET:
            taken = self._taken
            if parker.park(_TICK):
                break
            if self._taken != taken:
                quiet = 0
            elif self._jobs:  # none was taken since the last look
                self._average = _LONG
                self._brief = False
                break
            else:
                quiet += 1
        self._watched = False
        # Clear it, then look: a submitter or worker that saw `_watched`, with jobs waiting, has
        # sent no other (pairs with _work and _put).
        if quiet == _QUIET and not self._jobs:
            return False
        self._unlist(parker)  # unless it was sent
        return True

    def _may_leave(self) -> bool:
        with self._lock:
            return self._shut_down or len(self._threads) > self._limits[0]

    def _leave(self, parker: Parker) -> bool:
        """Leave the pool unless sent meanwhile; True if this worker is to end."""
        if not self._unlist(parker):
            return False  # sent: there is work
        if self._jobs:
            return False
        worker: Any = threading.current_thread()
        with self._lock:
            if not self._shut_down and len(self._threads) <= self._limits[0]:
                return False  # another worker has left meanwhile
            self._threads.discard(worker)
            if self._jobs:  # a submitter may have started no thread because this one was there
                self._threads.add(worker)
                return False
            self._see_off(worker)
        self._tell_if_empty()
        worker.gone = True
        return True

    # The end of a worker that does not leave by itself.

    def _lost(self, worker: Worker, error: BaseException) -> None:
        """Remove a worker that dies, or has died; again, if that was cut short.

        Called from: any thread.
        """
        if worker.parker is not None:
            self._unlist(worker.parker)
        with self._lock:
            self._threads.discard(worker)
            self._see_off(worker)
            alone = not self._threads
        self._watched = False
        if worker.worked or self._idle:
            self._send_instead()
        else:
            # Another one would die as this did, having done nothing. Busy workers look again later.
            self._searching = False
            if alone:
                self._fail_jobs(error)
        self._tell_if_empty()
        worker.gone = True

    def _see_off(self, worker: Worker) -> None:
        """Remember a worker that leaves, for `shutdown` to join it. Called under the lock."""
        self._going = [*(each for each in self._going if _matters(each)), worker]

    def _not_ended(self) -> set[Worker]:
        """Return the threads that work or leave, without the calling one."""
        me: Any = threading.current_thread()
        with self._lock:
            return {*self._threads, *(each for each in self._going if _matters(each))} - {me}

    def _bury(self, thread: Worker, timeout: float | None = None) -> bool:
        """Join a thread for at most `timeout` seconds; False if it has not ended by then.

        If it ended without leaving the pool, it is removed.
        """
        thread.join(timeout)
        if thread.is_alive():
            return False
        self._remove_ended(thread)
        return True

    def _remove_ended(self, thread: Worker) -> None:
        """Remove a thread that has ended, or is in its last step, unless that was done."""
        if not thread.gone:
            self._lost(thread, ended_early(thread))

    def _remove_dead(self) -> None:
        """Remove the workers whose end was cut short, and see to the jobs that they have left."""
        for thread in self._not_ended():
            if thread.tried.is_set() and not thread.is_alive():
                self._remove_ended(thread)
        if self._jobs and not self._threads:
            self._send_instead()

    def _fail_jobs(self, error: BaseException) -> None:
        """Fail the jobs that are queued now, as there is no worker and none can be started.

        The submitters of later jobs find no search going on, and send a worker themselves.
        """
        job: Any = None
        try:
            for job in starmap(self._jobs.popleft, repeat((), len(self._jobs))):
                self._fail_job(job, error)
        except IndexError:
            pass  # a worker has come
        except BaseException:
            if job is not None:
                self._fail_job(job, error)
            raise

    def _fail_job(self, job: Any, error: BaseException) -> None:
        broken = self._broken(error)
        try:
            surely(job.fail, broken)
        except BaseException as more:  # noqa: BLE001  (reported; the other jobs fail as well)
            report(more, f"a callback of a job that {self!r} could not do")

    def _broken(self, error: BaseException) -> concurrent.futures.BrokenExecutor:
        """Return the error of a job that could not be done for lack of a worker."""
        broken = concurrent.futures.BrokenExecutor(f"{self!r} has lost a worker: {error!r}")
        broken.__cause__ = error
        return broken

    def _tell_if_empty(self) -> None:
        with self._lock:
            if self._threads:
                return
            tell = self._when_empty
        for callback in tell:  # again if this is cut short: to be told twice does no harm
            try:
                callback()
            except ContextClosed:
                pass  # the home that waited has ended
        with self._lock:
            self._when_empty = self._when_empty[len(tell) :]
