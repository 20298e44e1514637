"""A Task's life as seen by its user: stacks, reports, references, and coroutines of other makes."""

from __future__ import annotations

import asyncio
import gc
import io as text_io
import sys
import weakref
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., Any]


async def answer() -> int:
    return 42


async def fail() -> None:
    raise ValueError("no")


def test_stacks(run: Run):
    async def main() -> None:
        async def deep() -> None:
            await asyncio.sleep(0)

        async def outer() -> None:
            await deep()

        task = asyncio.create_task(outer())
        await asyncio.sleep(0)
        assert [frame.f_code.co_name for frame in task.get_stack()] == ["outer"]
        out = text_io.StringIO()
        task.print_stack(file=out)
        assert "outer" in out.getvalue()
        await task
        assert task.get_stack() == []

    run(main())


def test_repr(run: Run):
    async def main() -> None:
        task = asyncio.create_task(answer(), name="seeker")
        assert "pending name='seeker'" in repr(task)
        assert "answer()" in repr(task)
        await task
        assert "finished" in repr(task)
        assert "result=42" in repr(task)

    run(main())


def test_repr_shows_its_home(io: homebound.IOThread):
    task = Task(answer())
    assert "no home" in repr(task)
    io.context.schedule(task)
    assert "home='io'" in repr(task)
    homebound.block_on(task)


def test_an_exception_that_is_never_read_is_reported(run: Run):
    async def main() -> None:
        reports: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        for read in (True, False):
            task = asyncio.create_task(fail())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if read:
                task.exception()
            del task
            gc.collect()
            await asyncio.sleep(0)
        (report,) = reports
        assert "exception was never retrieved" in report["message"]
        assert isinstance(report["exception"], ValueError)

    run(main())


def test_an_exception_that_is_never_read_in_an_io_thread(io: homebound.IOThread):
    reports: list[Any] = []
    io.context.loop.set_exception_handler(lambda _, report: reports.append(report))
    io.spawn(fail())
    homebound.block_on(io.spawn(asyncio.sleep(0)))
    gc.collect()
    assert [type(report["exception"]) for report in reports] == [ValueError]


def test_it_is_kept_alive_without_a_reference():
    """asyncio's documented trap: a task that only its own future refers to may vanish."""

    async def main() -> None:
        done: list[int] = []

        async def work() -> None:
            await asyncio.get_running_loop().create_future()

        async def watch() -> None:
            try:
                await work()
            except asyncio.CancelledError:
                done.append(1)
                raise

        asyncio.create_task(watch())  # noqa: RUF006
        await asyncio.sleep(0)
        gc.collect()
        assert not done
        (left,) = asyncio.all_tasks() - {asyncio.current_task()}
        left.cancel()
        await asyncio.wait([left])
        assert done == [1]

    homebound.run(main())


def test_a_finished_task_is_freed():
    async def main() -> None:
        task = asyncio.create_task(answer())
        await task
        gone = weakref.ref(task)
        del task
        gc.collect()
        assert gone() is None

    homebound.run(main())


def test_base_exceptions_end_the_run(run: Run):
    class Stop(SystemExit):
        pass

    async def stop() -> None:
        raise Stop(3)

    async def main() -> None:
        task = asyncio.create_task(stop())
        await asyncio.sleep(10)
        await task

    with pytest.raises(SystemExit):
        run(main())


def test_uncancel(run: Run):
    async def main() -> None:
        me = asyncio.current_task()
        assert me is not None
        assert me.cancelling() == 0
        me.cancel("one")
        me.cancel("two")
        assert me.cancelling() == 2
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        assert me.uncancel() == 1
        assert me.uncancel() == 0
        assert me.uncancel() == 0
        await asyncio.sleep(0)

    run(main())


def test_generic_alias():
    assert Task[int]  # type: ignore[truthy-function]
    assert str(Task[int]).endswith("Task[int]")


def test_only_coroutines():
    for what in (answer, 42, None):
        with pytest.raises(TypeError, match="a coroutine was expected"):
            Task(what)  # type: ignore[arg-type]


def test_a_task_factory_is_asked():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        made: list[Any] = []

        def factory(loop: Any, coro: Any, **options: Any) -> Any:
            made.append(asyncio.Task(coro, loop=loop, **options))
            return made[-1]

        loop.set_task_factory(factory)
        task = asyncio.create_task(answer())
        assert [task] == made
        assert await task == 42

    homebound.run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has eager tasks since 3.12")
def test_eager_tasks_are_asyncios_own():
    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        task = asyncio.create_task(answer())
        assert task.done()
        assert await task == 42

    homebound.run(main())


class Countdown(Coroutine[Any, Any, str]):
    """A coroutine not made by `async def`, such as Cython's."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def send(self, value: Any) -> None:  # noqa: ARG002
        self.steps -= 1
        if self.steps < 0:
            raise StopIteration("lift-off")

    def throw(self, *error: Any) -> None:
        raise error[0]

    def __await__(self) -> Any:
        return self


def test_coroutines_of_other_makes(run: Run):
    async def main() -> None:
        assert await asyncio.create_task(Countdown(3)) == "lift-off"  # type: ignore[abstract]
        task = asyncio.create_task(Countdown(3000))  # type: ignore[abstract]
        await asyncio.sleep(0)
        repr(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_coroutines_of_other_makes_abandoned_by_a_closing_loop():
    loop = homebound.new_event_loop()
    tasks = [loop.create_task(Countdown(3)), loop.create_task(homebound.suspend())]  # type: ignore[abstract]
    loop.run_until_complete(asyncio.sleep(0))
    tasks += [loop.create_task(Countdown(3)), loop.create_task(homebound.suspend())]  # type: ignore[abstract]
    loop.close()
    for task in tasks:
        assert isinstance(task.exception(), homebound.ContextClosed)


def test_suspend_and_move_to_are_accepted_as_coroutines(io: homebound.IOThread):
    """They are declared as coroutines: whatever takes a coroutine takes them."""

    async def main() -> None:
        task = asyncio.create_task(homebound.suspend())
        await asyncio.sleep(0)
        task.wake()  # type: ignore[attr-defined]
        await asyncio.gather(task, homebound.move_to(io.context))

    homebound.run(main())
