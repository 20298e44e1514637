"""A program that leaves tasks running at its end: it ends the same under every runner."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.testing import no_leaks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    Main = Coroutine[Any, Any, str]


class Program:
    """The program and the record of each part: tasks end in any order."""

    def __init__(self) -> None:
        self.notes: dict[str, list[str]] = defaultdict(list)
        self.kept: list[Any] = []  # still referred to at the end of the loop
        self.finished = threading.Event()

    def note(self, what: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.notes[task.get_name()].append(what)

    async def main(self) -> str:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self.report)
        for part in (
            self.cleans_up,
            self.fails_in_cleanup,
            self.ignores_it_once,
            self.has_children,
            self.waits_for_another,
            self.waits_for_a_thread,
            self.shields,
        ):
            self.kept.append(loop.create_task(part(), name=part.__name__))
        unseen = loop.create_task(self.failed_unseen(), name="failed_unseen")
        for generator in (self.generator(), self.failing_generator()):
            await anext(generator)
            self.kept.append(generator)
        for _ in range(10):
            await asyncio.sleep(0)
        del unseen
        self.note("returns")
        return "result"

    def report(self, _loop: object, context: dict[str, Any]) -> None:
        where = context.get("task") or context.get("future")
        name = "generators" if where is None else where.get_name()
        self.notes[name].append(f"reported: {context['exception']!r}")

    async def forever(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.note("cancelled")
            raise

    async def cleans_up(self) -> None:
        try:
            await self.forever()
        finally:
            await asyncio.sleep(0.01)
            self.note("cleaned up")

    async def fails_in_cleanup(self) -> None:
        try:
            await self.forever()
        finally:
            await asyncio.sleep(0)
            raise ValueError("in cleanup")

    async def failed_unseen(self) -> None:
        raise ValueError("before the end")

    async def ignores_it_once(self) -> None:
        try:
            await self.forever()
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
        self.note("goes on")

    async def has_children(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.forever(), name="child_1")
                group.create_task(self.forever(), name="child_2")
        finally:
            self.note("after its children")

    async def waits_for_another(self) -> None:
        other = asyncio.create_task(self.forever(), name="another")
        try:
            await other
        finally:
            self.note("after the other" if other.done() else "before the other")

    async def shields(self) -> None:
        try:
            await asyncio.shield(asyncio.create_task(self.cleans_up(), name="shielded"))
        finally:
            self.note("cancelled")
            self.finished.set()

    async def waits_for_a_thread(self) -> None:
        try:
            await asyncio.to_thread(self.work)
        finally:
            self.note("cancelled")

    def work(self) -> None:
        assert self.finished.wait(20)
        self.notes["thread"].append("finished")

    async def generator(self) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0.01)
            self.notes["generators"].append("closed")

    async def failing_generator(self) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            raise ValueError("in a generator")


EXPECTED = {
    "main": ["returns"],
    "cleans_up": ["cancelled", "cleaned up"],
    "fails_in_cleanup": ["cancelled", "reported: ValueError('in cleanup')"],
    "failed_unseen": ["reported: ValueError('before the end')"],
    "ignores_it_once": ["cancelled", "goes on"],
    "has_children": ["after its children"],
    "child_1": ["cancelled"],
    "child_2": ["cancelled"],
    "another": ["cancelled"],
    "waits_for_another": ["after the other"],
    "waits_for_a_thread": ["cancelled"],
    "thread": ["finished"],
    "shields": ["cancelled"],
    "shielded": ["cancelled", "cleaned up"],
    "generators": ["closed", "reported: ValueError('in a generator')"],
}


def by_runner(main: Main, factory: Callable[[], Any], *, debug: bool) -> str:
    with asyncio.Runner(loop_factory=factory, debug=debug) as runner:
        return runner.run(main)


def by_asyncio_run(main: Main, *, debug: bool) -> str:
    return asyncio.run(main, debug=debug)


def by_asyncio(main: Main, *, debug: bool) -> str:
    return by_runner(main, asyncio.SelectorEventLoop, debug=debug)


def by_our_loop(main: Main, *, debug: bool) -> str:
    return by_runner(main, homebound.new_event_loop, debug=debug)


def by_homebound_run(main: Main, *, debug: bool) -> str:
    return homebound.run(main, debug=debug)


def by_io_thread(main: Main, *, debug: bool) -> str:
    """Run the program in an I/O thread that then ends: the tasks at home there are left over."""
    with homebound.IOThread() as io:
        io.context.call_soon(io.context.loop.set_debug, debug)
        result: str = homebound.block_on(io.spawn(main))
    return result


def by_io_thread_with_others_loop(main: Main, *, debug: bool) -> str:
    """Do as `by_io_thread`, on a loop of asyncio's, with tasks of asyncio's."""
    with homebound.IOThread(loop_factory=asyncio.SelectorEventLoop) as io:
        io.context.call_soon(io.context.loop.set_debug, debug)
        result: str = homebound.block_on(io.spawn(main))
    return result


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(
    "runner",
    [
        by_asyncio_run,
        by_asyncio,
        by_our_loop,
        by_homebound_run,
        by_io_thread,
        by_io_thread_with_others_loop,
    ],
)
def test_what_is_left_over_is_ended(runner: Callable[..., str], debug: bool):  # noqa: FBT001
    program = Program()

    async def main() -> str:
        asyncio.current_task().set_name("main")  # type: ignore[union-attr]
        return await program.main()

    with no_leaks():
        assert runner(main(), debug=debug) == "result"
        assert {name: sorted(notes) for name, notes in program.notes.items()} == EXPECTED
