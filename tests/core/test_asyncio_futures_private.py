"""The meaning of the private names of asyncio's futures, which a task of ours is built on."""

from __future__ import annotations

import asyncio
import gc
import sys
import traceback
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound._aio.futures import CFuture, LoopFuture, SharedFuture, has_gil, loop_of

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = [asyncio.Future, pytest.param(SharedFuture, id="SharedFuture")]


def test_asyncio_s_future_is_written_in_c():
    assert CFuture is asyncio.Future


async def wait(future: Any) -> Any:
    return await future


@pytest.mark.parametrize("kind", KINDS)
def test_a_future_has_a_flag_that_it_is_awaited(loop: Any, kind: Any):
    future = kind(loop=loop)
    assert future._asyncio_future_blocking is False
    coro = wait(future)
    assert coro.send(None) is future
    assert future._asyncio_future_blocking is True
    coro.close()


@pytest.mark.parametrize("loop_factory", [asyncio.SelectorEventLoop, homebound.new_event_loop])
def test_a_task_takes_the_flag_down(loop_factory: Any):
    """A task tells by the flag whether a future was awaited or, by mistake, yielded bare."""

    class Bare:
        def __await__(self) -> Iterator[Any]:
            yield future

    loop = loop_factory()
    future = asyncio.Future[None](loop=loop)
    task = loop.create_task(wait(future))
    mistaken = loop.create_task(wait(Bare()))
    loop.stop()
    loop.run_forever()
    assert future._asyncio_future_blocking is False
    future.set_result(None)
    with pytest.raises(RuntimeError, match="yield was used instead of yield from"):
        loop.run_until_complete(mistaken)
    loop.run_until_complete(task)
    loop.close()


def test_an_asyncio_task_takes_our_task_for_a_future():
    """The flag of our task is always set, and clearing it does nothing: threads share the task."""
    task: Any = homebound.Task(asyncio.sleep(0))
    assert asyncio.isfuture(task)
    task._asyncio_future_blocking = False
    assert task._asyncio_future_blocking is True
    task.cancel()


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="asyncio records what awaits a future")
def test_nothing_records_what_awaits_a_future():
    assert not hasattr(asyncio.Future, "_asyncio_awaited_by")
    assert not hasattr(homebound.Task, "_asyncio_awaited_by")


@pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio records nothing")
def test_what_awaits_a_future_is_recorded_and_forgotten():
    """Two functions record it for any caller; asyncio's task in C does so in whatever it awaits."""
    add: Any = asyncio.future_add_to_awaited_by  # type: ignore[attr-defined]
    discard: Any = asyncio.future_discard_from_awaited_by  # type: ignore[attr-defined]
    recorded: Any = asyncio.Future._asyncio_awaited_by.__get__  # type: ignore[attr-defined]

    async def main() -> None:
        future, ours = asyncio.Future[None](), homebound.Task(homebound.suspend())
        assert not recorded(future)
        add(future, ours)
        assert recorded(future) == {ours}
        add(future, future)
        assert recorded(future) == {ours, future}
        discard(future, ours)
        discard(future, ours)
        discard(future, future)
        assert not recorded(future)
        stock: Any = asyncio.Task(asyncio.wait_for(ours, None))
        await asyncio.sleep(0)
        assert recorded(ours) == {stock}
        ours.cancel()
        await asyncio.wait([stock])
        assert not recorded(ours)

    asyncio.run(main())


def test_the_loop_of_a_future(loop: Any):
    class WithoutGetLoop:
        _loop = loop

    assert loop_of(loop.create_future()) is loop
    assert loop_of(WithoutGetLoop()) is loop


@pytest.mark.parametrize("kind", KINDS)
def test_a_cancelled_future_keeps_the_message(loop: Any, kind: Any):
    future = kind(loop=loop)
    assert future._cancel_message is None
    future.cancel("why")
    assert future._cancel_message == "why"
    error = future._make_cancelled_error()
    assert (type(error), error.args) == (asyncio.CancelledError, ("why",))


def test_a_message_may_be_set_before_the_error_is_made(loop: Any):
    future = loop.create_future()
    future._cancel_message = "why"
    assert future._make_cancelled_error().args == ("why",)
    asyncio.Future.cancel(future, "another")
    with pytest.raises(asyncio.CancelledError, match="another"):
        future.result()


def test_an_exception_may_be_marked_as_retrieved(loop: Any):
    reports: list[Any] = []
    loop.set_exception_handler(lambda _, report: reports.append(report))
    for read in (True, False):
        future = loop.create_future()
        future.set_exception(ValueError(f"read: {read}"))
        assert future._log_traceback is True
        if read:
            future._log_traceback = False
        del future
    [report] = reports
    assert str(report["exception"]) == "read: False"


class Home:
    """A stand-in for a future's loop that records what the future asks of it."""

    def __init__(self, *, debug: bool) -> None:
        self.debug = debug
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        answers = {"get_debug": lambda: self.debug, "call_exception_handler": lambda _context: None}
        return answers[name]


def end_with_result(future: Any) -> None:
    future.set_result(1)
    assert future.result() == 1


def end_cancelled(future: Any) -> None:
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        future.result()


def end_with_error(future: Any) -> None:
    future.set_exception(ValueError())
    with pytest.raises(ValueError):  # noqa: PT011  (it has no text)
        future.result()


def end_unread(future: Any) -> None:
    future.set_exception(ValueError())


@pytest.mark.parametrize(
    ("end", "asks"),
    [
        (end_with_result, []),
        (end_cancelled, []),
        (end_with_error, []),
        (end_unread, ["call_exception_handler"]),
    ],
)
def test_a_future_asks_nothing_else_of_its_loop(end: Any, asks: list[str]):
    """Without callbacks it uses the loop in two ways, so a task's substitute suffices."""
    home = Home(debug=False)
    future = made(home)
    assert home.asked == ["get_debug"]
    assert future.get_loop() is home
    end(future)
    del future
    gc.collect()
    assert home.asked[1:] == asks


def made(home: Any) -> Any:
    return asyncio.Future[int](loop=home)


def test_debug_mode_shows_where_a_future_was_made():
    off, on = made(Home(debug=False)), made(Home(debug=True))
    assert off._source_traceback is None
    assert isinstance(on._source_traceback, traceback.StackSummary)
    assert on._source_traceback[-1].name == "made"


class Called:
    def __call__(self, _: object) -> None:
        """Do nothing."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_future_shows_its_callbacks(loop: Any, kind: Any):
    future = kind(loop=loop)
    assert not future._callbacks
    first, second = Called(), Called()
    future.add_done_callback(first)
    future.add_done_callback(second)
    assert [callback for callback, _ in future._callbacks] == [first, second]
    future.set_result(None)
    assert not future._callbacks
    assert [handle._callback for handle in loop._ready] == [first, second]
    loop._ready.clear()


def test_futures_of_a_loop_are_shared_without_a_gil():
    assert has_gil() is getattr(sys, "_is_gil_enabled", lambda: True)()
    assert LoopFuture is (asyncio.Future if has_gil() else SharedFuture)
