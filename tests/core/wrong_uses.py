"""What the tables of wrong uses are made of: a call or program, what it raises, what that says."""

from __future__ import annotations

import asyncio
import re
import sys
import textwrap
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import homebound
import homebound.block
from homebound import IOThread, Task, block_on, run
from homebound.nbd import NBDDisk, NBDServer

if TYPE_CHECKING:
    from collections.abc import Callable

# No internal name and no address stands in a message, and none is longer.
PRIVATE = re.compile(
    r"homebound\._|FutureParts|TaskFuture|Enterable|GuestContext|LoopContext| at 0x"
)
TIMEOUT = "the timeout is '5'; it must be a number of seconds, or None for no limit"
LONGEST = 270  # characters
NOT_A_COROUTINE = TypeError if sys.version_info >= (3, 14) else ValueError  # asyncio.run's

Row = tuple[str, type[BaseException], str]  # a program, what it raises, and a part of its text


class WrongUses(dict[str, tuple[Any, type[BaseException], str]]):
    """The cases of a table, by name."""

    def say(self, kind: type[BaseException], text: str) -> Callable[[Any], Any]:
        """Add the decorated function, which is given two I/O threads: it raises this."""

        def add(function: Any) -> Any:
            self[function.__name__] = (function, kind, text)
            return function

        return add

    def check(self, case: str, io: IOThread, io2: IOThread) -> None:
        """The message says so, and everything goes on."""
        function, kind, text = self[case]
        with pytest.raises(kind) as caught:
            function(io, io2)
        said = str(caught.value)
        assert text in said
        assert len(said) <= LONGEST
        assert not PRIVATE.search(said)
        again = IOThread("again").start()
        assert block_on(again.spawn(asyncio.sleep(0, "went on"))) == "went on"
        again.stop()
        assert run(asyncio.sleep(0, "went on")) == "went on"


async def work() -> None:
    await asyncio.sleep(0)


async def suspended() -> None:
    await homebound.suspend()


async def call(function: Callable[..., object], *args: Any) -> object:
    """Call it in a task, in the loop that runs."""
    return function(*args)


def started(coro: Any, home: IOThread, name: str) -> Task[Any]:
    """A task that has begun, and waits."""
    task = home.spawn(coro, name=name)
    block_on(home.spawn(work()))
    return task


def plain(*_args: object) -> None:
    """Return nothing."""


async def numbers() -> Any:
    yield 1


NAMES = {name: getattr(homebound, name) for name in homebound.__all__} | {
    "NBDDisk": NBDDisk,
    "NBDServer": NBDServer,
    "ProcessPoolExecutor": ProcessPoolExecutor,
    "ThreadPoolExecutor": ThreadPoolExecutor,
    "asyncio": asyncio,
    "block": homebound.block,
    "call": call,
    "numbers": numbers,
    "plain": plain,
    "threading": threading,
    "work": work,
}


def check_program(program: str, kind: type[BaseException], text: str, io: IOThread) -> None:
    """A program as a newcomer types it raises this and says so, and everything goes on."""
    with pytest.raises(kind) as caught:
        exec(textwrap.dedent(program), NAMES | {"io": io})
    said = str(caught.value)
    assert text in said
    assert len(said) <= LONGEST
    assert not PRIVATE.search(said)
    assert run(asyncio.sleep(0, "went on")) == "went on"
