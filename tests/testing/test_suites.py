"""The conformance suites: whoever keeps the contract passes, and planted bugs are found."""

from __future__ import annotations

import asyncio
import heapq
import threading
import time
from collections import deque
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.testing import (
    Case,
    check_executor,
    check_lock,
    check_loop,
    check_queue,
    executor_cases,
    lock_cases,
    loop_cases,
    queue_cases,
)

if TYPE_CHECKING:
    from collections.abc import Callable

EXECUTORS: dict[str, Callable[[], Executor]] = {
    "WorkerPool": partial(homebound.WorkerPool, max_threads=2),
    "WorkerPool of one": partial(homebound.WorkerPool, max_threads=1),
    "WorkerPool whose threads stay": partial(homebound.WorkerPool, min_threads=2, max_threads=2),
    "WorkerPool whose threads leave": partial(
        homebound.WorkerPool, max_threads=3, idle_timeout=0.0
    ),
    "ThreadPoolExecutor": partial(ThreadPoolExecutor, 2),
}


@pytest.mark.parametrize("case", executor_cases())
@pytest.mark.parametrize("executor", EXECUTORS)
def test_executor(executor: str, case: Case):
    case(EXECUTORS[executor])


@pytest.mark.parametrize("case", loop_cases())
@pytest.mark.parametrize("loop", ["homebound", "asyncio", "uvloop"])
def test_loop(loop: str, case: Case, loop_factory: Any):
    case(homebound.new_event_loop if loop == "homebound" else loop_factory(loop))


def failed_cases(check: Callable[..., None], factory: Any, **options: Any) -> set[str]:
    """The names that the suite's error has."""
    errors: list[BaseException] = []
    text = ""
    try:
        check(factory, **options)
    except (AssertionError, ExceptionGroup) as error:
        errors = list(getattr(error, "exceptions", [error]))
        text = str(error)
    assert all(type(error) is AssertionError for error in errors)
    assert all(repr(name_of(error)) in text for error in errors), text
    return {name_of(error) for error in errors}


def name_of(error: BaseException) -> str:
    return str(error).split("'")[1]


# Locks with a bug.


class Barging(homebound.Lock):
    """Lets in who comes just when it is released, before those who wait."""

    def __init__(self) -> None:
        super().__init__()
        self.held = False
        self.queue: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> bool:
        while self.held:
            future = asyncio.get_running_loop().create_future()
            self.queue.append(future)
            try:
                await future
            finally:
                if future in self.queue:
                    self.queue.remove(future)
        self.held = True
        return True

    def release(self) -> None:
        if not self.held:
            raise RuntimeError
        self.held = False
        while self.queue:
            future = self.queue.popleft()
            if not future.done():
                future.set_result(None)
                return

    def locked(self) -> bool:
        return self.held

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()


class LosesHandOver(Barging):
    """Hands over at release, but who was cancelled by then takes it with him."""

    async def acquire(self) -> bool:
        if self.held:
            future = asyncio.get_running_loop().create_future()
            self.queue.append(future)
            await future
        self.held = True
        return True

    def release(self) -> None:
        if not self.held:
            raise RuntimeError
        if self.queue:
            future = self.queue.popleft()
            if not future.done():
                future.set_result(None)
        else:
            self.held = False


class LastInFirstOut(LosesHandOver):
    def release(self) -> None:
        self.queue.reverse()
        super().release()
        self.queue.reverse()


class LetsTwoIn(Barging):
    async def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


class Forgiving(homebound.Lock):
    def release(self) -> None:
        if self.locked():
            super().release()


class BoundToALoop(asyncio.Lock):
    """asyncio's own, where more than one loop uses it."""


BROKEN_LOCKS: dict[Any, set[str]] = {
    Barging: {"lets nobody overtake"},
    LosesHandOver: {"survives cancelling"},
    LastInFirstOut: {"serves in order"},
    LetsTwoIn: {"excludes"},
    Forgiving: {"refuses a release too many"},
}


@pytest.mark.parametrize("factory", BROKEN_LOCKS)
def test_broken_lock(factory: Any):
    found = failed_cases(check_lock, factory, one_loop=True)
    assert BROKEN_LOCKS[factory] <= found, found


class LetsThreadsIn(homebound.Lock):
    """A thread that has waited long enough has it."""

    def acquire_sync(self, timeout: float | None = None) -> bool:
        super().acquire_sync(timeout)
        return True


class DiesWithItsWaiter(homebound.Lock):
    """Who waits for it, and loses its home, is handed it all the same."""

    def _withdraw(self, waiter: Any) -> bool:
        if isinstance(waiter.task.home, homebound.AioContext) and waiter.task.home.name != "io":
            return True
        return super()._withdraw(waiter)


def test_broken_between_threads():
    assert failed_cases(check_lock, LetsThreadsIn) == {"lets a thread give up"}
    # Soon given up, and so asked no more than that: whoever is slow has threads left running.
    end = "survives the end of a home"
    others = {case.name for case in lock_cases()} - {end}
    assert failed_cases(check_lock, DiesWithItsWaiter, patience=0.3, skip=others) == {end}


def test_a_lock_of_one_loop_is_found_out():
    found = failed_cases(check_lock, BoundToALoop, patience=0.3)
    assert found
    assert found <= {case.name for case in lock_cases()} - {
        case.name for case in lock_cases(one_loop=True)
    }


# Queues with a bug.


class Doubles(asyncio.Queue[Any]):
    """Gives an item again when its getter was cancelled at the last moment."""

    async def get(self) -> Any:
        item = await super().get()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.put_nowait(item)
            self.put_nowait(item)
            raise
        return item


class Loses(asyncio.Queue[Any]):
    """Loses the item of a getter that is cancelled at the last moment."""

    async def get(self) -> Any:
        item = await super().get()
        await asyncio.sleep(0)
        return item


class Boundless(asyncio.Queue[Any]):
    def full(self) -> bool:
        return False


class Heap(asyncio.Queue[Any]):
    """Says that it is a FIFO."""

    def _put(self, item: Any) -> None:
        heapq.heappush(self._queue, item)

    def _init(self, _: int) -> None:
        self._queue: Any = []

    def _get(self) -> Any:
        return heapq.heappop(self._queue)


class NeverDone(asyncio.Queue[Any]):
    def task_done(self) -> None:
        pass


class ShutsDownQuietly(homebound.Queue[Any]):
    """Does not tell those who wait."""

    def shutdown(self, immediate: bool = False) -> None:  # noqa: FBT001, FBT002
        del immediate


BROKEN_QUEUES: dict[Any, set[str]] = {
    Doubles: {"loses no item"},
    Loses: {"loses no item"},
    Boundless: {"keeps its bound", "loses no slot"},
    Heap: {"keeps order"},
    NeverDone: {"counts what is done"},
    ShutsDownQuietly: {"shuts down"},
}


@pytest.mark.parametrize("factory", BROKEN_QUEUES)
def test_broken_queue(factory: Any):
    found = failed_cases(check_queue, factory, one_loop=True)
    assert BROKEN_QUEUES[factory] <= found, found


def test_a_queue_of_one_loop_is_found_out():
    found = failed_cases(check_queue, asyncio.Queue, patience=0.3)
    names = {case.name for case in queue_cases()}
    assert found
    assert found <= names - {case.name for case in queue_cases(one_loop=True)}


# Executors with a bug.


class Broken(ThreadPoolExecutor):
    def __init__(self) -> None:
        super().__init__(2)


class ForgetsCancelFutures(Broken):
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        del cancel_futures
        super().shutdown(wait)


class DropsTheQueue(Broken):
    """Cancels what is queued, asked or not."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        del cancel_futures
        super().shutdown(wait, cancel_futures=True)


class DoesNotWait(Broken):
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        del wait
        super().shutdown(wait=False, cancel_futures=cancel_futures)


class NeverShut(Broken):
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        del wait, cancel_futures

    def end(self) -> None:
        super().shutdown()


class LastJobFirst(Executor):
    """One thread, a stack for a queue."""

    def __init__(self) -> None:
        self.jobs: list[Any] = []
        self.changed = threading.Condition()
        self.ended = False
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self.changed:
            if self.ended:
                raise RuntimeError
            self.jobs.append((future, partial(fn, *args, **kwargs)))
            self.changed.notify()
        return future

    def work(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.jobs or self.ended)
                if not self.jobs:
                    return
                future, call = self.jobs.pop()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # noqa: BLE001
                    future.set_exception(error.with_traceback(None))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        with self.changed:
            self.ended = True
            while cancel_futures and self.jobs:
                self.jobs.pop(0)[0].cancel()
            self.changed.notify()
        if wait:
            self.thread.join()


BROKEN_EXECUTORS: dict[Any, set[str]] = {
    ForgetsCancelFutures: {"cancels what is queued if asked"},
    DropsTheQueue: {"finishes what is queued at shutdown"},
    LastJobFirst: {
        "starts in the order of submission",
        "gives exceptions with their traceback",
    },
}


@pytest.mark.parametrize("factory", BROKEN_EXECUTORS)
def test_broken_executor(factory: Any):
    broken = BROKEN_EXECUTORS[factory]
    # What is broken is soon given up; what is sound has the time that it takes.
    sound = only_executor_cases(*broken)
    assert failed_cases(check_executor, factory, skip=sound, patience=0.2) == broken
    assert failed_cases(check_executor, factory, skip=broken) == set()


def only_executor_cases(*names: str) -> set[str]:
    """Those to skip."""
    return {case.name for case in executor_cases()} - set(names)


def test_threads_that_are_slow_to_start_are_no_fault():
    """It takes longer than it does to take all threads for held."""
    slow = partial(ThreadPoolExecutor, 1, initializer=time.sleep, initargs=[0.15])
    check_executor(slow, skip=only_executor_cases("cancels what has not begun"))


class HasAThreadToSpare(Broken):
    """Seems to have one, and what comes third runs in another: which is no fault."""

    def __init__(self) -> None:
        ThreadPoolExecutor.__init__(self, 1)
        self.submitted = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.submitted += 1
        if self.submitted <= 2:
            return super().submit(fn, *args, **kwargs)
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@pytest.mark.parametrize("name", ["cancels what has not begun", "cancels what is queued if asked"])
def test_a_thread_that_was_free_after_all(name: str):
    executors = [ThreadPoolExecutor(1), HasAThreadToSpare()]
    check_executor(executors.pop, skip=only_executor_cases(name))
    assert not executors


def test_broken_shutdown():
    made: list[NeverShut] = []

    def make() -> NeverShut:
        made.append(NeverShut())
        return made[-1]

    broken = {
        "takes no more after shutdown",
        "waits at the end of a with",
        "cancels what is queued if asked",
    }
    found = failed_cases(check_executor, make, patience=0.2, skip=only_executor_cases(*broken))
    for executor in made:
        executor.end()
    assert found == broken


# Loops with a bug.


class LastCallFirst(asyncio.SelectorEventLoop):
    def call_soon(self, *args: Any, **options: Any) -> Any:  # type: ignore[override]
        handle = super().call_soon(*args, **options)
        self._ready.rotate(1)  # type: ignore[attr-defined]
        return handle


class ForgetsContext(asyncio.SelectorEventLoop):
    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Any = None
    ) -> Any:
        import contextvars  # noqa: PLC0415

        return super().call_soon(callback, *args, context=context or contextvars.Context())


class DiesOfAnError(asyncio.SelectorEventLoop):
    def call_exception_handler(self, context: Any) -> None:
        raise SystemExit(context["message"])


class Deaf(asyncio.SelectorEventLoop):
    """A thread's post does not wake it."""

    def _write_to_self(self) -> None:
        pass


class IgnoresCancelledTimers(asyncio.SelectorEventLoop):
    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> Any:
        super().call_at(when, callback, *args, context=context)
        return super().call_at(when, lambda: None)


BROKEN_LOOPS: dict[Any, set[str]] = {
    LastCallFirst: {"calls in order"},
    ForgetsContext: {"carries contextvars"},
    Deaf: {"wakes for a thread"},
    IgnoresCancelledTimers: {"calls nothing that was cancelled"},
}


@pytest.mark.parametrize("factory", BROKEN_LOOPS)
def test_broken_loop(factory: Any):
    skip = {case.name for case in loop_cases()} - BROKEN_LOOPS[factory]
    assert failed_cases(check_loop, factory, patience=0.5, skip=skip) == BROKEN_LOOPS[factory]


# The suites themselves.


def test_whoever_passes_is_not_accused():
    assert failed_cases(check_lock, homebound.Lock) == set()
    assert failed_cases(check_queue, homebound.Queue) == set()
    assert failed_cases(check_executor, EXECUTORS["WorkerPool"]) == set()
    assert failed_cases(check_loop, homebound.new_event_loop) == set()


def test_the_error_says_which_case_and_why():
    with pytest.raises(
        AssertionError,
        match=r"check_lock: 'refuses a release too many' fails: .*a free lock was released",
    ):
        check_lock(Forgiving)


def test_cases_are_skipped_by_name():
    check_lock(Forgiving, skip=["refuses a release too many"])
    with pytest.raises(ValueError, match=r"no cases .'refuses everything'"):
        check_lock(homebound.Lock, skip=["refuses everything"])
