"""distributed: run_in on a Dask cluster of two processes, of which one is killed at work.

Each scenario is a program of its own: distributed keeps a thread and descriptors as long as the
process lives. The job of most is to read a FIFO: it begins when the program opens it for writing,
and ends when the program closes it; by its files the program knows which process has it.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Scenario = Callable[..., None]

pytest.importorskip("distributed")

EXAMPLE = Path(__file__).parents[2] / "examples" / "run_elsewhere.py"

BEGIN = """
import asyncio, itertools, logging, multiprocessing, os, signal, sys, tempfile, threading
from pathlib import Path

import dask
from distributed import Client, KilledWorker, LocalCluster

import homebound
from homebound import current_context, run_in, to_worker

def square(number):
    return number * number

def hold(gate):
    gate.with_suffix(f".{os.getpid()}").touch()
    gate.read_bytes()
    return os.getpid()

class Gate:
    numbers = itertools.count()

    def __init__(self):
        self.path = folder / f"gate{next(self.numbers)}"
        os.mkfifo(self.path)
        self.job = (hold, self.path)

    async def begun(self):
        # The processes that have it, or have had it.
        self._end = await to_worker(self.path.open, "wb")
        self.path.unlink()  # the next finds another: the last may not be dead yet
        os.mkfifo(self.path)
        return {int(each.suffix[1:]) for each in folder.glob(f"{self.path.name}.*")}

    def end(self):
        self._end.close()

async def outcome(waiting):
    # A hang is a failure that says what hangs.
    done, _ = await asyncio.wait([waiting], timeout=30)
    assert done, waiting
    try:
        return await waiting
    except BaseException as error:
        return error
"""
END = """
if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp(dir="."))
    settings = {
        "distributed.scheduler.allowed-failures": FAILURES,
        # A job stays where it waits, however soon a new worker stands in for the one killed.
        "distributed.scheduler.work-stealing": False,
    }
    with (
        dask.config.set(settings),
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1",
                     dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL) as cluster,
        Client(cluster) as client,
        homebound.IOThread("io") as io,
    ):
        homebound.run(main(client.get_executor(pure=False)))
    assert not multiprocessing.active_children()
    # Some of distributed's threads are left, whose work is done; none of ours.
    names = [each.name for each in threading.enumerate()]
    assert not [name for name in names if name.startswith(("io", "main-worker"))], names
    print("done")
"""


@pytest.fixture
def scenario(program: Callable[..., str]) -> Scenario:
    """`scenario(source, failures)` runs `main(executor)` of a program that has a cluster."""

    def run_it(source: str, failures: int = 3) -> None:
        source = f"{BEGIN}\nFAILURES = {failures}\n{textwrap.dedent(source)}{END}"
        assert program(source).splitlines()[-1] == "done"

    return run_it


def test_results_exceptions_and_homes(scenario: Scenario):
    scenario("""
    async def at_home(executor, number):
        here = threading.current_thread(), current_context()
        assert await run_in(executor, square, number) == number * number
        assert here == (threading.current_thread(), current_context())

    async def traveller(executor, number):
        async with homebound.on(io.context):
            await at_home(executor, number)
        await at_home(executor, number)

    async def main(executor):
        await asyncio.gather(
            *(at_home(executor, number) for number in range(50)),
            *(io.spawn(at_home(executor, number)) for number in range(50)),
            *(traveller(executor, number) for number in range(20)),
        )
        for waiting in (asyncio.create_task(run_in(executor, int, "x")),
                        io.spawn(run_in(executor, int, "x"))):
            error = await outcome(waiting)
            assert isinstance(error, ValueError) and "invalid literal" in str(error), error
        try:
            await run_in(client, square, 2)
        except TypeError as error:
            assert "client.get_executor()" in str(error)
        else:
            raise AssertionError("a client is no executor")
    """)


def test_a_worker_killed_mid_job(scenario: Scenario):
    """The other process does the job, and the waiting task does not notice."""
    scenario("""
    async def main(executor):
        for spawn in (asyncio.create_task, io.spawn):
            first, second = Gate(), Gate()
            tasks = [spawn(run_in(executor, *gate.job)) for gate in (first, second)]
            (victim,), (survivor,) = await asyncio.gather(first.begun(), second.begun())
            assert victim != survivor
            beside = asyncio.gather(*(run_in(executor, square, number) for number in range(20)))
            os.kill(victim, signal.SIGKILL)
            first.end()
            second.end()
            assert await first.begun() == {victim, survivor}
            first.end()
            assert await outcome(tasks[1]) == survivor
            assert await outcome(tasks[0]) == survivor
            assert await outcome(beside) == [number * number for number in range(20)]
            await to_worker(client.wait_for_workers, 2)
    """)


def test_a_job_that_may_not_fail(scenario: Scenario):
    """With no failure allowed, the waiting task gets the error; the others go on."""
    scenario("""
    async def main(executor):
        for spawn in (asyncio.create_task, io.spawn):
            gate = Gate()
            task = spawn(run_in(executor, *gate.job))
            (victim,) = await gate.begun()
            os.kill(victim, signal.SIGKILL)
            error = await outcome(task)
            assert isinstance(error, KilledWorker), error
            gate.end()
            assert await run_in(executor, square, 3) == 9
            await to_worker(client.wait_for_workers, 2)
    """, 0)  # fmt: skip


def test_cancelled(scenario: Scenario):
    """A call that waits for a process is not made; one that runs goes on without its task."""
    scenario("""
    def known(dask_worker):
        return len(dask_worker.state.tasks)

    async def main(executor):
        gates = [Gate(), Gate()]
        busy = [asyncio.create_task(run_in(executor, *gate.job)) for gate in gates]
        _, (process,) = [await gate.begun() for gate in gates]
        waiting = [spawn(run_in(executor, hold, folder / "never"))
                   for spawn in (asyncio.create_task, io.spawn)]
        while len(cluster.scheduler.tasks) < 4:  # it would not find what it has not unpacked yet
            await asyncio.sleep(0.01)
        busy[0].cancel()
        for task in waiting:
            task.cancel()
        for task in busy[:1] + waiting:
            assert isinstance(await outcome(task), asyncio.CancelledError), task
        # The request goes by the scheduler; then each worker has its one job only.
        while sum((await to_worker(client.run, known)).values()) > 2:
            await asyncio.sleep(0.01)
        for gate in gates:
            gate.end()
        assert await outcome(busy[1]) == process
        assert await run_in(executor, square, 3) == 9
        assert not list(folder.glob("never*"))
    """)


@pytest.mark.parametrize("ends", ["client", "cluster", "executor"])
def test_it_ends_while_tasks_wait(scenario: Scenario, ends: str):
    scenario(f"""
    async def main(executor):
        gates = [Gate(), Gate()]
        here = asyncio.create_task(run_in(executor, *gates[0].job))
        there = io.spawn(run_in(executor, *gates[1].job))
        for gate in gates:
            await gate.begun()
        end = {{
            "client": client.close,
            "cluster": cluster.close,
            "executor": lambda: executor.shutdown(wait=False),
        }}
        await to_worker(end[{ends!r}])
        for task in (here, there):
            assert isinstance(await outcome(task), asyncio.CancelledError), task
        try:
            await run_in(executor, square, 3)
        except Exception as error:
            assert "closed" in str(error) or "shutdown" in str(error), error
        else:
            raise AssertionError("it has ended")
        for gate in gates:
            gate.end()
    """)


@pytest.mark.parametrize("arguments", [[], ["--kill"]], ids=["", "kill"])
def test_the_example(arguments: list[str]):
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", EXAMPLE, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    assert "in 32 blocks" in done.stdout
    assert ("killed process" in done.stdout) == bool(arguments)
