"""run_in through Python 3.14's InterpreterPoolExecutor: what it refuses, and how it may end.

tests/core/test_run_in.py has what it shares with other executors. A function without globals and
closure is sent as code, so the functions here import what they use.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import BrokenExecutor
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import IOThread, run_in

from .executors import pool_outlives_a_home

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., Any]

interpreters: Any = pytest.importorskip(
    "concurrent.interpreters", reason="Python has pools of interpreters since 3.14"
)
futures: Any = pytest.importorskip("concurrent.futures.interpreter")
Pool = futures.InterpreterPoolExecutor

UNSENT = "cannot be passed between interpreters"


def where() -> int:
    from concurrent import interpreters  # type: ignore[attr-defined]  # noqa: PLC0415

    number: int = interpreters.get_current().id
    return number


async def error_of(call: Any) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        await call
    return caught.value


def test_the_calls_of_all_homes_run_in_other_interpreters(io: IOThread):
    async def calls(pool: Any) -> set[int]:
        return set(await asyncio.gather(*(run_in(pool, where) for _ in range(20))))

    async def main() -> None:
        with Pool(2) as pool:
            here, there = await asyncio.gather(calls(pool), io.spawn(calls(pool)))
            assert where() not in here | there
            assert 1 <= len(here | there) <= 2

    homebound.run(main())


def test_homebound_in_another_interpreter():
    """The other interpreter has a home of its own, and knows nothing of this one."""

    def work() -> tuple[bool, int, str]:
        import asyncio  # noqa: PLC0415

        import homebound  # noqa: PLC0415

        async def main() -> int:
            task = asyncio.create_task(asyncio.sleep(0, 5))
            assert homebound.current_context() is homebound.main_context() is not None
            return await task

        async def thread() -> int:
            return await homebound.to_worker(abs, -5)

        homeless = homebound.current_context() is homebound.main_context() is None
        result = homebound.run(main())
        try:
            homebound.run(thread())
        except RuntimeError as error:  # a later Python may allow it
            return homeless, result, str(error)
        return homeless, result, "daemon threads work"

    async def main() -> None:
        with Pool(1) as pool:
            homeless, result, threads = await run_in(pool, work)
            assert homeless
            assert result == 5
            assert "daemon threads" in threads
            assert homebound.current_context() is homebound.main_context() is not None

    homebound.run(main())


# Errors.


def test_an_exception_comes_back(run: Run):
    async def main() -> None:
        with Pool(1) as pool:
            error = await error_of(run_in(pool, int, "x"))
            assert isinstance(error, ValueError)
            assert isinstance(error.__cause__, interpreters.ExecutionFailed)
            assert not hasattr(error, "__notes__")

    run(main())


def test_an_exception_that_cannot_come_back(run: Run):
    """ExecutionFailed has its text, and the traceback over there."""

    def fail() -> None:
        class OddError(Exception):
            pass

        raise OddError("over there")

    async def main() -> None:
        with Pool(1) as pool:
            error = await error_of(run_in(pool, fail))
            assert type(error) is interpreters.ExecutionFailed
            assert "OddError: over there" in str(error)
            assert "in fail" in str(error)
            assert await run_in(pool, abs, -5) == 5

    run(main())


def test_what_cannot_be_shared_is_refused_with_the_name_of_the_function(run: Run):
    text = "mine"

    def closure() -> str:
        return text

    async def main() -> None:
        with Pool(1) as pool:
            calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
                (closure, ()),
                (len, (threading.Lock(),)),
                (len, ([asyncio.current_task()],)),
                (threading.Lock, ()),  # its result
            ]
            for fn, argument in calls:
                error = await error_of(run_in(pool, fn, *argument))
                assert type(error) is interpreters.NotShareableError
                [note] = error.__notes__
                assert note.startswith(f"run_in: {fn!r}, ")
                assert UNSENT in note
            assert await run_in(pool, sum, [1, 2]) == 3

    run(main())


def test_a_function_of_the_main_script():
    """Refused if it uses the script's globals: Python says only "args not shareable"."""
    program = """
    import homebound
    from concurrent.futures import InterpreterPoolExecutor

    factor = 2

    def double(number):
        return factor * number

    async def main():
        with InterpreterPoolExecutor(1) as pool:
            await homebound.run_in(pool, double, 4)

    if __name__ == "__main__":
        homebound.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    assert last.startswith("run_in: <function double at ")
    assert UNSENT in last
    assert "those of __main__" in last


def test_a_type_error_of_the_function_has_no_note(run: Run):
    async def main() -> None:
        with Pool(1) as pool:
            error = await error_of(run_in(pool, len, 5))  # type: ignore[arg-type]
            assert type(error) is TypeError
            assert not hasattr(error, "__notes__")

    run(main())


# Ends.


def test_an_initializer_fails(io: IOThread, caplog: pytest.LogCaptureFixture):
    """The pool is broken: each waiting task gets the error, at any home, and each later one."""

    async def main() -> None:
        with Pool(1, initializer=int, initargs=["x"]) as pool:
            calls = [run_in(pool, abs, -1), io.spawn(run_in(pool, abs, -2)), run_in(pool, abs, -3)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(each) for each in outcomes} == {futures.BrokenInterpreterPool}
            assert isinstance(outcomes[0], BrokenExecutor)
            await error_of(run_in(pool, abs, -1))

    homebound.run(main())
    assert "Exception in initializer" in caplog.text


def test_an_interpreter_closed_behind_the_pool(io: IOThread, monkeypatch: pytest.MonkeyPatch):
    """Each waiting task gets the error, at any home; and the pool can be shut down."""
    unseen: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda told: unseen.append(told.exc_type))

    async def main() -> None:
        with Pool(1) as pool:
            number = await run_in(pool, where)
            [mine] = [each for each in interpreters.list_all() if each.id == number]
            mine.close()
            calls = [run_in(pool, abs, -1), io.spawn(run_in(pool, abs, -2)), run_in(pool, abs, -3)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(each) for each in outcomes} == {interpreters.InterpreterNotFoundError}

    homebound.run(main())
    assert unseen == [interpreters.InterpreterNotFoundError]  # the pool's thread closes it again


def test_an_interpreter_at_work_cannot_be_closed(held_job: Callable[[], Any]):
    async def main() -> None:
        first = held_job()
        with Pool(1) as pool:
            number = await run_in(pool, where)
            [mine] = [each for each in interpreters.list_all() if each.id == number]
            working = asyncio.create_task(run_in(pool, *first.job))
            await first.begun()
            with pytest.raises(interpreters.InterpreterError):
                mine.close()
            first.end()
            assert await working == b""

    homebound.run(main())


def test_a_home_that_ends_while_an_interpreter_works(held_job: Callable[[], Any]):
    with Pool(1) as pool:
        pool_outlives_a_home(pool, held_job())
