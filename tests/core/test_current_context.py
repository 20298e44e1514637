"""The current context of a thread: its own home, else main under the big lock, else none."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import IOThread, big_lock, current_context, main_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]


def both() -> tuple[object, object]:
    return current_context(), main_context()


def locked(fn: Callable[[], Any]) -> Any:
    with big_lock:
        return fn()


def test_none_before_and_after_a_main_loop():
    async def main() -> None:
        pass

    assert both() == (None, None)
    homebound.run(main())
    assert both() == (None, None)


def test_main_thread_is_the_home_of_the_main_context():
    async def main() -> None:
        context = current_context()
        assert context is not None
        assert context is main_context()
        assert context.is_home()
        assert context.loop is asyncio.get_running_loop()
        assert big_lock.held()

    homebound.run(main())
    assert not big_lock.held()


def test_callbacks_timers_and_signals_have_the_context_too():
    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        seen: list[object] = []
        done = loop.create_future()
        loop.call_soon(lambda: seen.append(current_context()))
        loop.call_later(0.001, lambda: seen.append(current_context()))
        loop.call_later(0.002, done.set_result, None)
        done.add_done_callback(lambda _: seen.append(current_context()))
        await done
        await asyncio.sleep(0)
        return [context is main_context() for context in seen]

    assert homebound.run(main()) == [True, True, True]


def test_a_worker_without_the_lock_has_none_while_a_main_loop_runs(in_thread: InThread):
    """Commit 5f50be9b fixed this: before, such a thread was taken for the main one."""

    async def main() -> None:
        context = main_context()
        current, seen_main = await asyncio.wrap_future(in_thread(both))
        assert current is None
        assert seen_main is context

    homebound.run(main())


def test_a_worker_with_the_lock_stands_in(in_thread: InThread):
    def work() -> list[object]:
        seen = [current_context()]
        with big_lock:
            seen += [current_context(), main_context().is_home()]  # type: ignore[list-item, union-attr]
        return [*seen, current_context()]

    async def main() -> None:
        assert await asyncio.wrap_future(in_thread(work)) == [None, main_context(), True, None]

    homebound.run(main())


def test_the_lock_alone_makes_no_context():
    with big_lock:
        assert both() == (None, None)


def test_an_io_thread_is_at_home_from_start_to_end(io: IOThread):
    async def look() -> tuple[object, bool, str]:
        context = current_context()
        return context, io.context.is_home(), threading.current_thread().name

    assert homebound.block_on(io.spawn(look())) == (io.context, True, "io")
    assert not io.context.is_home()
    assert current_context() is None


def test_an_io_thread_with_the_lock_keeps_its_own(io: IOThread):
    async def look() -> object:
        with big_lock:
            return both()

    async def main() -> None:
        assert await io.spawn(look()) == (io.context, main_context())
        assert not io.context.is_home()

    homebound.run(main())


def test_lock_holder_is_no_home_of_an_io_context(io: IOThread):
    with big_lock:
        assert not io.context.is_home()


def test_worker_threads_of_all_kinds_have_none():
    async def main() -> None:
        assert await homebound.to_worker(current_context) is None
        assert await asyncio.to_thread(current_context) is None
        with homebound.WorkerPool() as pool:
            assert await homebound.run_in(pool, current_context) is None
            assert await homebound.run_in(pool, locked, current_context) is main_context()

    homebound.run(main())


def test_a_loop_run_elsewhere_is_not_main(in_thread: InThread):
    async def look() -> tuple[object, object]:
        return both()

    def body() -> tuple[object, object]:
        with asyncio.Runner(loop_factory=homebound.new_event_loop) as runner:
            return runner.run(look())

    current, main = in_thread(body).result(10)
    assert isinstance(current, homebound.AioContext)
    assert main is None


def test_a_loop_run_by_the_main_thread_is_main():
    async def look() -> tuple[object, object, bool]:
        return *both(), big_lock.held()

    with asyncio.Runner(loop_factory=homebound.new_event_loop) as runner:
        current, main, held = runner.run(look())
        assert current is main is not None
        assert held
        assert both() == (None, None)


def test_run_in_another_thread_is_main_there(in_thread: InThread):
    async def look() -> tuple[object, object]:
        return both()

    current, main = in_thread(lambda: homebound.run(look())).result(10)
    assert current is main is not None
    assert main_context() is None


def test_only_one_main_context(in_thread: InThread):
    async def nothing() -> None:
        pass

    async def main() -> None:
        context = main_context()
        with pytest.raises(homebound.ContextError, match="main context already"):
            await asyncio.wrap_future(in_thread(lambda: homebound.run(nothing())))
        assert main_context() is context
        assert current_context() is context

    homebound.run(main())


def test_becoming_main_waits_for_the_lock(in_thread: InThread):
    """The lock keeps a thread from becoming a stand-in in the middle of its critical section."""
    started = threading.Event()

    async def main() -> bool:
        return big_lock.held()

    def body() -> bool:
        started.set()
        return homebound.run(main())

    with big_lock:
        done = in_thread(body)
        assert started.wait(10)
        assert both() == (None, None)
    assert done.result(10)


def test_a_finaliser_comes_as_a_thread_asks_for_the_first_time(
    in_thread: InThread, monkeypatch: pytest.MonkeyPatch
):
    """What the thread is to know of itself is being made then."""
    answers: list[bool] = []

    def enumerate_threads() -> list[threading.Thread]:
        answers.append(big_lock.held())
        return enumerate_()

    enumerate_ = threading.enumerate
    monkeypatch.setattr(threading, "enumerate", enumerate_threads)
    assert in_thread(big_lock.held).result(10) is False
    assert answers == [False]
