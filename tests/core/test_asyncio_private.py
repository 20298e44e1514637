"""Each name that asyncio keeps private and the core uses: there, and doing what we rely on."""

from __future__ import annotations

import asyncio
import heapq
import inspect
import re
import selectors
import sys
import threading
from asyncio import base_events, base_tasks, events, tasks
from pathlib import Path
from typing import Any

import pytest

import homebound
from homebound._asyncio_private import ON_BEHALF

SOURCE = Path(homebound.__file__).parent


def test_enter_and_leave_decide_the_current_task():
    loop = asyncio.new_event_loop()
    task: Any = object()
    tasks._enter_task(loop, task)
    assert asyncio.current_task(loop) is task
    with pytest.raises(RuntimeError):
        tasks._enter_task(loop, object())  # type: ignore[arg-type]
    tasks._leave_task(loop, task)  # type: ignore[arg-type]
    assert asyncio.current_task(loop) is None
    loop.close()


def test_the_running_loop_is_a_thing_of_the_thread():
    loop = asyncio.new_event_loop()
    assert events._get_running_loop() is None
    events._set_running_loop(loop)
    assert asyncio.get_running_loop() is events._get_running_loop() is loop
    events._set_running_loop(None)
    assert events._get_running_loop() is None
    loop.close()


def test_asking_for_the_task_of_a_loop_never_raises():
    loop = asyncio.new_event_loop()
    if sys.version_info >= (3, 12):
        assert asyncio.current_task(loop) is None
    else:
        assert tasks._current_tasks.get(loop) is None  # type: ignore[attr-defined]
    loop.close()


def test_all_tasks_is_a_weak_set_whose_entries_are_called():
    """We put the task itself there, and answer the call."""
    name = "_scheduled_tasks" if sys.version_info >= (3, 12) else "_all_tasks"
    registry = getattr(tasks, name)
    assert isinstance(registry.data, set)
    loop = asyncio.new_event_loop()

    class Entry:
        def __call__(self) -> Any:
            return self

        def done(self) -> bool:
            return False

        def get_loop(self) -> Any:
            return loop

        _loop = property(get_loop)

    entry: Any = Entry()
    registry.data.add(entry)
    try:
        assert entry in asyncio.all_tasks(loop)
    finally:
        registry.data.discard(entry)
        loop.close()


def test_a_future_says_that_it_is_awaited():
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    assert future._asyncio_future_blocking is False

    async def wait() -> None:
        await future

    coro = wait()
    assert coro.send(None) is future
    assert future._asyncio_future_blocking is True
    coro.close()
    loop.close()


def test_an_asyncio_task_takes_our_task_for_a_future():
    """The flag is always up, and putting it down does nothing: threads share the task."""
    task: Any = homebound.Task(asyncio.sleep(0))
    assert asyncio.isfuture(task)
    task._asyncio_future_blocking = False
    assert task._asyncio_future_blocking is True
    task.cancel()


def test_the_default_executor():
    loop = asyncio.new_event_loop()
    with homebound.WorkerPool(name="mine") as pool:
        loop._default_executor = pool  # type: ignore[attr-defined]
        name = loop.run_until_complete(asyncio.to_thread(lambda: threading.current_thread().name))
        assert name.startswith("mine-")
        loop.run_until_complete(loop.shutdown_default_executor())
        with pytest.raises(RuntimeError, match="was shut down"):
            pool.submit(int)
    loop.close()


def test_a_futures_cancel_message_and_error():
    loop = asyncio.new_event_loop()
    future: Any = loop.create_future()
    future._cancel_message = "why"
    error = future._make_cancelled_error()
    assert isinstance(error, asyncio.CancelledError)
    assert error.args == ("why",)
    loop.close()


def test_a_future_may_be_told_that_its_exception_was_read():
    loop = asyncio.new_event_loop()
    reports: list[Any] = []
    loop.set_exception_handler(lambda _, report: reports.append(report))
    for read in (True, False):
        future: Any = loop.create_future()
        future.set_exception(ValueError())
        if read:
            future._log_traceback = False
        del future
    assert len(reports) == 1
    loop.close()


def test_a_future_takes_what_is_no_loop():
    """The task's future asks for nothing else than these two."""

    class Home:
        get_debug = staticmethod(bool)

        def call_exception_handler(self, context: Any) -> None:
            pass

    future = asyncio.Future[int](loop=Home())  # type: ignore[arg-type]
    future.set_result(1)
    assert future.result() == 1


def test_a_handle_has_the_fields_that_ours_sets():
    loop = asyncio.new_event_loop()
    handle: Any = events.Handle(print, (), loop)
    ours = {"_context", "_loop", "_callback", "_args", "_cancelled", "_repr", "_source_traceback"}
    assert ours <= set(events.Handle.__slots__)
    assert not set(events.Handle.__slots__) - ours - {"__weakref__"}
    assert handle._cancelled is False
    handle.cancel()
    assert handle._cancelled is True
    loop.close()


def test_whom_timeout_and_task_group_are_called_back_for():
    async def main() -> None:
        me = asyncio.current_task()
        async with asyncio.timeout(30) as timeout, asyncio.TaskGroup() as group:
            for manager, name in ((timeout, "_on_timeout"), (group, "_on_task_done")):
                callback = getattr(manager, name)
                assert getattr(manager, ON_BEHALF[callback.__func__]) is me
            child = group.create_task(asyncio.sleep(0))
            assert child._callbacks[0][0] == group._on_task_done
            assert timeout._timeout_handler._callback == timeout._on_timeout  # type: ignore[attr-defined]

    asyncio.run(main())


def test_task_helpers():
    assert list(inspect.signature(base_tasks._task_get_stack).parameters) == ["task", "limit"]
    assert list(inspect.signature(base_tasks._task_print_stack).parameters) == [
        "task", "limit", "file",
    ]  # fmt: skip
    assert callable(base_tasks._task_repr)


def test_base_event_loop_has_what_ours_replaces_and_calls():
    for name in (
        "_run_once",
        "_check_closed",
        "_check_running",
        "_check_callback",
        "_check_thread",
        "_format_handle",
    ):
        assert hasattr(base_events.BaseEventLoop, name) or hasattr(base_events, name), name
    for name in (
        "_add_reader",
        "_remove_reader",
        "_remove_writer",
        "_process_events",
        "_write_to_self",
    ):
        assert hasattr(asyncio.SelectorEventLoop, name), name
    assert isinstance(base_events._MIN_SCHEDULED_TIMER_HANDLES, int)  # type: ignore[attr-defined]
    assert 0 < base_events._MIN_CANCELLED_TIMER_HANDLES_FRACTION < 1  # type: ignore[attr-defined]
    assert base_events.MAXIMUM_SELECT_TIMEOUT > 0  # type: ignore[attr-defined]


def test_the_fields_of_a_loop():
    loop: Any = asyncio.SelectorEventLoop()
    assert loop._stopping is False
    assert loop._closed is False
    assert loop._thread_id is None
    assert loop._debug in (True, False)
    assert loop._task_factory is None
    assert loop._clock_resolution > 0
    assert loop._timer_cancelled_count == 0
    assert not loop._ready
    ready = type(loop._ready)
    assert {"append", "popleft", "extendleft", "rotate"} <= set(dir(ready))
    timer = loop.call_later(3600, print)
    assert loop._scheduled == [timer]
    assert (timer._scheduled, timer._when) == (True, timer.when())
    timer.cancel()
    assert loop._timer_cancelled_count == 1
    assert heapq.heappop(loop._scheduled) is timer
    loop.close()


def test_the_fields_of_an_epoll_selector():
    if not hasattr(selectors, "EpollSelector"):
        pytest.skip("no epoll here")
    selector: Any = selectors.EpollSelector()
    assert selector._fd_to_key == {}
    assert selector._selector.poll(0, 1) == []
    selector.close()


def test_private_names_stand_in_one_file():
    """Nothing but three files knows a private name of asyncio."""
    known = ("_asyncio_private.py", "_asyncio_futures.py", "_asyncio_shapes.py")
    private = re.compile(
        r"\b(?:asyncio|tasks|events|base_tasks|base_events|futures)\._[a-z]\w+|"
        r"from asyncio\.\w+ import .*\b_\w+"
    )
    found = {
        (path.name, match.group())
        for path in SOURCE.rglob("*.py")
        if path.name not in known
        for match in private.finditer(path.read_text())
    }
    assert not found
