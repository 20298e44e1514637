"""The meaning of asyncio's private names of tasks: its registries, and what it does for a task."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import io
import sys
from asyncio import events
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest

import homebound
from homebound._aio.shapes import waits_for
from homebound._aio.tasks import (
    context_in_use,
    describe_task,
    enter_task,
    keep_alive,
    leave_if_entered,
    leave_task,
    let_die,
    let_rest,
    print_task_stack,
    running_task,
    set_running_loop,
    task_here,
    task_stack,
    unfinished,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPS = [asyncio.SelectorEventLoop, homebound.new_event_loop]


@pytest.fixture
def running() -> Iterator[Any]:
    """Make the calling thread appear to run a loop."""
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


def test_a_forked_process_leaves_the_running_task(running: Any):
    task: Any = object()
    enter_task(running, task)
    leave_if_entered(running, object())
    assert task_here(running) is task
    leave_if_entered(running, task)
    leave_if_entered(running, task)
    assert task_here(running) is None


@pytest.mark.usefixtures("running")
def test_a_task_is_entered_on_the_running_loop_alone():
    """Since 3.14; before, any thread could, and would see the task in another's loop."""
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
    """A minimal object that all_tasks, and the WeakSet of 3.11, accept as a task."""

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


def test_what_rests_is_seen_by_all_tasks_and_not_kept_alive(running: Any):
    task = Registered(running)
    watch = ref(task)
    keep_alive(task)
    for _ in range(2):
        let_rest(task)
        assert asyncio.all_tasks() == {task}
        keep_alive(task)
        assert asyncio.all_tasks() == {task}
    let_rest(task)
    del task
    gc.collect()
    assert watch() is None
    assert asyncio.all_tasks() == set()


def test_all_tasks_reads_what_other_threads_change():
    """Each time all_tasks looks at a task, another thread makes and ends tasks."""
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
            never: Any = homebound.Task(homebound.suspend())  # not begun: nothing else refers to it
            assert set(unfinished(homebound.Task)) == {there, here, asyncio.current_task()}
            never.cancel()
            here.cancel()

    homebound.run(main())


def test_asyncio_asks_for_the_loop_to_await_or_to_list():
    """get_loop returns the running loop for an await; for all_tasks and others the home's."""

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


# One task.


def test_a_context_that_is_entered_twice():
    context = contextvars.copy_context()
    with pytest.raises(RuntimeError) as here:
        context.run(context.run, print)
    assert context_in_use(here.value)
    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError) as there:
        context.run(lambda: pool.submit(context.run, print).result())
    assert context_in_use(there.value)
    assert not context_in_use(RuntimeError("something else cannot enter context"))


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_task_shows_what_it_awaits(loop_factory: Any):
    async def wait(future: Any) -> None:
        await future
        assert waits_for(asyncio.current_task()) is None
        await asyncio.sleep(0)

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(wait(future))
        outer = asyncio.create_task(wait(task))
        assert waits_for(task) is None
        await asyncio.sleep(0)
        assert waits_for(task) is future
        assert waits_for(outer) is task
        future.set_result(None)
        await outer
        assert waits_for(task) is None

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
    assert waits_for(object()) is None


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_task_that_must_cancel(loop_factory: Any):
    """The request waits in the task only if there is no future to cancel instead."""

    async def main() -> None:
        never = asyncio.get_running_loop().create_future()

        async def wait() -> None:
            await never

        for yields, must_cancel in ((0, True), (1, False)):
            task: Any = asyncio.create_task(wait())
            for _ in range(yields):
                await asyncio.sleep(0)
            assert task._must_cancel is False
            task.cancel("why")
            assert (task._must_cancel, never.cancelled()) == (must_cancel, not must_cancel)
            with pytest.raises(asyncio.CancelledError, match="why"):
                await task
            assert task._must_cancel is False

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_an_interrupted_run_until_complete_leaves_its_task_unreported(loop_factory: Any):
    """An interrupted run_until_complete abandons its task, and marks that as no mistake."""

    async def look() -> Any:
        return asyncio.current_task()._log_destroy_pending  # type: ignore[union-attr]

    loop = loop_factory()
    assert loop.run_until_complete(look()) is False
    loop.close()


@pytest.mark.parametrize("is_mistake", [True, False])
def test_a_task_that_is_collected_unfinished(*, is_mistake: bool):
    loop = asyncio.SelectorEventLoop()
    reports: list[str] = []
    loop.set_exception_handler(lambda _, report: reports.append(report["message"]))

    async def wait() -> None:
        await loop.create_future()

    task: Any = loop.create_task(wait())
    loop.stop()
    loop.run_forever()
    task._log_destroy_pending = is_mistake
    del task
    gc.collect()
    assert reports == ["Task was destroyed but it is pending!"] * is_mistake
    loop.close()


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_task_is_described(loop_factory: Any):
    class Echo:
        """A callback that is shown as the task."""

        def __init__(self, task: Any) -> None:
            self.task = task

        def __call__(self, _: object) -> None:
            """Do nothing."""

        def __repr__(self) -> str:
            return f"<Echo {self.task!r}>"

    async def wait(future: Any) -> None:
        await future

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(wait(future), name="described")
        await asyncio.sleep(0)
        text = describe_task(task)
        assert text.startswith("<Task pending name='described' coro=<")
        assert " wait_for=<Future pending cb=[" in text
        assert repr(task).startswith(text[:-1])
        task.add_done_callback(Echo(task))
        assert "cb=[<Echo ...>" in repr(task)  # within its own repr it is not described again
        task.cancel()
        assert describe_task(task)[-1] == ">"
        await asyncio.wait([task])
        assert describe_task(task).startswith("<Task cancelled name='described' coro=<")

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_the_stack_of_a_task(loop_factory: Any):
    async def inner() -> None:
        await asyncio.get_running_loop().create_future()

    async def standing_here() -> None:
        await inner()

    async def main() -> None:
        task = asyncio.create_task(standing_here())
        await asyncio.sleep(0)
        [frame] = task_stack(task, None)
        assert frame.f_code is standing_here.__code__
        assert task.get_stack() == [frame]
        assert task_stack(task, 0) == []
        printed, by_task = io.StringIO(), io.StringIO()
        print_task_stack(task, None, printed)
        task.print_stack(file=by_task)
        assert "standing_here" in printed.getvalue() == by_task.getvalue()
        task.cancel()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
