"""A thread whose end is told, wherever an exception thrown into it strikes; and a storm of them."""

from __future__ import annotations

import gc
import linecache
import sys
import threading
from concurrent.futures import BrokenExecutor, Future, as_completed, wait
from concurrent.futures import _base as futures_base
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest

from homebound import WorkerPool
from homebound._os.once import Once
from homebound._os.threads import NoticedThread
from homebound._workers.jobs import FutureJob, Outcome
from homebound._workers.worker import Worker
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    Program = Callable[[str], str]


@pytest.mark.parametrize("step", ["_bootstrap", "_bootstrap_inner", "_set_ident"])
def test_a_thread_that_is_struck_before_it_is_recorded(program: Program, step: str):
    """Starting it returns, though threading itself would wait forever."""
    assert program(f"""
    import homebound, sys, threading
    from concurrent.futures import BrokenExecutor

    def fail(*_):
        raise MemoryError

    sys.unraisablehook = lambda _: None
    step, threading.Thread.{step} = threading.Thread.{step}, fail
    pool = homebound.WorkerPool()
    try:
        pool.submit(int).result()
    except BrokenExecutor:
        print("submit")
    io, cpu = homebound.IOThread(), homebound.VCPU(0, homebound.VCPU.halt)
    for thread in io, cpu:
        try:
            thread.start()
        except RuntimeError:
            print("start")
    try:
        cpu.stop()
    except RuntimeError:
        print("stop")
    threading.Thread.{step} = step
    print(pool.submit(int).result(), [each.name for each in threading.enumerate()])
    pool.shutdown()
    with io:
        pass
    """) == "submit\nstart\nstop\n0 ['MainThread', 'workers0-1']\n"  # fmt: skip


@pytest.mark.usefixtures("quiet")
def test_a_thread_that_is_struck_as_it_records_itself(monkeypatch: pytest.MonkeyPatch):
    """It does not stay among those that threading lists."""

    def strike(_: object) -> None:
        raise MemoryError

    told: list[threading.Thread] = []
    thread = NoticedThread(int, told.append, "struck")
    monkeypatch.setattr(Once, "set", strike)  # after `recorded` was set
    thread.start()
    thread.join(20)
    assert told == [thread]
    assert not thread.is_alive()
    assert thread not in threading.enumerate()


def test_a_thread_that_is_not_started_is_freed_at_once(monkeypatch: pytest.MonkeyPatch):
    """It is in no reference cycle, and nor is one that the system had no room for."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    for name in "_start_new_thread", "_start_joinable_thread":  # until 3.12, and from 3.13 on
        if hasattr(threading, name):
            monkeypatch.setattr(threading, name, refuse)
    gc.disable()
    try:
        unstarted, refused = (NoticedThread(int, repr, "freed") for _ in range(2))
        with pytest.raises(RuntimeError, match="can't start") as caught:
            refused.start()
        del caught
        references = ref(unstarted), ref(refused)
        del unstarted, refused
        assert [each() for each in references] == [None, None]
    finally:
        gc.enable()


def test_a_thread_that_leaves_threadings_own_lock_locked(program: Program):
    """As 3.14 may, struck after it has taken it. Other threads start and end all the same."""
    assert program("""
    import threading
    from homebound._os.threads import NoticedThread

    lock = threading._active_limbo_lock
    thread = NoticedThread(lock.acquire, lambda _: None, "left")
    thread.start()
    thread.join()
    other = threading.Thread(target=print, args=["done"])
    other.start()
    other.join()
    """) == "done\n"  # fmt: skip


def test_a_start_that_leaves_threadings_own_lock_locked(monkeypatch: pytest.MonkeyPatch):
    lock: Any = threading._active_limbo_lock  # type: ignore[attr-defined]

    def struck(_: threading.Thread) -> None:
        lock.acquire()
        raise MemoryError

    monkeypatch.setattr(threading.Thread, "start", struck)
    with pytest.raises(MemoryError):
        NoticedThread(int, repr, "unstarted").start()
    assert not lock._is_owned()
    with lock, pytest.raises(MemoryError):  # a finaliser's, in the middle of another start
        NoticedThread(int, repr, "unstarted").start()
    assert lock._is_owned()
    lock.release()
    assert not lock._is_owned()


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exceptions in threads are not reported."""
    for module, hook in (sys, "unraisablehook"), (threading, "excepthook"):
        monkeypatch.setattr(module, hook, lambda _: None)


@pytest.mark.usefixtures("quiet")
def test_an_end_is_told_again_until_it_is_heard():
    told: list[threading.Thread] = []

    def ended(thread: threading.Thread) -> None:
        told.append(thread)
        if len(told) < 4:
            raise MemoryError

    thread = NoticedThread(int, ended, "told")
    thread.start()
    until(lambda: len(told) == 4)
    assert set(told) == {thread}
    thread.join(20)
    assert not thread.is_alive()
    until(lambda: thread._ended is None)


class _Thrower:
    """A tracer that raises in workers, at the n-th line of concurrent.futures there."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        if code.co_filename != futures_base.__file__ or not code.co_qualname.startswith("Future."):
            return None
        # At the line of a `with`, a tracer's exception comes where no other can: before its exit.
        line = linecache.getline(futures_base.__file__, frame.f_lineno).strip()
        strikes = event == "line" and not line.startswith("with ")
        if strikes and isinstance(threading.current_thread(), Worker):
            self.left -= 1
            if self.left == -1:
                raise MemoryError
        return self


def test_a_future_of_ours_begins_as_one_of_pythons():
    theirs, ours = vars(Future()), vars(Outcome())
    assert isinstance(ours.pop("_condition"), type(theirs.pop("_condition")))
    assert ours == theirs


@pytest.mark.usefixtures("quiet")
def test_a_future_is_told_of_though_that_is_cut_short():
    """At any line: what waits for it goes on, and its callbacks are called once."""
    at = 0
    while True:
        thrower = _Thrower(at)
        go_on = threading.Event()
        called: list[Future[Any]] = []
        with WorkerPool(max_threads=1) as pool:
            threading.settrace(thrower)
            try:
                future = pool.submit(go_on.wait, 20)
                until(lambda: future.running() or future.done())  # noqa: B023
                future.add_done_callback(called.append)
                future.add_done_callback(called.append)
                go_on.set()
                assert wait([future], 20).done, at
                assert isinstance(future.exception(20), BrokenExecutor | MemoryError | None)
                until(lambda: len(called) == 2)  # noqa: B023
            finally:
                threading.settrace(None)
        assert len(called) == 2
        if thrower.left >= 0:
            break
        at += 1
    assert at > 5


def test_a_future_that_is_told_of_again_is_given_once():
    """By `as_completed`, as when a callback has raised SystemExit."""
    jobs = [FutureJob(int) for _ in range(4)]
    given = as_completed([job.future for job in jobs])
    jobs[0].work()
    assert next(given) is jobs[0].future
    for job in jobs[1:3]:
        job.work()
    rest = {next(given)}  # it has taken note of both, and has one of them still to give
    for job in jobs[1:3]:
        job.fail(SystemExit())
    rest.add(next(given))
    jobs[3].work()
    assert {*rest, *given} == {job.future for job in jobs[1:]}


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("struck", ["call_off", "_strike_off"])
def test_a_start_that_is_struck_twice(monkeypatch: pytest.MonkeyPatch, struck: str, begins: bool):  # noqa: FBT001
    """The second time as the first is seen to: the thread keeps no place in the pool."""
    strikes = [MemoryError("first"), MemoryError("second")]

    def strike(thread: NoticedThread) -> None:
        if begins or len(strikes) < 2:
            start(thread)
        if len(strikes) == 2:
            raise strikes.pop(0)

    def strike_again(*args: Any) -> Any:
        if strikes:
            raise strikes.pop(0)
        return act(*args)

    start = NoticedThread.start
    owner: Any = Worker if struck == "call_off" else WorkerPool
    act = getattr(owner, struck)
    with WorkerPool(max_threads=1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(Worker, "start", strike)
            patch.setattr(owner, struck, strike_again)
            with suppress(MemoryError):  # or the job is done
                assert pool.submit(int).result(20) == 0
            assert len(strikes) == (begins and struck == "_strike_off")
        assert pool.submit(str, "done").result(20) == "done"
    assert " 0 threads, 0 idle, 0 jobs" in repr(pool)


STORM = """
import ctypes, homebound, sys, threading, time
from concurrent.futures import BrokenExecutor

strike = ctypes.pythonapi.PyThreadState_SetAsyncExc
strike.argtypes = [ctypes.c_ulong, ctypes.py_object]
threading.excepthook = sys.unraisablehook = lambda _: None
sys.stderr = None  # the hooks are struck as well


class Struck(BaseException):
    pass


def storm():
    while not calm:
        for each in threading.enumerate():
            if "work" in each.name and each.ident:
                strike(each.ident, Struck)


def works(submit):
    while True:
        try:
            return submit(str, "works").result(20)
        except (BrokenExecutor, Struck):
            pass


calm = []
blower = threading.Thread(target=storm)
blower.start()
"""


@pytest.mark.parametrize("size", [1, 4])
def test_a_pool_in_a_storm(program: Program, size: int):
    """After it each job is done or has failed, and the pool goes on, and ends."""
    assert program(STORM + f"""
pool = homebound.WorkerPool({size}, name="work")
jobs = []
end = time.monotonic() + 0.7
while time.monotonic() < end:
    jobs.append(pool.submit(int))
    time.sleep(0.0005)
calm.append(True)
blower.join()
print(works(pool.submit))
pool.shutdown()
print(all(job.done() for job in jobs))
""") == "works\nTrue\n"  # fmt: skip


def test_run_ends_after_a_storm(program: Program):
    assert program(STORM + """
async def main():
    end = time.monotonic() + 0.7
    while time.monotonic() < end:
        try:
            await homebound.to_worker(int)
        except (BrokenExecutor, Struck):
            pass
    calm.append(True)
    return "done"

print(homebound.run(main()))
blower.join()
""") == "done\n"  # fmt: skip
