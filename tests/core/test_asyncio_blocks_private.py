"""How asyncio's timeout() and TaskGroup act for their task: through callbacks on its loop."""

from __future__ import annotations

import asyncio
from types import MethodType
from typing import TYPE_CHECKING, Any

import pytest

from homebound._aio.shapes import waits_for
from homebound._aio.tasks import ON_BEHALF

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Recording(asyncio.SelectorEventLoop):
    """A loop that records the task and callback of each scheduled call, and its effects."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Any, Any]] = []
        self.state: Callable[[], object] = lambda: None
        self.changes: list[tuple[object, object]] = []

    def note(self, callback: Any) -> bool:
        if type(callback) is not MethodType or callback.__func__ not in ON_BEHALF:
            return False
        self.asked.append((callback, getattr(callback.__self__, ON_BEHALF[callback.__func__])))
        return True

    def observe(self, callback: Any, *args: Any) -> None:
        before = self.state()
        callback(*args)
        self.changes.append((before, self.state()))

    def call_soon(self, callback: Any, *args: Any, **options: Any) -> Any:  # type: ignore[override]
        if self.note(callback):
            return super().call_soon(self.observe, callback, *args, **options)
        return super().call_soon(callback, *args, **options)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, **options: Any
    ) -> Any:
        self.note(callback)
        return super().call_at(when, callback, *args, **options)


@pytest.fixture
def recording() -> Iterator[tuple[asyncio.Runner, Recording]]:
    """Return a runner of coroutines on a recording loop, and the loop."""
    with asyncio.Runner(loop_factory=Recording) as runner:
        loop: Any = runner.get_loop()
        yield runner, loop


@pytest.mark.parametrize("delay", [0, 3600])
def test_a_timeout_expires_by_the_callback_it_has_scheduled(
    recording: tuple[asyncio.Runner, Recording], delay: float
):
    """The callback cancels the task recorded for it, and the block then raises TimeoutError."""
    runner, loop = recording

    async def main() -> None:
        me: Any = asyncio.current_task()
        loop.state = me.cancelling
        async with asyncio.timeout(delay):
            [(strike, whom)] = loop.asked
            assert whom is me
            if delay:
                loop.observe(strike)
            await asyncio.sleep(3600)

    with pytest.raises(TimeoutError):
        runner.run(main())
    assert loop.changes == [(0, 1)]


class Between:
    """A loop's front that records the futures that are made."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.made: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loop, name)

    def create_future(self) -> Any:
        future = self.loop.create_future()
        self.made.append(future)
        return future


def test_a_task_group_ends_by_what_its_children_call(
    recording: tuple[asyncio.Runner, Recording],
):
    """The parent awaits a future of the group's loop; the last child's callback completes it."""
    runner, loop = recording
    between = Between(loop)
    loop.state = lambda: [future.done() for future in between.made]

    async def child(parent: Any) -> None:
        assert [waits_for(parent)] == between.made
        assert not loop.asked

    async def main() -> None:
        me = asyncio.current_task()
        group: Any = asyncio.TaskGroup()
        async with group:
            assert group._loop is loop
            group._loop = between
            group.create_task(child(me))
        assert [whom for _, whom in loop.asked] == [me]
        assert loop.changes == [([False], [True])]

    runner.run(main())
