"""nest_asyncio applied by a library: homebound's loops are not patched, and say what to use."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = """
    import asyncio, sys, threading
    import LIBRARY as nest_asyncio
    when, how = sys.argv[1:]
    if when == "first":
        nest_asyncio.apply()
    import homebound
    if when == "before":
        nest_asyncio.apply()

    async def main():
        if when == "inside":
            nest_asyncio.apply()
        loop = asyncio.get_running_loop()
        print(type(loop)._run_once.__module__, type(loop).run_forever.__module__)
        async with asyncio.timeout(5):
            assert await asyncio.create_task(asyncio.sleep(0.01, 1)) == 1
        me = homebound.current_task()
        assert isinstance(me, asyncio.Task) and isinstance(me, asyncio.Future)
        threading.Timer(0.05, me.wake).start()
        await homebound.suspend()
        async with homebound.IOThread() as io:
            assert await io.spawn(asyncio.sleep(0.01, 2)) == 2
        def guest():
            with homebound.big_lock:
                return homebound.block_on(asyncio.sleep(0.01, 3))
        assert await asyncio.to_thread(guest) == 3
        assert homebound.block_on(asyncio.sleep(0.01, 4)) == 4
        future = loop.create_future()
        try:
            loop.run_until_complete(future)
        except RuntimeError as error:
            print(error)
        return homebound.main_context() is homebound.current_context()

    if how == "run":
        print(homebound.run(main()))
    else:
        with asyncio.Runner(loop_factory=homebound.new_event_loop) as runner:
            print(runner.run(main()))
"""


@pytest.mark.parametrize("how", ["run", "new_event_loop"])
@pytest.mark.parametrize("when", ["first", "before", "inside"])
@pytest.mark.parametrize("library", ["nest_asyncio", "nest_asyncio2"])
def test_it_does_no_harm(program: Callable[..., str], library: str, when: str, how: str):
    pytest.importorskip(library)
    if library == "nest_asyncio" and sys.version_info >= (3, 12) and when != "inside":
        pytest.skip("it asks for a loop where there is none, and is given up for nest_asyncio2")
    out = program(PROGRAM.replace("LIBRARY", library), when, how).splitlines()
    where, refusal, is_main = out
    assert where == "homebound._core.loop homebound._core.loop"
    assert refusal.startswith("This event loop is already running")
    assert refusal.endswith("use homebound.block_on")
    assert is_main == "True"
