"""wait_while and kick: the right loop runs meanwhile, and no kick is missed."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import (
    AioContext,
    ContextClosed,
    IOThread,
    WouldDeadlock,
    big_lock,
    block_on,
    kick,
    wait_while,
)
from homebound._threads.wait_while import turn_while
from homebound.testing import here, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]


def test_false_at_once():
    async def main() -> None:
        ran: list[int] = []
        here().call_soon(ran.append, 1)
        assert wait_while(lambda: False) is False
        assert not ran

    homebound.run(main())


def test_runs_its_own_loop():
    async def main() -> None:
        steps: list[int] = []

        async def count() -> None:
            for number in range(3):
                steps.append(number)
                await asyncio.sleep(0)

        task = asyncio.create_task(count())
        assert wait_while(lambda: len(steps) < 3) is True
        assert steps == [0, 1, 2]
        await task

    homebound.run(main())


def test_sees_timers_without_a_kick():
    async def main() -> None:
        done: list[int] = []
        asyncio.get_running_loop().call_later(0.001, done.append, 1)
        assert wait_while(lambda: not done, here())

    homebound.run(main())


def test_in_a_callback():
    async def main() -> None:
        done: list[int] = []
        finished = asyncio.get_running_loop().create_future()

        def wait() -> None:
            asyncio.get_running_loop().call_later(0.001, done.append, 1)
            finished.set_result(wait_while(lambda: not done))

        here().call_soon(wait)
        assert await finished is True

    homebound.run(main())


def test_the_main_thread_waits_for_an_io_thread(io: IOThread):
    async def main() -> None:
        for _ in range(100):
            done: list[int] = []
            io.context.call_soon(lambda done=done: (done.append(1), kick()))
            wait_while(lambda done=done: not done, io.context)  # type: ignore[misc]

    homebound.run(main())


def test_an_io_thread_waits_for_itself(io: IOThread, in_thread: InThread):
    done: list[int] = []
    looked = threading.Event()

    def finish() -> None:
        assert looked.wait(20)
        done.append(1)
        kick()

    def must_wait() -> bool:
        answer = not done
        looked.set()
        return answer

    async def wait() -> bool:
        future = in_thread(finish)
        turned = wait_while(must_wait, io.context)
        future.result(20)
        return turned

    assert homebound.block_on(io.spawn(wait())) is True
    assert done == [1]


def test_a_lock_holder_waits_for_an_io_thread(io: IOThread, in_thread: InThread):
    async def main() -> None:
        def work() -> None:
            for _ in range(50):
                done: list[int] = []
                with big_lock:
                    io.context.call_soon(lambda done=done: (done.append(1), kick()))
                    wait_while(lambda done=done: not done, io.context)  # type: ignore[misc]
                    assert big_lock.held()

        await asyncio.wrap_future(in_thread(work))

    homebound.run(main())


def test_releases_the_lock_while_it_sleeps(in_thread: InThread):
    """The thread that makes the predicate false may need the lock for it."""

    async def main() -> None:
        for _ in range(50):
            done: list[int] = []

            def work(done: list[int] = done) -> None:
                with big_lock:
                    done.append(1)
                kick()

            future = in_thread(work)
            wait_while(lambda done=done: not done)  # type: ignore[misc]
            assert big_lock.held()
            future.result(10)

    homebound.run(main())


def test_never_misses_a_kick(in_thread: InThread):
    """In each round a thread makes the predicate false at a different moment."""

    async def main() -> None:
        rounds = 300
        state = {"asked": 0, "answered": 0}
        asked = threading.Semaphore(0)

        def answer() -> None:
            for number in range(rounds):
                asked.acquire()
                state["answered"] = number + 1
                kick()

        future = in_thread(answer)
        for number in range(rounds):
            asked.release()
            wait_while(lambda number=number: state["answered"] <= number)  # type: ignore[misc]
        await asyncio.wrap_future(future)

    homebound.run(main())


def test_one_kick_wakes_all_waiters(io: IOThread, io2: IOThread, in_thread: InThread):
    done: list[int] = []
    waiting = threading.Barrier(4)

    def not_done() -> bool:
        return not done

    async def wait(context: AioContext) -> bool:
        first: list[int] = []

        def predicate() -> bool:
            if not first:
                first.append(1)
                waiting.wait(10)
            return not_done()

        wait_while(predicate, context)
        return True

    def finish() -> None:
        waiting.wait(10)
        done.append(1)
        kick()

    async def main() -> None:
        in_thread(finish)
        tasks = [io.spawn(wait(io.context)), io2.spawn(wait(io2.context))]
        assert await wait(here())
        assert await asyncio.gather(*tasks) == [True, True]

    homebound.run(main())


def test_nested():
    async def main() -> None:
        order: list[str] = []
        loop = asyncio.get_running_loop()
        flags = {"outer": True, "inner": True}

        def inner() -> None:
            loop.call_soon(flags.update, {"outer": False})
            loop.call_later(0.001, flags.update, {"inner": False})
            wait_while(lambda: flags["inner"])
            order.append("inner")

        loop.call_soon(inner)
        wait_while(lambda: flags["outer"])
        order.append("outer")
        assert order == ["inner", "outer"]  # even if the outer one could have gone on earlier

    homebound.run(main())


def test_the_outer_task_stays_put_and_others_go_on():
    async def main() -> None:
        me = homebound.current_task()
        seen: list[Any] = []

        async def other() -> None:
            seen.append(homebound.current_task())
            await asyncio.sleep(0)
            seen.append(asyncio.current_task())

        task = asyncio.create_task(other())
        wait_while(lambda: len(seen) < 2)
        assert seen == [task, task]
        assert homebound.current_task() is asyncio.current_task() is me
        await task

    homebound.run(main())


def test_an_exception_of_the_predicate_is_the_callers():
    async def main() -> None:
        calls: list[int] = []

        def predicate() -> bool:
            calls.append(1)
            if len(calls) == 2:
                raise ValueError("no")
            return True

        here().call_soon(kick)
        with pytest.raises(ValueError, match="no"):
            wait_while(predicate)
        assert wait_while(lambda: False) is False
        await asyncio.sleep(0)

    homebound.run(main())


def test_timeout():
    async def main() -> None:
        with pytest.raises(TimeoutError):
            wait_while(lambda: True, timeout=0.002)
        with pytest.raises(TimeoutError):
            wait_while(lambda: True, timeout=0)
        assert wait_while(lambda: False, timeout=0) is False
        done: list[int] = []
        here().call_soon(done.append, 1)
        assert wait_while(lambda: not done, timeout=30) is True
        await asyncio.sleep(0)

    homebound.run(main())


def test_a_timeout_of_a_lock_holder(in_thread: InThread):
    async def main() -> None:
        def work() -> None:
            with big_lock:
                with pytest.raises(TimeoutError):
                    wait_while(lambda: True, timeout=0.002)
                assert big_lock.held()

        await asyncio.wrap_future(in_thread(work))

    homebound.run(main())


def test_the_message_names_the_call_that_waits(io: IOThread, io2: IOThread):
    async def one_for_another() -> None:
        with pytest.raises(WouldDeadlock, match=r"^WorkerPool\.shutdown: .*'io2'"):
            turn_while(("WorkerPool.shutdown", None), lambda: True, io2.context)

    homebound.block_on(io.spawn(one_for_another()))


def test_elsewhere_it_would_deadlock(io: IOThread, io2: IOThread, in_thread: InThread):
    async def one_for_another() -> None:
        with pytest.raises(
            WouldDeadlock, match=r"wait_while: an I/O thread may not wait for another.*'io2'"
        ):
            wait_while(lambda: True, io2.context)

    homebound.block_on(io.spawn(one_for_another()))
    for context in (None, io.context):
        with pytest.raises(WouldDeadlock, match="no current context"):
            in_thread(wait_while, lambda: True, context).result(10)

    async def main() -> None:
        context = here()

        async def for_main() -> None:
            with pytest.raises(WouldDeadlock):
                wait_while(lambda: True, context)

        await io.spawn(for_main())

    homebound.run(main())


def test_a_kick_without_a_waiter(io: IOThread, in_thread: InThread):
    """The kick posts nothing, and is not remembered for a later wait."""

    async def main() -> None:
        kick()
        in_thread(kick).result(10)
        assert here().stats().ready == io.context.stats().ready == 0
        with pytest.raises(TimeoutError):
            wait_while(lambda: True, timeout=0.001)

    homebound.run(main())


def test_for_a_context_that_has_ended():
    async def main() -> None:
        with IOThread() as io:
            pass
        assert not wait_while(lambda: False, io.context)
        with pytest.raises(ContextClosed):
            wait_while(lambda: True, io.context)

    homebound.run(main())


def test_for_a_context_that_ends_meanwhile():
    async def main() -> None:
        io = IOThread()
        io.start()
        ending = threading.Thread(target=io.stop)
        asyncio.get_running_loop().call_soon(ending.start)
        with pytest.raises(ContextClosed):
            wait_while(lambda: True, io.context)
        ending.join()

    homebound.run(main())


def test_without_a_context_the_error_in_an_io_thread_says_to_name_one(io: IOThread):
    async def body() -> None:
        with pytest.raises(
            WouldDeadlock, match="waits for the main one, and an I/O thread may not"
        ):
            wait_while(lambda: False)

    block_on(io.spawn(body()))


@pytest.mark.parametrize("then", ["lets go", "sleeps"])
@pytest.mark.parametrize("how", ["wait_while", "block_on"])
def test_a_stand_in_that_takes_the_notification_passes_it_on(
    how: str, then: str, in_thread: InThread
):
    """The home sleeps in its wait; a stand-in runs the loop, and takes what was to wake it."""

    async def main() -> None:
        context = here()
        task = asyncio.create_task(homebound.suspend())
        await asyncio.sleep(0)
        done: list[int] = []
        over: list[int] = []

        def end_both() -> None:
            done.append(1)
            task.wake()  # type: ignore[attr-defined]
            kick()

        def stand_in() -> None:
            until(lambda: context._stand_in.sleeps_until is not None)
            with big_lock:
                context.call_soon(end_both)
                for _ in range(5):
                    context.poll(blocking=False)
                assert done
                assert task.done()
                if then == "sleeps":
                    wait_while(lambda: not over)

        future = in_thread(stand_in)
        wait_while(lambda: not done) if how == "wait_while" else block_on(task)
        over.append(1)
        kick()
        await asyncio.wrap_future(future)

    homebound.run(main())


@pytest.mark.parametrize("where", ["home", "thread"])
def test_cancelling_its_task_ends_it(where: str, in_thread: InThread):
    async def main() -> None:
        async def work() -> None:
            wait_while(lambda: [waits.append(1)])

        waits: list[int] = []
        task = asyncio.create_task(work())
        if where == "home":
            asyncio.get_running_loop().call_later(0.001, task.cancel)
        else:
            in_thread(lambda: (until(lambda: waits), task.cancel()))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1

    homebound.run(main())


def test_an_earlier_cancellation_is_for_the_tasks_next_await():
    async def main() -> None:
        async def work() -> str:
            task.cancel()
            wait_while(lambda: not done)
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                return "cancelled then"
            return "never cancelled"

        done: list[int] = []
        task = asyncio.create_task(work())
        asyncio.get_running_loop().call_later(0.001, done.append, 1)
        assert await task == "cancelled then"

    homebound.run(main())


def test_ctrl_c_ends_it_at_once():
    async def main() -> None:
        asyncio.get_running_loop().call_later(0.001, os.kill, os.getpid(), signal.SIGINT)
        wait_while(lambda: True)

    with pytest.raises(KeyboardInterrupt):
        homebound.run(main())
