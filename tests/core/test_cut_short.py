"""A signal handler raises at each point of a task's step in turn: the program still ends.

What it raises is Ctrl-C's KeyboardInterrupt, in the code around the coroutines: the loop's and the
tasks' own. No task is lost by that: the home ends, and each task's cleanup has run.
"""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import AioContext, IOThread, _core, move_to
from homebound._core.nesting import NestingLoop
from homebound.testing import until

from ..locks import attack as attacks
from ..locks.attack import Attack

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

ROOT = Path(_core.__file__).parent
AROUND = {str(ROOT / name) for name in ("task.py", "loop.py", "chain.py", "task_interface.py")}
AROUND |= {str(ROOT.parent / "_aio" / name) for name in ("loop.py", "tasks.py", "futures.py")}


def is_asyncios(caller: Any) -> bool:
    """Return whether the calling frame is one of gather's callbacks, for example."""
    return caller is not None and caller.f_code.co_name == "_done_callback"


class Interrupt(KeyboardInterrupt):
    """What Ctrl-C raises."""


@pytest.fixture(autouse=True)
def only_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack the code around coroutines, and only as signal handlers do."""
    point = Attack._point

    def raise_in_handler(self: Attack, frame: Any, opname: str, error: type) -> None:
        # What asyncio's callbacks call is cut short as they are, on any loop.
        if error is Interrupt and not is_asyncios(frame.f_back):
            point(self, frame, opname, error)

    monkeypatch.setattr(attacks, "Interrupt", Interrupt)
    monkeypatch.setattr(attacks, "_is_ours", lambda code: code.co_filename in AROUND)
    monkeypatch.setattr(Attack, "_point", raise_in_handler)


@pytest.fixture(autouse=True)
def no_finalisers() -> Iterator[None]:
    """Run no finaliser in a step: Python drops what is raised in one."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def io() -> Iterator[IOThread]:
    with homebound.IOThread("io") as io:
        yield io


async def may_not_begin() -> int:
    """Be a coroutine whose warning pyproject.toml ignores, wherever it is collected."""
    await asyncio.sleep(0)
    return 1


# What a task does again and again. `home`: where it began; `io`: another home.
# ruff: noqa: ARG001


async def gives_way(home: AioContext, io: IOThread) -> None:
    await asyncio.sleep(0)


async def awaits_a_task(home: AioContext, io: IOThread) -> None:
    assert await homebound.create_task(may_not_begin()) == 1


async def awaits_a_future(home: AioContext, io: IOThread) -> None:
    future = home.loop.create_future()
    home.call_soon(future.set_result, 1)
    assert await future == 1


async def is_woken(home: AioContext, io: IOThread) -> None:
    task = homebound.current_task()
    assert task is not None
    home.call_soon(task.wake)
    await homebound.suspend()


async def waits_nested(home: AioContext, io: IOThread) -> None:
    assert homebound.block_on(may_not_begin()) == 1
    await asyncio.sleep(0)


async def awaits_another_home(home: AioContext, io: IOThread) -> None:
    assert await io.spawn(may_not_begin()) == 1


async def awaits_a_worker(home: AioContext, io: IOThread) -> None:
    assert await homebound.to_worker(int) == 0


async def moves(home: AioContext, io: IOThread) -> None:
    await move_to(io.context)
    await move_to(home)


async def gathers(home: AioContext, io: IOThread) -> None:
    assert await asyncio.gather(may_not_begin(), may_not_begin()) == [1, 1]


async def waits_for_any(home: AioContext, io: IOThread) -> None:
    tasks = [homebound.create_task(may_not_begin()) for _ in range(2)]
    done, _ = await asyncio.wait(tasks)
    assert len(done) == 2


async def shields(home: AioContext, io: IOThread) -> None:
    assert await asyncio.shield(may_not_begin()) == 1


async def groups(home: AioContext, io: IOThread) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(may_not_begin())


async def groups_of_ours(home: AioContext, io: IOThread) -> None:
    async with homebound.TaskGroup() as group:
        group.create_task(may_not_begin())


async def hears_of_an_end(home: AioContext, io: IOThread) -> None:
    heard = home.loop.create_future()
    homebound.create_task(may_not_begin()).add_done_callback(lambda _: heard.set_result(None))
    await heard


ACTS = [
    gathers,
    waits_for_any,
    shields,
    groups,
    groups_of_ours,
    hears_of_an_end,
    gives_way,
    awaits_a_task,
    awaits_a_future,
    is_woken,
    waits_nested,
    awaits_another_home,
    awaits_a_worker,
    moves,
]
MOST = 300  # points; more come where another thread is waited for
STEPS = {
    awaits_another_home: 0.001,
    awaits_a_worker: 0.001,
    moves: 0.001,
}  # seconds; others: at once


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_ctrl_c_in_a_step(act: Any, io: IOThread):
    points = 0
    while True:
        attack = Attack(points)
        try:
            begun, ended = interrupted(attack, act, io)
            until(lambda: begun == ended)  # noqa: B023  (a task may clean up in the other home)
        except AssertionError as error:
            raise AssertionError(f"after {attack.where}: {error}") from error
        if attack.left >= 0 or points == MOST:
            break
        points += 1
    assert points > 10


def interrupted(attack: Attack, act: Any, io: IOThread) -> tuple[set[object], set[object]]:
    """Run two tasks that `act`, under attack; return those that have begun, and ended."""
    begun: set[object] = set()
    ended: set[object] = set()

    async def work(home: AioContext) -> None:
        me = homebound.current_task()
        begun.add(me)
        try:
            while True:
                await act(home, io)
        finally:
            ended.add(me)

    async def main() -> None:
        home = homebound.running_context()
        tasks = [homebound.create_task(work(home)) for _ in range(2)]
        await asyncio.sleep(0)
        with attack._watching():
            for _ in range(3):
                await asyncio.sleep(STEPS.get(act, 0))
        assert len(tasks) == 2

    run(main())
    assert len(begun) == 2
    return begun, ended


def run(main: Coroutine[Any, Any, None]) -> None:
    try:
        homebound.run(main)
    except Interrupt:
        pass


def test_a_cancellation_between_a_result_and_the_note_of_it():
    """A signal handler cancels the task as the future is done, and has not told the task."""
    said: list[str] = []

    async def work(future: asyncio.Future[int]) -> None:
        try:
            await future
        except asyncio.CancelledError:
            said.append("cancelled")
        await homebound.suspend()
        said.append("woken")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        task = homebound.create_task(work(future))
        await asyncio.sleep(0)

        def interrupted(callback: Any, *args: Any, context: Any = None) -> Any:
            del vars(loop)["call_soon"]
            task.cancel()
            return loop.call_soon(callback, *args, context=context)

        vars(loop)["call_soon"] = interrupted
        future.set_result(1)
        for _ in range(3):
            await asyncio.sleep(0)
        said.append("wakes it")
        task.wake()
        await task

    homebound.run(main())
    assert said == ["cancelled", "wakes it", "woken"]


def test_a_nested_run_that_does_not_begin(monkeypatch: pytest.MonkeyPatch):
    """A signal handler raises as `block_on` puts its task aside: the task is the running one."""
    begin = NestingLoop.begin_nested.__code__
    monkeypatch.setattr(attacks, "_is_ours", lambda code: code is begin)

    async def main() -> int:
        me = asyncio.current_task()
        loop: Any = asyncio.get_running_loop()
        for at in range(MOST):
            for _ in range(3):  # the rest of a batch
                homebound.create_task(asyncio.sleep(0))
            await asyncio.sleep(0)
            attack = Attack(at)
            coro = may_not_begin()
            try:
                with attack._watching():
                    homebound.block_on(coro)
            except Interrupt:
                pass
            finally:
                coro.close()
            assert asyncio.current_task() is me, attack.where
            assert loop._depth == 0, attack.where
            assert asyncio.get_running_loop() is loop
            if attack.left >= 0:
                return at
        return MOST

    points = homebound.run(main())
    assert 0 < points < MOST
