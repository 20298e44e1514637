"""Background: its start and stop, work, answers, cancellation, and calls at the wrong moment."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import Background, ContextClosed, ContextError, IOThread, WouldDeadlock, block_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def background() -> Iterator[Background]:
    """A Background that is not started, and is stopped afterwards."""
    made = Background("lib")
    yield made
    made.stop()


async def where() -> str:
    await asyncio.sleep(0)
    return homebound.running_context().name


class Sleeper:
    """A coroutine that says when it has begun and when it was cleaned up."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.cleaned_up = False

    async def __call__(self) -> None:
        try:
            self.began.set()
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            self.cleaned_up = True


# Start and stop.


def test_it_starts_at_the_first_use(background: Background):
    assert (background.started, background.stopped) == (False, False)
    assert repr(background) == "<Background 'lib' not started>"
    assert background.call(where) == "lib"
    assert (background.started, background.stopped) == (True, False)
    assert repr(background) == "<Background 'lib' started>"


def test_start_returns_when_it_is_up(background: Background):
    assert background.start() is background
    assert background.started
    thread = background.call(threading.current_thread)
    background.start()  # a no-op
    assert background.call(threading.current_thread) is thread


def test_stop_returns_when_it_is_down(background: Background):
    thread = background.call(threading.current_thread)
    background.stop()
    assert not thread.is_alive()
    assert (background.started, background.stopped) == (False, True)
    assert repr(background) == "<Background 'lib' stopped>"
    background.stop()  # a no-op


def test_stop_before_the_start_is_a_no_op(background: Background):
    background.stop()
    assert not background.stopped
    assert background.call(where) == "lib"


def test_use_after_stop_is_refused_until_start(background: Background):
    background.call(where)
    background.stop()
    uses: list[Callable[[], Any]] = [
        lambda: background.call(where),
        lambda: background.block_on(where()),
        lambda: background.spawn(where()),
        lambda: background.context,
        background.sync(where),
    ]
    for use in uses:
        with pytest.raises(ContextClosed, match=r"stopped> takes no more work; start\(\) starts"):
            use()
    background.start()
    assert [background.call(where), background.sync(where)()] == ["lib", "lib"]


def test_threads_that_use_it_first_together(background: Background):
    together = threading.Barrier(8)
    used: list[threading.Thread] = []

    def use() -> None:
        together.wait()
        used.append(background.call(threading.current_thread))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(used) == 8
    assert len(set(used)) == 1


def test_an_error_in_its_start_is_raised_and_can_be_repaired():
    factories: list[Any] = [homebound.new_event_loop, None]

    def factory() -> asyncio.AbstractEventLoop:
        made = factories.pop()
        if made is None:
            message = "no loop today"
            raise LookupError(message)
        loop: asyncio.AbstractEventLoop = made()
        return loop

    background = Background(loop_factory=factory)
    with pytest.raises(LookupError, match="no loop today"):
        background.call(where)
    assert not background.started
    with background:
        assert background.call(where) == background.name


def test_a_call_by_its_loop_factory_is_refused():
    def factory() -> asyncio.AbstractEventLoop:
        return made.call(homebound.new_event_loop)

    made = Background("again", loop_factory=factory)
    with pytest.raises(ContextError, match="a loop_factory, a signal handler or a finaliser"):
        made.start()
    assert not made.started


def test_a_call_by_a_signal_handler_in_its_start_is_refused():
    raised: list[BaseException] = []
    handled = threading.Event()

    def handler(*_: object) -> None:
        try:
            made.call(where)
        except ContextError as error:
            raised.append(error)
        handled.set()

    def factory() -> asyncio.AbstractEventLoop:
        os.kill(os.getpid(), signal.SIGUSR1)  # the main thread waits in start(), and handles it
        handled.wait(20)
        return homebound.new_event_loop()

    made = Background(loop_factory=factory)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with made:
            assert made.call(where) == made.name
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert "is being started by what makes this call" in str(raised[0])


def test_with_and_async_with():
    with Background("sync") as background:
        assert background.started
    assert background.stopped

    async def main() -> None:
        async with Background("async") as inner:
            assert await inner.spawn(where()) == "async"
        assert inner.stopped

    asyncio.run(main())


def test_its_death_is_seen(background: Background, caplog: pytest.LogCaptureFixture):
    async def leave() -> None:
        raise SystemExit(3)

    thread = background.call(threading.current_thread)
    background.spawn(leave())
    thread.join()
    assert background.stopped
    with pytest.raises(ContextClosed):
        background.call(where)
    assert "SystemExit(3) in IOThread 'lib' ends it" in caplog.text


# Work.


def test_feed_it_work(background: Background):
    tasks = [background.spawn(asyncio.sleep(0, number)) for number in range(3)]
    assert [background.block_on(task) for task in tasks] == [0, 1, 2]


def test_await_its_work_on_any_loop(background: Background):
    async def main() -> str:
        return await background.spawn(where())

    assert [asyncio.run(main()), homebound.run(main())] == ["lib", "lib"]


def test_cancel_work(background: Background):
    sleeper = Sleeper()
    task = background.spawn(sleeper())
    sleeper.began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        background.block_on(task)
    assert sleeper.cleaned_up


def test_block_for_an_answer_or_an_error(background: Background):
    async def fail() -> None:
        message = "wrong"
        raise LookupError(message)

    assert background.block_on(asyncio.sleep(0, "answer")) == "answer"
    with pytest.raises(LookupError, match="wrong"):
        background.call(fail)


def test_call_takes_what_needs_a_running_loop(background: Background):
    loop = background.call(asyncio.get_running_loop)
    assert homebound.AioContext.attach(loop) is background.context
    assert background.call(asyncio.sleep, 0, result="slept") == "slept"


def test_a_timeout_crosses(background: Background):
    sleeper = Sleeper()
    with pytest.raises(TimeoutError):
        background.block_on(sleeper(), timeout=0.01)
    assert not sleeper.began.is_set() or sleeper.cleaned_up


def test_cancellation_crosses_from_a_task_of_the_main_home(background: Background):
    sleeper = Sleeper()

    async def wait() -> None:
        background.call(sleeper)

    async def main() -> None:
        task = asyncio.create_task(wait())
        asyncio.get_running_loop().run_in_executor(None, cancel, task)
        with pytest.raises(asyncio.CancelledError):
            await task

    def cancel(task: asyncio.Task[None]) -> None:
        sleeper.began.wait()
        task.cancel()

    homebound.run(main())
    assert sleeper.cleaned_up


def test_a_timeout_of_asyncio_crosses(background: Background):
    sleeper = Sleeper()

    async def main() -> None:
        async with asyncio.timeout(0.01):  # noqa: ASYNC100  (the call turns the loop)
            background.call(sleeper)

    with pytest.raises(TimeoutError):
        homebound.run(main())
    assert sleeper.cleaned_up == sleeper.began.is_set()


def test_a_stop_ends_the_calls_in_flight(background: Background):
    sleeper = Sleeper()
    raised: list[BaseException] = []

    def call() -> None:
        try:
            background.call(sleeper)
        except ContextClosed as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    sleeper.began.wait()
    background.stop()
    thread.join()
    assert sleeper.cleaned_up
    assert "was stopped before the call was done" in str(raised[0])


# Where it is called from.


def test_in_a_running_loop_of_asyncio(background: Background):
    async def main() -> str:
        return background.call(where)

    assert asyncio.run(main()) == "lib"


def test_in_the_main_home_whose_loop_goes_on(background: Background):
    async def main() -> str:
        ours = homebound.running_context()

        async def ask_main() -> str:
            return await homebound.create_task(where(), home=ours)

        return background.call(ask_main)

    assert homebound.run(main()) == "main"


def test_at_its_own_home_it_runs_inline(background: Background):
    async def outer() -> str:
        return background.call(where)  # as a synchronous callback would, deep in a library

    assert background.call(outer) == "lib"


def test_stop_at_its_own_home_says_what_to_do(background: Background):
    async def main() -> None:
        background.stop()

    with pytest.raises(WouldDeadlock, match="call it in another thread"):
        background.call(main)
    assert background.call(where) == "lib"


def test_in_another_home_it_says_what_to_do(background: Background, io: IOThread):
    async def wait() -> str:
        return background.call(where)

    async def do_as_it_says() -> str:
        return await background.spawn(where())

    background.start()
    with pytest.raises(WouldDeadlock, match="await it instead"):
        block_on(wait(), io)
    assert block_on(do_as_it_says(), io) == "lib"


def test_in_workers(background: Background):
    async def main() -> list[str]:
        call = background.sync(where)
        return [await asyncio.to_thread(call), await homebound.to_worker(call)]

    assert homebound.run(main()) == ["lib", "lib"]


def test_a_foreign_loop_as_its_home():
    with Background("stock", loop_factory=asyncio.new_event_loop) as background:
        assert background.call(where) == "stock"
        assert background.block_on(background.spawn(where())) == "stock"
