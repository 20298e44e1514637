"""The requirements on any executor: the contract of concurrent.futures."""

from __future__ import annotations

import asyncio
import threading
import traceback
from concurrent.futures import CancelledError, Executor, Future, wait
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from ..._threads.run import run as run_here
from ..._workers.run_in import run_in
from .._places import Threads
from .cases import Case, check_all, raises, title

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Factory = Callable[[], Executor]

_START = 0.1  # seconds in which a job starts if a thread is free; longer if one shows itself later
_MOST = 512  # jobs at once, after which an executor is taken to have no bound
JOBS = 100  # of each submitter, where several contend


class NotHeldError(Exception):
    """All its threads seemed to be held, but one was only slow to start: it proves nothing yet."""


class Blockers:
    """Jobs that occupy all threads of an executor, so that later jobs wait.

    The number of threads is a guess, as an executor does not tell it. A later job that runs before
    a thread was freed, or in two threads when one was, shows a wrong guess and raises NotHeldError:
    that is no fault of the executor's.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.jobs: list[tuple[Future[int], threading.Event]] = []

    def hold_all(self, start: float) -> None:
        """Have more and more jobs run, until one does not start in `start` seconds."""
        while len(self.jobs) < _MOST:
            started, go_on = threading.Event(), threading.Event()
            job = self._executor.submit(self._hold, started, go_on)
            self.jobs.append((job, go_on))
            if not started.wait(start):
                break
        else:
            raise AssertionError(f"{_MOST} jobs run at once: make it with fewer threads")
        self.free_one()  # it waits, and does not hold a thread when it has run
        if not self.jobs:
            raise NotHeldError("no job has started")

    def _hold(self, started: threading.Event, go_on: threading.Event) -> int:
        started.set()
        go_on.wait()
        return 1

    def running(self) -> Future[int]:
        """Return a job that holds a thread until `free_all`."""
        return self.jobs[0][0]

    def free_one(self) -> None:
        """Let one of them go, so that one thread does all that waits."""
        self.jobs.pop()[1].set()

    def free_all(self) -> None:
        while self.jobs:
            self.free_one()


@contextmanager
def held(executor: Executor, start: float) -> Iterator[Blockers]:
    """All its threads are held, until `free_all` or the end, whatever is found."""
    blockers = Blockers(executor)
    try:
        blockers.hold_all(start)
        yield blockers
    finally:
        blockers.free_all()


def was_not_cancelled(future: Future[None], patience: float, what: str) -> None:
    """Raise NotHeldError if the job ran anyway, so that it could not be cancelled.

    Else raise AssertionError(what).
    """
    if wait([future], patience).done and not future.cancelled():
        raise NotHeldError("a job has run in a thread that was free")
    raise AssertionError(what)


def gives_results(executor: Executor, patience: float) -> None:
    futures = [executor.submit(pow, base, 2, mod=7) for base in range(10)]
    got = [future.result(patience) for future in futures]
    assert got == [base**2 % 7 for base in range(10)], f"got {got}"


def gives_exceptions_with_their_traceback(executor: Executor, patience: float) -> None:
    def at_fault() -> None:
        raise KeyError("mine")

    future = executor.submit(at_fault)
    error = future.exception(patience)
    assert isinstance(error, KeyError), f"exception() is {error!r}"
    assert error.args == ("mine",), f"exception() is {error!r}"
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert "at_fault" in frames, f"the traceback shows {frames}"
    raises(KeyError, partial(future.result, patience), "result() does not raise it")


def goes_on_after_an_error(executor: Executor, patience: float) -> None:
    """Run later jobs although earlier ones have raised SystemExit."""

    def leave() -> None:
        raise SystemExit

    for _ in range(10):
        error = executor.submit(leave).exception(patience)
        assert isinstance(error, SystemExit), f"exception() is {error!r}"
    assert executor.submit(int, "7").result(patience) == 7, "result() is another"  # noqa: PLR2004


def starts_in_the_order_of_submission(executor: Executor, patience: float, start: float) -> None:
    ran: list[tuple[int, int]] = []

    def job(number: int) -> None:
        ran.append((number, threading.get_ident()))

    with held(executor, start) as blockers:
        futures = [executor.submit(job, number) for number in range(20)]
        blockers.free_one()
        wait(futures, patience)
        order = [number for number, _ in ran]
        in_threads = {ident for _, ident in ran}
    if order != sorted(order) and len(in_threads) > 1:  # two may start in order, and be seen so not
        raise NotHeldError("one thread was freed, and several ran jobs")
    assert order == list(range(20)), f"started {order}"


def cancels_what_has_not_begun(executor: Executor, patience: float, start: float) -> None:
    ran: list[int] = []
    with held(executor, start) as blockers:
        futures = [executor.submit(ran.append, number) for number in range(6)]
        running = blockers.running()
        assert not running.cancel(), "a job that runs was cancelled"
        for future in futures[::2]:
            if not future.cancel():
                was_not_cancelled(future, patience, "a job that waits was not cancelled")
    wait(futures, patience)
    for future in futures[1::2]:
        future.result(patience)
    assert sorted(ran) == [1, 3, 5], f"ran {ran}"
    raises(CancelledError, partial(futures[0].result, patience), "it was cancelled, and done")


def tells_when_done(executor: Executor, patience: float) -> None:
    told: list[Future[int]] = []
    done = threading.Event()
    future = executor.submit(int, "1")
    future.add_done_callback(told.append)
    future.add_done_callback(lambda _: done.set())
    assert done.wait(patience), "it is done, but no callback was called"
    assert told == [future], f"told of {told}"


def maps_in_order(executor: Executor, patience: float) -> None:
    got = list(executor.map(divmod, range(30), [7] * 30, timeout=patience))
    assert got == [divmod(number, 7) for number in range(30)], f"got {got}"


def takes_no_more_after_shutdown(executor: Executor, patience: float) -> None:
    last = executor.submit(int, "1")
    executor.shutdown()
    assert last.result(patience) == 1
    raises(RuntimeError, partial(executor.submit, int), "it was shut down, and took a job")
    executor.shutdown()  # no-op


def finishes_what_is_queued_at_shutdown(executor: Executor, patience: float, start: float) -> None:
    with held(executor, start):
        futures = [executor.submit(int, str(number)) for number in range(10)]
        executor.shutdown(wait=False)
    executor.shutdown(wait=True)
    assert all(future.done() for future in futures), "shutdown has returned, and jobs wait"
    got = [future.result(patience) for future in futures]
    assert got == list(range(10)), f"got {got}"


def cancels_what_is_queued_if_asked(executor: Executor, patience: float, start: float) -> None:
    ran: list[int] = []
    with held(executor, start) as blockers:
        futures = [executor.submit(ran.append, number) for number in range(10)]
        running = blockers.running()
        executor.shutdown(wait=False, cancel_futures=True)
        for future in futures:
            if not future.cancelled():
                was_not_cancelled(future, patience, "jobs that wait were not cancelled")
    assert running.result(patience) == 1, "a job that ran was cancelled"
    executor.shutdown(wait=True)
    assert not ran, f"cancelled, and done: {ran}"


def waits_at_the_end_of_a_with(executor: Executor, patience: float) -> None:
    go_on = threading.Event()
    with executor:
        future = executor.submit(go_on.wait, patience)
        go_on.set()
    assert future.done(), "the with has ended, and a job has not"
    raises(RuntimeError, partial(executor.submit, int), "the with has ended, and it took a job")


def serves_loops(executor: Executor, patience: float) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(patience):
            got = await asyncio.gather(*(loop.run_in_executor(executor, abs, -n) for n in range(9)))
            assert got == list(range(9)), f"got {got}"
            assert await run_in(executor, abs, -9) == 9, "run_in got another"  # noqa: PLR2004

    run_here(main())
    asyncio.run(_main_elsewhere(executor))


async def _main_elsewhere(executor: Executor) -> None:
    assert await asyncio.get_running_loop().run_in_executor(executor, abs, -3) == 3  # noqa: PLR2004


def loses_no_job_of_many_threads(executor: Executor, patience: float) -> None:
    ran: list[tuple[int, int]] = []

    def submit(who: int) -> None:
        futures = [executor.submit(ran.append, (who, number)) for number in range(JOBS)]
        for future in futures:
            future.result(patience)

    with Threads(patience=patience) as threads:
        outcomes = [threads.start(submit, who) for who in range(5)]
        for outcome in outcomes:
            outcome.result(2 * patience)
    expected = sorted((who, number) for who in range(5) for number in range(JOBS))
    assert sorted(ran) == expected, (
        f"{len(expected)} jobs, {len(ran)} done, {len(set(ran))} of them"
    )


CASES = [
    gives_results,
    gives_exceptions_with_their_traceback,
    goes_on_after_an_error,
    tells_when_done,
    maps_in_order,
    takes_no_more_after_shutdown,
    waits_at_the_end_of_a_with,
    serves_loops,
    loses_no_job_of_many_threads,
]
WITH_ALL_HELD = [
    starts_in_the_order_of_submission,
    cancels_what_has_not_begun,
    finishes_what_is_queued_at_shutdown,
    cancels_what_is_queued_if_asked,
]


def _check(case: Callable[..., None], factory: Factory) -> None:
    executor = factory()
    try:
        case(executor)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _check_held(case: Callable[..., None], patience: float, factory: Factory) -> None:
    """Repeat a case in which a thread was slow to start, with more time for that."""
    start = _START
    while True:
        try:
            _check(partial(case, patience=patience, start=start), factory)
        except NotHeldError as error:
            if start > patience:
                raise AssertionError(f"{error}, given {start} s to start") from None
            start *= 2
        else:
            return


def executor_cases(*, patience: float = 20.0) -> list[Case]:
    """Return the requirements on an executor as cases: pairs of a name and `check(factory)`.

    See `check_executor` for the option, `lock_cases` for the use.

    >>> from homebound.testing import executor_cases
    >>> [case.name for case in executor_cases()][0]
    'gives results'

    Called from: any thread.
    """
    cases = [Case(title(each), partial(_check, partial(each, patience=patience))) for each in CASES]
    cases += [Case(title(each), partial(_check_held, each, patience)) for each in WITH_ALL_HELD]
    return cases


def check_executor(factory: Factory, *, patience: float = 20.0, skip: Iterable[str] = ()) -> None:
    """Check that what `factory()` makes is a concurrent.futures.Executor that keeps its contract.

    Its jobs run in threads of this process; a few threads are enough, and more take longer. It is
    shut down in the end. `patience` is how long, in seconds, a job may seem to hang. `skip` has
    names of cases, see `executor_cases`. Raises AssertionError naming the case that fails, an
    ExceptionGroup if there are more, ValueError for names that are no case's.

    >>> import homebound
    >>> from homebound.testing import check_executor
    >>> check_executor(lambda: homebound.WorkerPool(max_threads=2))

    Called from: any thread.
    """
    check_all("check_executor", executor_cases(patience=patience), factory, skip)
