"""A worker that dies, or cannot start: its caller gets an error, and the pool goes on."""

from __future__ import annotations

import asyncio
import concurrent.futures
import linecache
import select
import sys
import threading
from concurrent.futures import BrokenExecutor
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import WorkerPool
from homebound._os.parking import Parker
from homebound._workers import threads as under_test
from homebound._workers.worker import Worker
from homebound.testing import until

from ..locks.interruptions import EARLY_ENDS, no_more_threads

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from contextlib import AbstractContextManager
    from types import FrameType

    InThread = Callable[..., Future[Any]]
    Program = Callable[[str], str]

CALLS: dict[str, Callable[[WorkerPool], Any]] = {
    "to_worker": lambda _: homebound.to_worker(str, "done"),
    "submit": lambda pool: asyncio.wrap_future(pool.submit(str, "done")),
    "run_in": lambda pool: homebound.run_in(pool, str, "done"),
    "run_in_executor": lambda pool: asyncio.get_running_loop().run_in_executor(pool, str, "done"),
}
calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[type[BaseException]]:
    """The kinds of exceptions that were reported to threading.excepthook."""
    kinds: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: kinds.append(args.exc_type))
    return kinds


# At the limit of threads.


@calls
def test_no_thread_can_be_started(call: Callable[[WorkerPool], Any]):
    async def main() -> None:
        with WorkerPool() as pool:
            with no_more_threads(), pytest.raises(RuntimeError, match="can't start new thread"):
                await call(pool)
            assert " 0 threads, 0 idle, 0 jobs waiting" in repr(pool)
            assert await call(pool) == "done"

    homebound.run(main())


def test_a_refused_job_is_not_run_later():
    done: list[str] = []
    with WorkerPool() as pool:
        with no_more_threads(), pytest.raises(RuntimeError, match="can't start new thread"):
            pool.submit(done.append, "refused")
        pool.submit(done.append, "taken").result(20)
    assert done == ["taken"]


def test_the_programs_own_excepthook_raises(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def hook(_: object) -> None:
        message = "the hook"
        raise ValueError(message)

    def callback(_: object) -> None:
        raise SystemExit(1)

    monkeypatch.setattr(threading, "excepthook", hook)
    with WorkerPool(max_threads=1) as pool:
        go_on = threading.Event()
        pool.submit(go_on.wait, 20).add_done_callback(callback)
        after = [pool.submit(int) for _ in range(3)]
        go_on.set()
        assert [each.result(20) for each in after] == [0, 0, 0]
    assert "threading.excepthook failed" in caplog.text
    caplog.clear()  # its records have tracebacks


def test_running_workers_do_what_no_new_one_can():
    go_on = threading.Event()
    with WorkerPool() as pool:
        first = pool.submit(go_on.wait, 20)
        with no_more_threads():
            second = pool.submit(threading.get_ident)
            go_on.set()
            assert first.result(20)
            assert isinstance(second.result(20), int)


def test_submitters_that_relied_on_a_new_thread_get_an_error(
    monkeypatch: pytest.MonkeyPatch, in_thread: InThread
):
    """While one submitter starts the last thread there may be, others only queue their jobs."""
    start = threading.Thread.start
    asked, go_on = threading.Event(), threading.Event()

    def fail_late(thread: threading.Thread) -> None:
        if thread.name.startswith("late-"):
            asked.set()
            go_on.wait(20)
            with no_more_threads():
                start(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail_late)
    with WorkerPool(max_threads=1, name="late") as pool:
        searches = in_thread(pool.submit, int)
        assert asked.wait(20)
        relies = pool.submit(int)
        go_on.set()
        with pytest.raises(RuntimeError, match="can't start new thread"):
            searches.result(20)
        with pytest.raises(BrokenExecutor, match="can't start new thread"):
            relies.result(20)


class Threads(set[Worker]):
    """A pool's workers; `removed` is called once, as a worker has just removed itself."""

    removed: Callable[[], object] | None = None

    def discard(self, worker: object, /) -> None:
        super().discard(worker)
        removed, self.removed = self.removed, None
        if removed is not None:
            removed()


def test_a_worker_that_would_stay_finds_its_place_taken():
    """Jobs come as it leaves: another worker has been started by then, and no more may run."""
    ran: list[threading.Thread] = []
    held, leaver_done = threading.Event(), threading.Event()

    def hold() -> None:
        ran.append(threading.current_thread())
        held.set()
        until(lambda: leaver_done.is_set() or not ran[0].is_alive())

    def last() -> None:
        ran.append(threading.current_thread())
        leaver_done.set()

    with WorkerPool(max_threads=1, idle_timeout=0.0) as pool:
        threads = pool._threads = Threads()

        def submit() -> None:
            pool.submit(hold)
            assert held.wait(20)
            pool.submit(last)

        def first() -> None:
            ran.append(threading.current_thread())
            threads.removed = submit

        pool.submit(first)
        assert leaver_done.wait(20)
    assert ran[1] is ran[2] is not ran[0]


@pytest.mark.parametrize("begun", [False, True])
def test_ctrl_c_as_a_thread_is_started_is_raised(monkeypatch: pytest.MonkeyPatch, begun: bool):  # noqa: FBT001
    """Whether or not the thread has come to life, and though there is another worker."""
    start = threading.Thread.start
    go_on = threading.Event()

    def interrupted(thread: threading.Thread) -> None:
        if begun:
            start(thread)
        raise KeyboardInterrupt

    with WorkerPool(max_threads=2) as pool:
        pool.submit(go_on.wait, 20)
        until(lambda: not pool._search.under_way)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", interrupted)
            with pytest.raises(KeyboardInterrupt):
                pool.submit(int)
        assert pool.submit(int).result(20) == 0
        go_on.set()


def test_a_finaliser_without_a_thread_in_the_place_it_took(monkeypatch: pytest.MonkeyPatch):
    """What interrupts the start of the only thread there may be can start none: both hear of it."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", start)
        with no_more_threads(), pytest.raises(RuntimeError, match="can't start new thread"):
            pool.submit(int)
        start(thread)

    with WorkerPool(max_threads=1) as pool:
        monkeypatch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(BrokenExecutor, match="can't start new thread"):
            pool.submit(int).result(20)
        assert pool.submit(int).result(20) == 0


def test_a_finaliser_in_the_place_it_took(monkeypatch: pytest.MonkeyPatch):
    """The worker it has started ends at once; the interrupted call's job is done as well."""
    start = threading.Thread.start
    results: list[int] = []

    def interrupted(thread: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", start)
        results.append(pool.submit(int, "1").result(20))
        start(thread)

    with WorkerPool(max_threads=1, idle_timeout=0.0) as pool:
        monkeypatch.setattr(threading.Thread, "start", interrupted)
        assert pool.submit(int, "2").result(20) == 2
    assert results == [1]


def test_a_shutdown_while_another_thread_fails_to_start(
    monkeypatch: pytest.MonkeyPatch, in_thread: InThread
):
    """The last worker has left by then, and has told nobody, as the new one was counted."""
    start = threading.Thread.start
    asked, go_on, work = threading.Event(), threading.Event(), threading.Event()

    def fail_late(thread: threading.Thread) -> None:
        if thread.name == "late-1":
            asked.set()
            go_on.wait(20)
            message = "can't start new thread"
            raise RuntimeError(message)
        start(thread)

    def fail_when_it_has_left() -> None:
        until(lambda: pool._when_empty and len(pool._threads) == 1)
        go_on.set()

    async def main() -> None:
        pool.submit(work.wait, 20)
        until(lambda: not pool._search.under_way)
        submitted = in_thread(pool.submit, int)
        assert asked.wait(20)
        work.set()
        fails = in_thread(fail_when_it_has_left)
        pool.shutdown(timeout=20)
        until(lambda: not pool._when_empty)  # it was told, and has not just waited 20 s
        fails.result(20)
        assert submitted.result(20).result(20) == 0

    monkeypatch.setattr(threading.Thread, "start", fail_late)
    pool = WorkerPool(name="late")
    homebound.run(main())


def test_an_io_thread_and_a_vcpu_that_cannot_start():
    io, vcpu = homebound.IOThread(), homebound.VCPU(0, homebound.VCPU.halt)
    for start in (io.start, vcpu.start, homebound.watch_stalls):
        with no_more_threads(), pytest.raises(RuntimeError, match="can't start new thread"):
            start()
    with pytest.raises(RuntimeError, match="can't start new thread"):
        vcpu.stop(20)  # it says why
    with homebound.watch_stalls():
        pass


def test_a_virtual_clock_and_settle_that_cannot_start(io: homebound.IOThread):
    settle = homebound.testing.settle_sync
    for start in (homebound.testing.VirtualClock().__enter__, lambda: settle(io.context)):
        with no_more_threads(), pytest.raises(RuntimeError, match="can't start new thread"):
            start()
    settle(io.context)
    with homebound.testing.VirtualClock() as clock:
        assert clock.now() == 0.0


def test_a_loop_ends_without_a_thread_to_wait_for_its_executors():
    """asyncio's end of its own executor needs a thread; our workers end all the same."""
    pools: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(int)
        await homebound.to_worker(int)
        pool = homebound.testing.here().workers
        with no_more_threads(), pytest.raises(RuntimeError, match="can't start new thread"):
            await loop.shutdown_default_executor()
        pools.append(repr(pool))

    homebound.run(main())
    assert "shut down, 0 threads" in pools[0]


# Out of memory, in a worker's own code.


@calls
def test_a_worker_dies_as_it_begins(
    call: Callable[[WorkerPool], Any],
    monkeypatch: pytest.MonkeyPatch,
    told: list[type[BaseException]],
):
    async def main() -> None:
        with WorkerPool() as pool:
            with monkeypatch.context() as patch:
                patch.setattr(select, "poll", _in_a_worker(select.poll))
                with pytest.raises(BrokenExecutor, match="MemoryError") as caught:
                    await call(pool)
            assert isinstance(caught.value.__cause__, MemoryError)
            assert await call(pool) == "done"

    homebound.run(main())
    until(lambda: told == [MemoryError])  # after its caller


def _out_of_memory(*_: object) -> Any:
    raise MemoryError


def _in_a_worker(function: Callable[..., Any]) -> Callable[..., Any]:
    """A wrapper of the function that raises MemoryError in workers alone."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if isinstance(threading.current_thread(), Worker):
            raise MemoryError  # noqa: TRY004  (no matter of a wrong type)
        return function(*args, **kwargs)

    return call


def test_a_worker_dies_in_its_sleep(
    monkeypatch: pytest.MonkeyPatch, told: list[type[BaseException]]
):
    with WorkerPool(min_threads=1, max_threads=1, idle_timeout=0.0) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(Parker, "park", _in_a_worker(Parker.park))
            assert pool.submit(int).result(20) == 0
            until(lambda: " 0 threads" in repr(pool))
        second = pool.submit(threading.current_thread).result(20)
        assert second.is_alive()
        assert pool.submit(threading.current_thread).result(20) is second
    assert told == [MemoryError]
    assert " 0 threads, 0 idle" in repr(pool)


def test_jobs_go_on_though_every_worker_dies_after_one(
    monkeypatch: pytest.MonkeyPatch, told: list[type[BaseException]]
):
    monkeypatch.setattr(Parker, "park", _in_a_worker(Parker.park))
    with WorkerPool(max_threads=2) as pool:
        futures = [pool.submit(str, number) for number in range(100)]
        assert [each.result(20) for each in futures] == [str(number) for number in range(100)]
    assert set(told) <= {MemoryError}


# Errors raised while an outcome is reported.


def test_a_callback_raises_system_exit(
    told: list[type[BaseException]], caplog: pytest.LogCaptureFixture
):
    """A worker calls the future's callback; concurrent.futures lets SystemExit through."""
    go_on = threading.Event()
    with WorkerPool(max_threads=1) as pool:
        future = pool.submit(go_on.wait, 20)
        future.add_done_callback(lambda _: sys.exit(3))
        go_on.set()
        assert future.result(20)
        worker = pool.submit(threading.current_thread).result(20)
        assert pool.submit(threading.current_thread).result(20) is worker
    assert told == [SystemExit]
    (message,) = caplog.messages  # threading's own hook says nothing of it
    assert message.startswith("SystemExit(3) in 'workers")
    caplog.clear()  # its traceback refers to the worker's frames


def test_a_future_whose_result_was_set_from_outside(told: list[type[BaseException]]):
    go_on = threading.Event()
    with WorkerPool(max_threads=1) as pool:
        future: Future[Any] = pool.submit(go_on.wait, 20)
        until(future.running)
        future.set_result("meanwhile")
        go_on.set()
        assert future.result(20) == "meanwhile"
        assert pool.submit(int).result(20) == 0
    assert told == [concurrent.futures.InvalidStateError]


# Any exception, at any line.


class Thrower:
    """A tracer that raises in the workers, at the n-th line of their own code.

    With `again` it raises once more, at that line after the first exception, where it is mended.
    """

    def __init__(self, at: int, again: int | None = None) -> None:
        self.left = at
        self.again = again
        self.where: str | None = None
        self.worked = False  # the worker had begun to look for a job by then
        self._guard = threading.Lock()

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename != under_test.__file__:
            return None
        mends = frame.f_code.co_name in MENDING
        if event == "line" and _can_throw(frame):
            with self._guard:
                if mends and self.left < 0 and self.again is not None:
                    self.again -= 1
                    if self.again == -1:
                        raise MemoryError
                self.left -= not mends
                now = not mends and self.left == -1
            if now:
                self.where = f"{frame.f_code.co_name}:{frame.f_lineno}"
                self.worked = getattr(threading.current_thread(), "worked", False)
                raise MemoryError(self.where)
        return self


def _can_throw(frame: FrameType) -> bool:
    """Neither where a worker begins, nor where the pool mends what another exception has broken."""
    code = frame.f_code
    line = linecache.getline(code.co_filename, frame.f_lineno).strip()
    begins = code.co_name == "_live" and line.startswith(("worker: Any", "try:", "worker.parker"))
    return not begins and code.co_name != "_remove_ended"


# The functions that mend what the first exception has cut short.
MENDING = {
    "_lost",
    "_send_instead",
    "_tell_if_empty",
    "_see_off",
    "_settle",
    "_strike_off",
}


def thrown_at(at: int, again: int | None = None) -> Thrower:
    """A pool's life with an exception raised in one of its workers: each caller gets an answer."""
    thrower = Thrower(at, again)
    threading.settrace(thrower)
    try:
        with WorkerPool(max_threads=2, idle_timeout=0.0) as pool:
            go_on = threading.Event()
            futures: list[Future[Any]] = [pool.submit(go_on.wait, 20)]
            futures += [pool.submit(str, number) for number in range(3)]
            go_on.set()
            outcomes = [each.exception(20) for each in futures]
            until(lambda: " 0 threads" in repr(pool))
            futures = [pool.submit(str, number) for number in range(10, 12)]
            outcomes += [each.exception(20) for each in futures]
    finally:
        threading.settrace(None)
    errors = [each for each in outcomes if each is not None]
    assert all(isinstance(each, (BrokenExecutor, MemoryError)) for each in errors), errors
    # One job or, with a worker that dies before it has looked for any, all that were queued.
    assert len(errors) <= 1 or not thrower.worked, (errors, thrower.where)
    assert " 0 threads, 0 idle, 0 jobs waiting" in repr(pool), thrower.where
    return thrower


@pytest.mark.usefixtures("told")
def test_an_exception_at_any_line_of_a_worker():
    seen: set[str] = set()
    for at in range(1000):
        where = thrown_at(at).where
        if where is None:
            break
        seen.add(where.partition(":")[0])
    else:
        raise AssertionError("a worker has come to a thousand lines")
    assert {"_live", "_work", "_do", "_rest", "_sleep", "_leave"} <= seen


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("first", [3, 57])
def test_another_exception_where_the_first_is_mended(first: int):
    seen = 0
    while True:
        left = thrown_at(first, seen).again
        if left is not None and left >= 0:
            break
        seen += 1
    assert seen > 5


# The end of run, of an I/O thread and of the interpreter.


def test_run_and_an_io_thread_end_though_a_worker_died(
    monkeypatch: pytest.MonkeyPatch, told: list[type[BaseException]]
):
    async def main() -> str:
        with monkeypatch.context() as patch:
            patch.setattr(Parker, "park", _in_a_worker(Parker.park))
            done = await homebound.to_worker(str, "done")
            until(lambda: " 0 threads" in repr(homebound.testing.here().workers))
        return done

    assert homebound.run(main()) == "done"
    with homebound.IOThread() as io:
        assert homebound.block_on(main(), io.context) == "done"
    assert told == [MemoryError] * 2


def test_the_interpreter_ends_though_workers_died(program: Program):
    assert program("""
    import homebound, threading
    from homebound._os.parking import Parker

    def die(*_):
        raise MemoryError

    threading.excepthook = lambda args: print(args.exc_type.__name__)
    pool = homebound.WorkerPool(max_threads=1)
    park, Parker.park = Parker.park, die
    worker = pool.submit(threading.current_thread).result()
    worker.join()
    Parker.park = park
    pool.submit(print, "done")
    """) == "MemoryError\ndone\n"  # fmt: skip


# Before a worker's own code.


before_it_works = pytest.mark.parametrize("fail", EARLY_ENDS)


@calls
@before_it_works
def test_a_worker_dies_before_its_own_code(
    fail: Callable[[], AbstractContextManager[None]],
    call: Callable[[WorkerPool], Any],
    told: list[type[BaseException]],
):
    async def main() -> None:
        with WorkerPool() as pool:
            with fail(), pytest.raises(BrokenExecutor, match="has ended"):
                await call(pool)
            assert " 0 threads, 0 idle, 0 jobs waiting" in repr(pool)
            assert await call(pool) == "done"

    homebound.run(main())
    assert told == [MemoryError]


@before_it_works
def test_busy_workers_do_the_jobs_of_one_that_never_began(
    fail: Callable[[], AbstractContextManager[None]],
    told: list[type[BaseException]],
):
    go_on = threading.Event()
    with WorkerPool(max_threads=2) as pool:
        first = pool.submit(go_on.wait, 20)
        until(first.running)
        with fail():
            others = [pool.submit(str, number) for number in range(3)]
            until(lambda: " 1 threads" in repr(pool) and told)
        go_on.set()
        assert [each.result(20) for each in others] == ["0", "1", "2"]
        assert first.result(20)
    assert set(told) == {MemoryError}
