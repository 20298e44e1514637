"""`run` and `IOThread` where no thread runs signal handlers: without a main thread, as asyncio."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import homebound

SOURCE = Path(homebound.__file__).parents[1]
INSIDE = """
import sys
sys.path[:] = {path!r}
import asyncio, homebound
async def main():
    await asyncio.sleep(0.1)
    async with homebound.IOThread() as io:
        assert await io.spawn(asyncio.sleep(0.01, 3)) == 3
    with homebound.IOThread() as io:
        return await homebound.to_worker(lambda: 5)
assert homebound.run(main()) == 5
loop = homebound.new_event_loop()
loop.run_until_complete(asyncio.sleep(0.1))
loop.close()
"""


PLAIN = """
import sys
sys.path[:] = {path!r}
import asyncio
async def main():
    assert len(asyncio.all_tasks()) == 1
    return await asyncio.create_task(asyncio.sleep(0.01, 5))
assert asyncio.run(main()) == 5
"""


def run_in_subinterpreters(*bodies: str) -> None:
    """Run each in a legacy subinterpreter, which has threads like the main one and runs asyncio."""
    program = f"""
        try:
            import _interpreters as subs
            create = lambda: subs.create("legacy")
        except ImportError:
            import _xxsubinterpreters as subs
            create = lambda: subs.create(isolated=False)
        execute = getattr(subs, "exec", None) or subs.run_string
        for body in {[body.format(path=[str(SOURCE), *sys.path]) for body in bodies]!r}:
            made = create()
            failure = execute(made, body)
            assert failure is None, failure
            subs.destroy(made)
        print("ran")
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("ran\n", "")


def test_in_a_subinterpreter():
    run_in_subinterpreters(INSIDE)


def test_in_one_subinterpreter_after_another():
    """The next one to use asyncio, with homebound or without, has no part of one that has ended."""
    run_in_subinterpreters(INSIDE, PLAIN, INSIDE, INSIDE)


def test_in_a_thread_that_threading_takes_for_the_main_one():
    """A host program imports threading there first.

    With `-S`, so that nothing else has imported it.
    """
    paths = [str(SOURCE), sysconfig.get_path("purelib")]
    program = textwrap.dedent(f"""
        import _thread, sys
        assert "threading" not in sys.modules
        failures, done = [], _thread.allocate_lock()
        done.acquire()
        def host():
            try:
                exec({INSIDE.format(path=[*paths, *sys.path])!r}, {{}})
            except BaseException as error:
                failures.append(error)
            finally:
                done.release()
        _thread.start_new_thread(host, ())
        assert done.acquire(timeout=20)
        print(failures)
    """)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.stdout == "[]\n", done.stdout + done.stderr
