"""WorkerPool: an Executor whose threads start when needed and end when idle."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import WorkerPool
from homebound.testing import here, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]


def thread_name() -> str:
    return threading.current_thread().name


def test_submit_map_and_with():
    with WorkerPool(max_threads=4, name="disk") as pool:
        assert isinstance(pool, concurrent.futures.Executor)
        assert pool.submit(sum, [1, 2]).result(10) == 3
        assert pool.submit(dict, a=1).result(10) == {"a": 1}
        assert list(pool.map(str, range(5))) == list("01234")
        assert pool.submit(thread_name).result(10).startswith("disk-")
        assert "'disk'" in repr(pool)
    with pytest.raises(RuntimeError, match="was shut down"):
        pool.submit(sum, [])


def test_an_exception_is_the_futures():
    with WorkerPool() as pool:
        future = pool.submit(int, "x")
        with pytest.raises(ValueError, match="invalid literal"):
            future.result(10)
        assert pool.submit(int, "7").result(10) == 7  # the worker lives


def test_a_traceback_is_intact():
    def deep() -> None:
        int("x")

    with WorkerPool() as pool:
        error = pool.submit(deep).exception(10)
    assert error is not None
    assert traceback.extract_tb(error.__traceback__)[-1].name == "deep"


def test_a_base_exception_does_not_kill_the_worker():
    def leave() -> None:
        raise SystemExit(3)

    with WorkerPool(max_threads=1) as pool:
        with pytest.raises(SystemExit):
            pool.submit(leave).result(10)
        assert pool.submit(int, "7").result(10) == 7


def test_jobs_start_in_order():
    order: list[int] = []
    go_on = threading.Event()
    with WorkerPool(max_threads=1) as pool:
        pool.submit(go_on.wait, 10)
        for number in range(50):
            pool.submit(order.append, number)
        go_on.set()
    assert order == list(range(50))


def test_cancelled_before_it_starts():
    ran: list[int] = []
    go_on = threading.Event()
    with WorkerPool(max_threads=1) as pool:
        running = pool.submit(go_on.wait, 10)
        waiting = pool.submit(ran.append, 1)
        assert waiting.cancel()
        go_on.set()
        assert running.result(10)
        assert not running.cancel()
    assert waiting.cancelled()
    assert not ran


def test_long_jobs_get_a_thread_each():
    """The jobs wait for each other: on fewer threads than jobs none would end."""
    with WorkerPool(max_threads=8) as pool:
        barrier = threading.Barrier(8)
        futures = [pool.submit(barrier.wait, 10) for _ in range(8)]
        assert sorted(future.result(10) for future in futures) == list(range(8))


def threads_of(pool: WorkerPool) -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith(pool.name)]


def test_threads_start_when_needed():
    go_on = threading.Event()
    with WorkerPool(max_threads=4) as pool:
        assert threads_of(pool) == []
        for number in range(1, 4):
            begun = threading.Event()
            pool.submit(lambda begun: (begun.set(), go_on.wait(10)), begun)
            assert begun.wait(10)
            assert len(threads_of(pool)) == number
        go_on.set()


def test_names():
    with WorkerPool() as first, WorkerPool() as second:
        assert first.name != second.name
        for pool in (first, second):
            assert pool.submit(thread_name).result(10).startswith(f"{pool.name}-")


def test_never_more_than_max_threads():
    running, most = [0], [0]
    lock = threading.Lock()

    def work() -> str:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        with lock:
            running[0] -= 1
        return thread_name()

    with WorkerPool(max_threads=3) as pool:
        names = {future.result(10) for future in [pool.submit(work) for _ in range(200)]}
    assert 1 <= len(names) <= 3
    assert most[0] <= 3


def test_jobs_that_submit_jobs():
    with WorkerPool(max_threads=2) as pool:
        total = threading.Semaphore(0)

        def spread(depth: int) -> None:
            if depth:
                pool.submit(spread, depth - 1)
                pool.submit(spread, depth - 1)
            total.release()

        pool.submit(spread, 6)
        for _ in range(127):
            assert total.acquire(timeout=10)


def test_idle_threads_end_and_new_ones_start():
    with WorkerPool(idle_timeout=0.0) as pool:
        for _ in range(20):
            pool.submit(int).result(10)
            for thread in [
                each for each in threading.enumerate() if each.name.startswith(pool.name)
            ]:
                thread.join(10)
                assert not thread.is_alive()


def test_min_threads_stay():
    with WorkerPool(min_threads=1, idle_timeout=0.001) as pool:
        first = pool.submit(threading.get_ident).result(10)
        for _ in range(5):
            until(lambda: " 1 idle" in repr(pool))
            threading.Event().wait(0.002)  # longer than the idle timeout
            assert pool.submit(threading.get_ident).result(10) == first


def test_a_thread_that_stays_is_idle_all_the_time():
    """After its idle timeout, a submitter still finds it, and starts no other thread."""

    def which() -> int:
        time.sleep(0.002)  # a worker with brief jobs looks again for a while instead
        return threading.get_ident()

    def idle() -> bool:
        time.sleep(0)  # releases the worker
        return " 1 idle" in repr(pool)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that a look can come between any two steps of the worker
    try:
        with WorkerPool(min_threads=1, idle_timeout=0.0) as pool:
            first = pool.submit(which).result(10)
            for _ in range(10):
                until(idle)
                assert all(idle() for _ in range(500))
                assert pool.submit(which).result(10) == first
    finally:
        sys.setswitchinterval(interval)
    assert "0 threads" in repr(pool)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"max_threads": 0}, "max_threads is 0; it must be at least 1"),
        ({"min_threads": -1}, "min_threads is -1; it must be at least 0"),
        ({"min_threads": 3, "max_threads": 2}, "min_threads is 3; it must be at most 2"),
        ({"idle_timeout": -1}, "idle_timeout is -1; it must be 0 or more seconds"),
    ],
)
def test_invalid_limits(limits: dict[str, Any], says: str):
    with pytest.raises(ValueError, match=f"^WorkerPool: {says}"):
        WorkerPool(**limits)


def test_contextvars_are_carried():
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")

    def work() -> str:
        seen = var.get()
        var.set("the worker's")
        return seen

    var.set("mine")
    with WorkerPool(max_threads=1) as pool:
        assert [pool.submit(work).result(10) for _ in range(2)] == ["mine", "mine"]
    assert var.get() == "mine"


def test_shutdown_finishes_what_is_queued():
    done: list[int] = []
    go_on = threading.Event()
    pool = WorkerPool(max_threads=1)
    pool.submit(go_on.wait, 10)
    futures = [pool.submit(done.append, number) for number in range(20)]
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="takes no more work"):
        pool.submit(int)
    go_on.set()
    pool.shutdown()
    assert done == list(range(20))
    assert all(future.done() for future in futures)
    pool.shutdown()


def test_shutdown_with_cancel_futures():
    done: list[int] = []
    go_on = threading.Event()
    pool = WorkerPool(max_threads=1)
    started = threading.Event()
    running = pool.submit(lambda: (started.set(), go_on.wait(10)))
    assert started.wait(10)
    futures = [pool.submit(done.append, number) for number in range(5)]
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in futures)
    go_on.set()
    pool.shutdown()
    assert running.done()
    assert not done


def test_shutdown_from_one_of_its_workers():
    pool = WorkerPool(max_threads=2)
    assert pool.submit(pool.shutdown).result(10) is None
    with pytest.raises(RuntimeError, match="was shut down"):
        pool.submit(int)
    pool.shutdown()
    assert "0 threads" in repr(pool)


def test_shutdown_while_a_thread_is_about_to_start(
    monkeypatch: pytest.MonkeyPatch, in_thread: InThread
):
    """A thread that was not started cannot be joined."""
    start = threading.Thread.start
    asked, go_on = threading.Event(), threading.Event()

    def start_late(thread: threading.Thread) -> None:
        if thread.name.startswith("late-"):
            asked.set()
            go_on.wait(20)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    pool = WorkerPool(name="late")
    submitted = in_thread(pool.submit, int)
    assert asked.wait(20)
    ended = in_thread(pool.shutdown)
    until(lambda: "shut down" in repr(pool))
    go_on.set()
    ended.result(20)
    assert submitted.result(20).result(0) == 0


@pytest.mark.parametrize("place", ["main", "io"])
def test_a_home_that_waits_for_its_end_keeps_running(place: str, io: homebound.IOThread):
    """A job in flight may need the home."""

    async def main() -> list[bool]:
        home, did = here(), list[bool]()

        async def task() -> bool:
            return home.is_home()

        def job() -> None:
            with homebound.big_lock:
                did.append(homebound.big_lock.held())
            did.append(homebound.block_on(task(), home))

        with WorkerPool() as pool:
            pool.submit(job)
        return did

    did = homebound.run(main()) if place == "main" else homebound.block_on(main(), io.context)
    assert did == [True, True]


def test_a_wait_for_its_end_releases_the_big_lock():
    did: list[bool] = []

    def job() -> None:
        with homebound.big_lock:
            did.append(homebound.big_lock.held())

    with homebound.big_lock, WorkerPool() as pool:
        pool.submit(job)
        assert not did
    assert did == [True]


def test_used_by_asyncio():
    async def main() -> None:
        with WorkerPool(name="mine") as pool:
            name = await asyncio.get_running_loop().run_in_executor(pool, thread_name)
            assert name.startswith("mine-")

    asyncio.run(main())
    homebound.run(main())


def test_the_default_executor_of_a_loop():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        pool = WorkerPool(name="mine")
        loop.set_default_executor(pool)
        assert (await asyncio.to_thread(thread_name)).startswith("mine-")
        assert (await loop.run_in_executor(None, thread_name)).startswith("mine-")
        pools.append(pool)
        processes: Any = concurrent.futures.ProcessPoolExecutor(1)
        with pytest.raises(TypeError, match="must be ThreadPoolExecutor"):
            loop.set_default_executor(processes)
        processes.shutdown()

    pools: list[WorkerPool] = []
    homebound.run(main())
    with homebound.IOThread() as io:
        homebound.block_on(io.spawn(main()))
    for pool in pools:  # it has ended with the loop
        with pytest.raises(RuntimeError, match="was shut down"):
            pool.submit(int)


def test_many_submitters(in_thread: InThread):
    with WorkerPool(max_threads=3) as pool:
        barrier = threading.Barrier(4)

        def submit() -> int:
            barrier.wait()
            futures = [pool.submit(int, number) for number in range(200)]
            return sum(future.result(20) for future in futures)

        threads = [in_thread(submit) for _ in range(4)]
        assert [thread.result(30) for thread in threads] == [sum(range(200))] * 4


def at_exit(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_at_interpreter_exit_work_in_flight_is_finished():
    assert at_exit("""
    import homebound, threading, time
    pool = homebound.WorkerPool()
    started = threading.Event()
    def work():
        started.set()
        time.sleep(0.01)
        print("finished", flush=True)
    pool.submit(work)
    started.wait(10)
    """) == "finished\n"  # fmt: skip


def test_at_interpreter_exit_queued_jobs_run_in_order():
    assert at_exit("""
    import homebound, time
    pool = homebound.WorkerPool(max_threads=1)
    pool.submit(time.sleep, 0.01)
    for number in range(5):
        pool.submit(print, number)
    """) == "0\n1\n2\n3\n4\n"  # fmt: skip


def test_at_interpreter_exit_a_thread_that_goes_on_has_its_workers():
    """The interpreter waits for such threads first, and what they wait for is done."""
    assert at_exit("""
    import homebound, threading
    pool = homebound.WorkerPool()
    pool.submit(int).result()  # so a worker is there: from 3.12 on no thread begins at exit
    def work():
        threading.main_thread().join()
        pool.submit(print, "done").result()
    threading.Thread(target=work).start()
    """) == "done\n"  # fmt: skip
