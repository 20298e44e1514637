"""The threads of a worker pool: their start, search for jobs, rest, leave and death.

There is no future and no call_soon_threadsafe: a worker that has done its job puts the waiting task
into the mailbox of the task's home. Jobs wait in one deque, idle workers in another; each operation
on them is atomic. A worker that was sent, and has not yet found a job or none, *searches*. While
one does, submitters send no other; a worker that finds a job while there are more sends the next
before it begins. So a burst of short jobs runs on few threads, and long jobs get one each.

Two orders make sure that no job is lost: a submitter appends the job and then looks whether a
worker searches; a worker that found nothing lists itself as idle, ends its search, and then looks
at the jobs again. Each search is an object of its own, which its worker ends and submitters see
when the worker has been sent, not before: if the worker has ended it by then, they see that.

A finaliser may come in at any point of this, in any thread, submit a job of its own, and wait for
it. It finds no search that the call it has interrupted had still to begin: an idle worker is taken
off the list, woken, and its search made known in one step of the interpreter; a thread that the
call was about to start is called off if the finaliser needs its place. And there is no lock, which
the interrupted call might hold: a set and two lists say who works, who leaves, and whom to tell.

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

import _thread
import threading
from collections import deque
from contextlib import suppress
from functools import partial
from itertools import count, filterfalse, repeat, starmap
from typing import TYPE_CHECKING, Any

from .._core.current import here
from .._errors import ContextClosed
from .._os.clock import monotonic, perf_counter
from .._os.fuse import tell_until_heard, with_fuse
from .._os.parking import new_parker
from .._os.reports import log_exit, report_and_go_on
from .._os.threads import ended_early
from .jobs import fail_queued, lost_worker
from .worker import NO_SEARCH, Search, Worker, wake

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable

    from .._core.context import AioContext
    from .._os.parking import Parker
    from .jobs import Job


_BRIEF = 20e-6  # seconds: less than it costs to wake a thread
_LONG = 4 * _BRIEF
_TICK = 1e-3  # seconds between two looks of a worker that watches
_QUIET = 16  # looks at which nothing happened, after which it stops watching


class WorkerThreads:
    """The part of a `WorkerPool` that its users do not call."""

    def __init__(self, name: str, min_threads: int, max_threads: int, idle_timeout: float) -> None:
        self.name: str = name
        self._min_threads = min_threads  # how many stay when idle
        self._max_threads = max_threads
        self._idle_timeout = idle_timeout
        self._jobs: deque[Job] = deque()  # any thread appends, workers pop: FIFO
        # What idle workers will search when woken: each appends its own; the latest is woken first.
        self._idle: deque[Search] = deque()
        self._search = NO_SEARCH  # the last that a worker was sent on; written by the sender
        self._starting: dict[int, Worker] = {}  # by the ident of the thread that starts it
        # The average time of a job in seconds, and whether that is brief; how many were taken;
        # whether an idle worker watches. Any worker writes them: they are hints, and _watch makes
        # up for a lost update.
        self._average = _LONG
        self._brief = False
        self._taken = 0
        self._watched = False
        self._shut_down = False  # set once
        # Of a context's own pool: that context, for which its threads work. Set before it has any.
        self._serves: weakref.ref[AioContext] | None = None
        # Those that work, or are about to begin; any thread changes it. Each operation is atomic.
        self._threads: set[Worker] = set()
        self._going: set[Worker] = set()  # those that leave, perhaps still in their last steps
        self._number = count()
        # Called when the last thread has left.
        self._when_empty: list[Callable[[], object]] = []

    def _begin_as_child(self) -> None:
        """Have no workers and no jobs, as when it was made: this is a forked process."""
        self._threads = set()
        self._going = set()
        self._idle = deque()
        self._jobs = deque()
        self._search = NO_SEARCH
        self._starting = {}
        self._watched = False
        self._when_empty = []

    # In a submitter.

    def _put(self, job: Job) -> None:
        """Queue a job and see that a worker does it. Raises if none will: the job is not queued."""
        queued = refused = False
        try:
            self._jobs.append(job)
            queued = True
            if self._shut_down:
                refused = self._take_out(job)  # else a worker has it, or shutdown dropped it
            elif self._search.under_way:  # after the append: pairs with _rest and _lost
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

    def _take_out(self, job: Job) -> bool:
        """Remove a queued job; False if a worker has it."""
        try:
            self._jobs.remove(job)
        except ValueError:
            return False
        return True

    def _send_one(self) -> None:
        """Send one more worker to look for work: wake an idle one, or start a thread."""
        try:
            # `for` pops an idle worker's search, wakes the worker, and stores the search, in one
            # step of the interpreter: filterfalse gives what it was given, as `wake` returns None.
            popped = starmap(self._idle.pop, repeat((), 1))
            for self._search in filterfalse(wake, popped):
                return
        except IndexError:
            pass
        except (BlockingIOError, RuntimeError):
            return  # its parker is set, so it wakes, and finds itself no longer listed
        self._hire()

    def _send_instead(self) -> None:
        """Send another worker after a search that failed, or fail the jobs."""
        if not self._jobs:  # after the search's end: pairs with _put
            return
        try:
            self._send_one()
        except BaseException as error:  # noqa: BLE001  (the callers get it)
            if not self._threads:
                fail_queued(self._jobs, error, whose=self)

    def _hire(self) -> None:
        """Start one more worker. Raises if that fails and there is no other to do the work."""
        me = _thread.get_ident()
        # If all are busy, each looks again when it is done.
        while len(self._threads) < self._max_threads or self._displace(me):
            if self._start_worker(me) or not self._jobs:
                return

    def _start_worker(self, me: int) -> bool:
        """Start a worker, if there is room for it; False if a finaliser's has taken its place.

        An exception ends the attempt. Another, which cuts short what then sees to the thread, has
        a new thread see to it: none stays among the pool's that has not begun and will not.
        """
        try:
            thread = Worker(self._live, self._remove_ended, f"{self.name}-{next(self._number)}")
            settle, unsettled = partial(self._settle, thread), partial(getattr, thread, "open")
            at_end = thread.tried.news.put, tell_until_heard(settle, unsettled)
            with_fuse(partial(self._try_to_start, thread, me), at_end)()
        except (MemoryError, OSError, RuntimeError):
            if not self._threads:
                raise
            return True
        return not thread.called_off

    def _try_to_start(self, thread: Worker, me: int) -> None:
        try:
            self._starting[me] = thread
            if self._count_in(thread):
                search = thread.searches[-1]
                thread.start()  # it may have ended that search since, and listed its next
                self._starting.pop(me, None)
                if thread.called_off:  # after that: from now on it keeps its place
                    self._see_off(thread)
                    self._strike_off(thread)
                else:
                    self._search = search
        except BaseException:
            if thread.call_off():
                self._strike_off(thread)
            thread.open = None  # the callers see to the jobs
            raise
        finally:
            if self._starting.get(me) is thread:
                self._starting.pop(me, None)
        thread.open = None

    def _settle(self, thread: Worker, *_: object) -> None:
        """See to a thread whose start was cut short twice, and to the jobs that rely on it.

        Called from: a thread of its own, again until it has returned.
        """
        if thread.call_off():
            self._strike_off(thread)
        self._send_instead()
        thread.open = None

    def _strike_off(self, thread: Worker) -> None:
        """Remove a thread that was called off: perhaps it was so before it was counted."""
        self._threads.discard(thread)
        thread.gone = True
        self._tell_if_empty()  # after that: the last worker may have left meanwhile

    def _count_in(self, thread: Worker) -> bool:
        """Count a thread among those that work; False if there is no room for it.

        Then each of the others looks at the jobs once more, or its starter does.
        """
        while True:
            self._threads.add(thread)
            if len(self._threads) <= self._max_threads:  # after the addition: others add theirs
                return True
            self._threads.discard(thread)
            if len(self._threads) >= self._max_threads:
                return False  # another's is there instead

    def _displace(self, me: int) -> bool:
        """Take the place of a worker that has not begun, if this call interrupts its start.

        Its starter then starts another, if there are jobs and there is room.
        """
        thread = self._starting.pop(me, None)
        if thread is None or not thread.call_off():
            return False
        self._threads.discard(thread)
        return True

    # In a worker.

    def _live(self) -> None:
        """Run a worker, from its first step to its last, and have the pool note how it ends."""
        worker: Any = threading.current_thread()
        try:
            self._work(worker)
        except BaseException as error:
            self._lost(worker, error)
            log_exit(error, f"{worker.name!r}, a worker, ends it")
            raise  # to threading.excepthook

    def _work(self, worker: Worker) -> None:
        here.serves = self._serves
        parker = worker.parker = new_parker()
        # `for` takes a job and stores it in one step of the interpreter: an exception thrown into
        # this thread comes before that step or after it, and no job is lost in between.
        jobs = self._jobs
        take = starmap(jobs.popleft, repeat(()))
        search = worker.searches[-1]
        while True:
            try:
                for worker.job in take:
                    break
            except IndexError:
                worker.worked = True
                if self._rest(worker, parker):
                    search = worker.searches[-1]
                    continue
                return
            search.under_way = False
            self._taken += 1
            if jobs and not self._search.under_way and not (self._brief and self._watched):
                self._send_help()
            self._do(worker.job)  # type: ignore[arg-type]  # it has taken one
            worker.job = None  # an idle worker keeps nothing alive
            worker.worked = True

    def _send_help(self) -> None:
        """Send another worker for the other jobs. If that fails, this one does them in turn."""
        try:
            self._send_one()
        except Exception:  # noqa: BLE001, S110  (out of memory: no reason to drop the job taken)
            pass

    def _do(self, job: Job) -> None:
        began = perf_counter()
        try:
            job.work()
        except BaseException as error:  # noqa: BLE001  (reported; the worker goes on)
            # Not an exception of the function called: reporting its outcome has failed, as when a
            # future's callback raises SystemExit.
            job.fail(lost_worker(self, error))
            report_and_go_on(error, f"{threading.current_thread().name!r}, a worker, which goes on")
        del job  # the traceback of its error holds this frame, through that of `work`
        # Capped: a single job that had to wait for the GIL does not make the average long.
        took = min(perf_counter() - began, _LONG)
        self._average += (took - self._average) / 8
        self._brief = self._average < _BRIEF

    def _rest(self, worker: Worker, parker: Parker) -> bool:
        """Sleep until sent, having found no job. Returns False if the worker is to end."""
        last, search = worker.searches[-1], Search(parker)
        worker.searches = last, search  # if it dies here, _lost ends both
        self._idle.append(search)
        last.under_way = False
        if self._jobs or self._shut_down:  # after the listing: pairs with _put and shutdown
            return not self._leave(worker)
        if self._brief and not self._watched and self._watch(search, parker):
            return True
        if not self._sleep(parker):
            if self._may_leave():
                return not self._leave(worker)
            parker.park()  # still listed: a submitter wakes this worker and starts no thread
        self._unlist(search)
        return True

    def _unlist(self, search: Search) -> bool:
        """Remove a worker from the idle list; False if it is not there, because it was sent.

        A worker whose parker was set for an earlier search has not been sent now and is still
        listed. Left on the list twice, it would be sent after its end.
        """
        try:
            self._idle.remove(search)
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

    def _watch(self, search: Search, parker: Parker) -> bool:
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
        self._unlist(search)  # unless it was sent
        return True

    def _may_leave(self) -> bool:
        return self._shut_down or len(self._threads) > self._min_threads

    def _leave(self, worker: Worker) -> bool:
        """Leave the pool unless sent meanwhile; True if this worker is to end."""
        if not self._unlist(worker.searches[-1]):
            return False  # sent: there is work
        if self._jobs:
            return False
        self._see_off(worker)
        self._threads.discard(worker)
        # Then look. Another may have left meanwhile, too; a submitter may have started no thread
        # because this one was there, or one in its place; `shutdown` may have begun.
        needed = self._jobs or not (self._shut_down or len(self._threads) >= self._min_threads)
        if needed and self._count_in(worker):
            return False
        self._tell_if_empty()
        self._retire(worker)
        return True

    def _retire(self, worker: Worker) -> None:
        """Note, as the last step, that a worker has left or was removed."""
        # Its descriptor goes with the thread, not with these objects.
        if self._search.parker is worker.parker:
            self._search = NO_SEARCH  # a search that is forgotten costs one more to be sent
        worker.parker, worker.searches = None, (NO_SEARCH,)
        worker.gone = True

    # The end of a worker that does not leave by itself.

    def _lost(self, worker: Worker, error: BaseException) -> None:
        """Remove a worker that dies, or has died; again, if that was cut short.

        Called from: any thread.
        """
        if worker.job is not None:
            worker.job.fail(
                lost_worker(self, error)
            )  # if it raises, the thread's end is told again
            worker.job = None
        for search in worker.searches:
            self._unlist(search)
        self._see_off(worker)
        self._threads.discard(worker)
        self._watched = False
        for search in worker.searches:
            search.under_way = False
        if worker.worked or self._idle:
            self._send_instead()
        elif not self._threads:  # another one would die as this did, having done nothing
            fail_queued(self._jobs, error, whose=self)
        self._tell_if_empty()
        self._retire(worker)

    def _see_off(self, worker: Worker) -> None:
        """Remember a worker that is about to leave, for `shutdown` to join it."""
        self._going.add(worker)
        for each in self._going.copy():
            if not each.matters:
                self._going.discard(each)

    def _not_ended(self) -> set[Worker]:
        """Return the threads that work or leave, without the calling one."""
        me: Any = threading.current_thread()
        # In this order: pairs with _leave, which has a worker go before it no longer works.
        work, go = self._threads.copy(), self._going.copy()
        return {*work, *(each for each in go if each.matters)} - {me}

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

    def _tell_if_empty(self) -> None:
        """Tell those that wait for the last worker's end, if none works. Called from: any thread.

        A worker leaves and then calls it; so does the starter of one that does not begin. A thread
        that begins to wait says so and then calls it.
        """
        for callback in tuple(self._when_empty):
            if self._threads:
                return
            try:
                callback()
            except ContextClosed:
                pass  # the home that waited has ended
            with suppress(ValueError):  # last: to be told twice does no harm
                self._when_empty.remove(callback)
