"""Each name that asyncio keeps private and the core uses: there, and doing what we rely on."""

from __future__ import annotations

import asyncio
import gc
import heapq
import inspect
import re
import selectors
import sys
import threading
from asyncio import base_events, base_tasks, events
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest

import homebound
from homebound._asyncio_tasks import (
    ON_BEHALF,
    enter_task,
    keep_alive,
    leave_task,
    let_die,
    running_task,
    set_running_loop,
    task_here,
    unfinished,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(homebound.__file__).parent


@pytest.fixture
def running() -> Iterator[Any]:
    """A loop that the calling thread seems to run."""
    loop = asyncio.new_event_loop()
    set_running_loop(loop)
    yield loop
    set_running_loop(None)
    loop.close()


def test_enter_and_leave_decide_the_current_task(running: Any):
    task: Any = object()
    enter_task(running, task)
    assert asyncio.current_task(running) is running_task(running) is task_here(running) is task
    with pytest.raises(RuntimeError):
        enter_task(running, object())
    with pytest.raises(RuntimeError):
        leave_task(running, object())
    leave_task(running, task)
    assert asyncio.current_task(running) is running_task(running) is task_here(running) is None


@pytest.mark.usefixtures("running")
def test_a_task_is_entered_on_the_running_loop_alone():
    """Since 3.14; before, any thread could, and so could see it in another's loop."""
    other = asyncio.new_event_loop()
    task: Any = object()
    if sys.version_info >= (3, 14):
        with pytest.raises(RuntimeError, match="is not the running loop"):
            enter_task(other, task)
        with pytest.raises(RuntimeError, match="is not the running loop"):
            leave_task(other, task)
    else:
        enter_task(other, task)
        assert asyncio.current_task(other) is task
        assert task_here(other) is None
        leave_task(other, task)
    other.close()


def test_the_running_loop_is_a_thing_of_the_thread():
    loop = asyncio.new_event_loop()
    assert events._get_running_loop() is None
    events._set_running_loop(loop)
    assert asyncio.get_running_loop() is events._get_running_loop() is loop
    events._set_running_loop(None)
    assert events._get_running_loop() is None
    loop.close()


class Registered:
    """What all_tasks asks of a task, and what the WeakSet of 3.11 does."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop

    def __call__(self) -> Any:
        return self

    def done(self) -> bool:
        return False

    def get_loop(self) -> Any:
        return self.loop


def test_what_is_kept_alive_is_seen_by_all_tasks(running: Any):
    task = Registered(running)
    watch = ref(task)
    keep_alive(task)
    keep_alive(task)  # a second time changes nothing
    assert asyncio.all_tasks() == asyncio.all_tasks(running) == {task}
    assert asyncio.all_tasks(object()) == set()  # type: ignore[arg-type]
    del task
    gc.collect()
    task = watch()  # type: ignore[assignment]
    assert task is not None
    let_die(task)
    let_die(task)
    assert asyncio.all_tasks() == set()
    del task
    gc.collect()
    assert watch() is None


def test_all_tasks_reads_what_other_threads_change():
    """Each look of it at a task lets a thread in that makes and ends others."""
    loop = asyncio.new_event_loop()

    class Disturbing(Registered):
        def get_loop(self) -> Any:
            for passing in [Registered(loop) for _ in range(100)]:
                keep_alive(passing)
                let_die(passing)
            return loop

    staying = [Disturbing(loop) for _ in range(50)]
    for task in staying:
        keep_alive(task)
    try:
        assert asyncio.all_tasks(loop) == set(staying)
    finally:
        for task in staying:
            let_die(task)
        loop.close()


def test_every_task_of_ours_is_found_wherever_it_is_at_home():
    async def main() -> None:
        with homebound.IOThread() as io:
            there = io.spawn(homebound.suspend())
            here = asyncio.create_task(asyncio.sleep(3600))
            never: Any = homebound.Task(homebound.suspend())  # not begun: nobody else knows it
            assert set(unfinished(homebound.Task)) == {there, here, asyncio.current_task()}
            never.cancel()
            here.cancel()

    homebound.run(main())


def test_asyncio_asks_for_the_loop_to_await_or_to_list():
    """To be awaited a task has the loop that runs there; to all_tasks and others, its home's."""

    async def main(io: homebound.IOThread) -> None:
        task = io.spawn(homebound.suspend())
        mine = asyncio.get_running_loop()
        assert task.get_loop() is io.context.loop
        assert asyncio.isfuture(task)
        assert task in asyncio.all_tasks(io.context.loop)
        assert task not in asyncio.all_tasks()
        assert asyncio.ensure_future(task, loop=mine) is task
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), 0)
        assert await asyncio.wait([task], timeout=0) == (set(), {task})
        together = asyncio.gather(task, asyncio.sleep(0))
        assert together.get_loop() is mine
        assert task.get_loop() is io.context.loop
        together.cancel()
        with pytest.raises(asyncio.CancelledError):
            await together

    with homebound.IOThread() as io:
        for loop_factory in (asyncio.SelectorEventLoop, homebound.new_event_loop):
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(main(io))


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
    """Nothing but four files knows a private name of asyncio."""
    known = (
        "_asyncio_private.py",
        "_asyncio_tasks.py",
        "_asyncio_futures.py",
        "_asyncio_shapes.py",
    )
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
