"""The conformance suite of executors: sound ones pass, planted bugs are found."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.testing import (
    Case,
    check_executor,
    executor_cases,
)

from .failed_cases import failed_cases

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


class Broken(ThreadPoolExecutor):
    def __init__(self) -> None:
        super().__init__(2)


class ForgetsCancelFutures(Broken):
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        del cancel_futures
        super().shutdown(wait)


class DropsTheQueue(Broken):
    """Cancels queued jobs, with `cancel_futures` or without."""

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
    """One thread, and a stack in place of a queue."""

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
    # A broken executor is given little time; a sound one the time that it takes.
    sound = only_executor_cases(*broken)
    assert failed_cases(check_executor, factory, skip=sound, patience=0.2) == broken
    assert failed_cases(check_executor, factory, skip=broken) == set()


def only_executor_cases(*names: str) -> set[str]:
    """Return the cases to skip."""
    return {case.name for case in executor_cases()} - set(names)


def test_threads_that_are_slow_to_start_are_no_fault():
    """Starting takes longer than the suite waits before it takes all threads for busy."""
    slow = partial(ThreadPoolExecutor, 1, initializer=time.sleep, initargs=[0.15])
    check_executor(slow, skip=only_executor_cases("cancels what has not begun"))


class HasAThreadToSpare(Broken):
    """Seems to have one thread, and runs a third job in another, which is no fault."""

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
