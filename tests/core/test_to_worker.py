"""to_worker: a blocking call in a worker, whose completion wakes the task at its home."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import sys
import threading
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import (
    ContextError,
    IOThread,
    WorkerPool,
    block_on,
    current_context,
    run_in,
    to_worker,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]


def thread_name() -> str:
    return threading.current_thread().name


def test_the_result_comes_home(io: IOThread):
    async def main() -> None:
        for _ in range(50):
            name = await to_worker(thread_name)
            assert name.startswith("main-worker")
            assert thread_name() == "MainThread"
        assert await to_worker(dict, a=1) == {"a": 1}

    async def there() -> tuple[str, str]:
        return await to_worker(thread_name), thread_name()

    homebound.run(main())
    worker, home = block_on(io.spawn(there()))
    assert worker.startswith("io-worker")
    assert home == "io"


def test_each_context_has_its_own_pool(io: IOThread):
    async def main() -> None:
        first = await to_worker(thread_name)
        async with homebound.on(io.context):
            second = await to_worker(thread_name)
        assert first.startswith("main-worker")
        assert second.startswith("io-worker")

    homebound.run(main())


def deep() -> None:
    int("x")


def test_the_exception_comes_with_its_traceback():
    async def main() -> None:
        with pytest.raises(ValueError, match="invalid literal") as caught:
            await to_worker(deep)
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert names[0] == "main"
        assert names[-1] == "deep"

    homebound.run(main())


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, KeyError])
def test_exceptions_with_a_meaning_to_coroutines(kind: type[Exception]):
    def fail() -> None:
        raise kind

    async def main() -> str:
        for pool in (None, WorkerPool()):
            try:
                if pool is None:
                    await to_worker(fail)
                else:
                    with pool:
                        await run_in(pool, fail)
            except kind:
                continue
            except RuntimeError as other:
                assert isinstance(other.__cause__, kind)  # noqa: PT017
                continue
            return "lost"
        return "raised"

    assert homebound.run(main()) == "raised"


def test_contextvars_are_carried():
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")

    def work() -> str:
        seen = var.get()
        var.set("the worker's")
        return seen

    async def main() -> None:
        var.set("mine")
        assert await to_worker(work) == "mine"
        with WorkerPool() as pool:
            assert await run_in(pool, work) == "mine"
        assert var.get() == "mine"

    homebound.run(main())


def test_cancelled_while_it_waits_for_a_worker():
    async def main() -> None:
        go_on = threading.Event()
        ran: list[int] = []
        most = 64  # the workers of a context's pool
        busy = [asyncio.create_task(to_worker(go_on.wait, 20)) for _ in range(most)]
        await asyncio.sleep(0)
        waiting = asyncio.create_task(to_worker(ran.append, 1))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go_on.set()
        assert all(await asyncio.gather(*busy))
        await to_worker(int)
        assert not ran

    homebound.run(main())


def test_the_completion_wakes_the_task_directly(monkeypatch: pytest.MonkeyPatch):
    """Neither a future nor call_soon_threadsafe is between them."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        used: list[str] = []
        for name in ("call_soon_threadsafe", "call_soon", "create_future"):
            monkeypatch.setattr(loop, name, lambda *_, name=name, **__: used.append(name))
        with WorkerPool() as pool:
            results = [(await to_worker(int, 7), await run_in(pool, int, 7)) for _ in range(20)]
        monkeypatch.undo()
        assert results == [(7, 7)] * 20
        assert not used

    homebound.run(main())


@pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(),
    reason="without a GIL the thread that made an object must come by to free it",
)
def test_a_failed_job_leaves_no_cycle():
    """The error is freed with its last reference, without the garbage collector."""

    class Failed(Exception):  # noqa: N818
        pass

    def fail() -> None:
        raise Failed

    async def caught(call: Callable[..., Any], *args: Any) -> weakref.ref[Failed]:
        try:
            await call(*args, fail)
        except Failed as error:
            return weakref.ref(error)
        raise AssertionError

    async def uncaught(call: Callable[..., Any], *args: Any) -> weakref.ref[BaseException]:
        task = asyncio.create_task(call(*args, fail))
        await asyncio.wait([task])
        error = task.exception()
        assert error is not None
        return weakref.ref(error)

    async def main() -> None:
        with WorkerPool(max_threads=1) as pool, ThreadPoolExecutor(1) as other:
            for how in (caught, uncaught):
                for call, *args in ((to_worker,), (run_in, pool), (run_in, other)):
                    gone = await how(call, *args)
                    while gone() is not None:  # the worker may not have put its job away
                        await asyncio.sleep(0)

    gc.collect()
    gc.disable()
    try:
        homebound.run(main())
    finally:
        gc.enable()


def test_cancelled_while_it_runs():
    """The call runs on; its late completion ends no later wait of the task."""

    async def main() -> None:
        started, go_on, ended = threading.Event(), threading.Event(), threading.Event()

        def work() -> None:
            started.set()
            go_on.wait(10)
            ended.set()

        async def wait() -> str:
            try:
                await to_worker(work)
            except asyncio.CancelledError:
                go_on.set()
                assert await to_worker(ended.wait, 10)
                later.append("suspended")
                await homebound.suspend()
                return "woken"
            return "not cancelled"

        later: list[str] = []

        task = asyncio.create_task(wait())
        await to_worker(started.wait, 10)
        task.cancel()
        while not later:
            await asyncio.sleep(0)
        for _ in range(20):
            await to_worker(int)
        assert not task.done()
        task.wake()  # type: ignore[attr-defined]
        assert await task == "woken"

    homebound.run(main())


def test_a_stray_wake_does_not_end_it():
    async def main() -> None:
        go_on = threading.Event()

        async def wait() -> bool:
            return await to_worker(go_on.wait, 10)

        task = homebound.Task(wait())
        context = current_context()
        assert context is not None
        context.schedule(task)
        await asyncio.sleep(0)
        for _ in range(3):
            task.wake()
            await asyncio.sleep(0)
        assert not task.done()
        go_on.set()
        assert await task is True

    homebound.run(main())


def test_many_at_once(io: IOThread):
    async def work(number: int) -> int:
        return await to_worker(lambda: number * number)

    async def main() -> None:
        results = await asyncio.gather(*(work(number) for number in range(200)))
        assert results == [number * number for number in range(200)]
        tasks = [io.spawn(work(number)) for number in range(200)]
        assert await asyncio.gather(*tasks) == results

    homebound.run(main())


def test_from_an_asyncio_task():
    async def main() -> None:
        async def stock() -> tuple[str, int]:
            with WorkerPool(name="p") as pool:
                return await to_worker(thread_name), await run_in(pool, sum, [1, 2])

        loop = asyncio.get_running_loop()
        name, total = await asyncio.Task(stock(), loop=loop)
        assert name.startswith("main-worker")
        assert total == 3

    homebound.run(main())


def test_to_worker_without_a_context():
    async def main() -> None:
        with pytest.raises(ContextError, match=r"AioContext\.attach"):
            await to_worker(int)

    asyncio.run(main())


def test_the_worker_does_not_keep_the_result_alive():
    class Big:
        pass

    async def main() -> None:
        big = await to_worker(Big)
        gone = weakref.ref(big)
        del big
        while gone() is not None:  # the worker may not have put its job away
            gc.collect()
            await asyncio.sleep(0)

    homebound.run(main())


def test_timeout_around_it():
    async def main() -> None:
        go_on = threading.Event()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await to_worker(go_on.wait, 10)
        go_on.set()
        assert await to_worker(sum, [1, 2]) == 3

    homebound.run(main())


@pytest.mark.parametrize("through", ["to_worker", "run_in"])
def test_an_async_function_is_refused(through: str):
    """Its call would make a coroutine in the worker, of which nothing runs."""

    async def fetch(_: int = 0) -> None:
        raise AssertionError

    class Client:
        async def fetch(self) -> None:
            raise AssertionError

    async def main() -> None:
        functions: list[Callable[[], Any]] = [
            fetch,
            functools.partial(fetch, 1),
            Client().fetch,
        ]
        with WorkerPool(1) as pool:
            for fn in functions:
                call: Any = to_worker(fn) if through == "to_worker" else run_in(pool, fn)
                with pytest.raises(
                    TypeError, match=rf"{through} calls a blocking .*await \S*fetch\("
                ):
                    await call
            assert pool.submit(int).result(10) == 0

    homebound.run(main())


def test_an_object_with_every_attribute_is_called():
    class Proxy:
        """As those of RPC libraries."""

        def __getattr__(self, name: str) -> Any:
            return self

        def __call__(self) -> str:
            return "called"

    async def main() -> str:
        return await to_worker(Proxy())

    assert homebound.run(main()) == "called"
