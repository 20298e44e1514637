"""The timer of an asyncio.timeout outlives the loop where it began, if its task has moved on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import IOThread, move_to
from homebound.testing import until

if TYPE_CHECKING:
    from homebound import AioContext

LONG = 60  # seconds

in_virtual_time = pytest.mark.usefixtures("virtual_clock")  # no thread is late for its timer


async def arrived(task: homebound.Task[Any], home: AioContext) -> None:
    while task.home is not home:
        assert not task.done()
        await asyncio.sleep(0.001)


async def expires(task: homebound.Task[Any]) -> None:
    await asyncio.wait([task], timeout=LONG / 2)
    with pytest.raises(TimeoutError):
        task.result()


async def begun_elsewhere(home: AioContext, delay: float) -> None:
    """Enter a timeout at another home, and wait here."""
    async with asyncio.timeout(delay):
        await move_to(home)
        await asyncio.sleep(LONG)


@in_virtual_time
def test_it_expires():
    async def main() -> None:
        home = homebound.running_context()
        with IOThread("io") as io:
            task = io.spawn(begun_elsewhere(home, 9))
            await arrived(task, home)
        await expires(task)

    homebound.run(main())


@in_virtual_time
def test_it_expires_after_two_loops_have_ended():
    async def main() -> None:
        home = homebound.running_context()
        with IOThread("second") as second:
            with IOThread("first") as first:

                async def travel() -> None:
                    async with asyncio.timeout(9):
                        await move_to(second.context)
                        gone.set()
                        await homebound.suspend()
                        await move_to(home)
                        await asyncio.sleep(LONG)

                gone = homebound.Event()
                task = first.spawn(travel())
                await gone.wait()
            await asyncio.sleep(0.01)
            task.wake()
            await arrived(task, home)
        await expires(task)

    homebound.run(main())


@in_virtual_time
def test_it_is_left_in_time():
    async def work(home: AioContext) -> str:
        async with asyncio.timeout(9):
            await move_to(home)
            await here.wait()
        await asyncio.sleep(LONG)
        return "not cancelled"

    async def main() -> str:
        home = homebound.running_context()
        with IOThread("io") as io:
            task = io.spawn(work(home))
            await arrived(task, home)
        here.set()
        return await task

    here = homebound.Event()
    assert homebound.run(main()) == "not cancelled"


@in_virtual_time
@pytest.mark.parametrize("refuses", [True, False])
def test_it_expires_if_the_next_loop_has_just_ended(
    monkeypatch: pytest.MonkeyPatch,
    refuses: bool,  # noqa: FBT001
):
    """Its timer is on the way there, and the task has moved on."""
    task: Any = None

    async def travel(home: AioContext) -> None:
        async with asyncio.timeout(9):
            await move_to(second.context)
            gone.set()
            await homebound.suspend()
            await move_to(home)
            await asyncio.sleep(LONG)

    def take_away(timer: Any) -> None:
        monkeypatch.undo()
        task.wake()
        until(lambda: task.home is not second.context)
        second._ask_to_stop()
        second._thread.join()
        if refuses:
            second.context._post(timer)
        else:  # it has run its last iteration, and answers what is left
            timer._unrun()

    async def main() -> None:
        nonlocal task
        with IOThread("first") as first:
            task = first.spawn(travel(homebound.running_context()))
            await gone.wait()
            monkeypatch.setattr(second.context, "_post", take_away, raising=False)
            await homebound.to_worker(first.stop)
        await expires(task)

    gone = homebound.Event()
    with IOThread("second") as second:
        homebound.run(main())


def test_on_a_foreign_loop():  # whose time is that of the system
    async def main() -> None:
        home = homebound.AioContext.attach(asyncio.get_running_loop())
        async with IOThread("io") as io:
            task = io.spawn(begun_elsewhere(home, 2))
            await arrived(task, home)
        await expires(task)

    asyncio.run(main())
