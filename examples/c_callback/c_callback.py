"""Tasks that a C library's threads wake: one answer for a request, and a stream of values.

    python examples/c_callback/c_callback.py

It compiles sensor.c, beside it, into a temporary folder; that needs a C compiler ($CC, or cc).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import homebound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SOURCE = Path(__file__).with_name("sensor.c")
ON_VALUE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_double)


def build(folder: str) -> ctypes.CDLL:
    """Compile the library and load it."""
    library = Path(folder) / "sensor.so"
    compiler = os.environ.get("CC", "cc").split()
    options = ["-std=gnu11", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread"]
    subprocess.run([*compiler, *options, "-o", library, SOURCE], check=True)  # noqa: S603
    return ctypes.CDLL(str(library))


class Sensor:
    """The library, for tasks of any loop of homebound's."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    async def measure(self) -> float:
        """Measure once. The library cannot take a request back, so this is not cancelled."""
        return await asyncio.shield(homebound.create_task(self._measure()))

    async def _measure(self) -> float:
        task = homebound.current_task()
        assert task is not None
        answer: list[float] = []

        def on_value(_user: int, value: float) -> None:  # in the library's thread
            answer.append(value)
            task.wake()  # posted to the task's home: nothing of the task runs here

        callback = ON_VALUE(on_value)  # kept until the library has called it
        self._check(self._library.sensor_measure(callback, None))
        await homebound.suspend()
        return answer[0]

    @asynccontextmanager
    async def values(self) -> AsyncIterator[homebound.Queue[float]]:
        """Have the library call for as long as the block lasts, and put its values in a queue."""
        queue: homebound.Queue[float] = homebound.Queue()

        callback = ON_VALUE(lambda _user, value: queue.put_nowait(value))
        self._check(self._library.sensor_start(callback, None))
        try:
            yield queue
        finally:  # it waits for the library's thread, which may be in the callback
            await homebound.to_worker(self._library.sensor_stop)

    def _check(self, error: int) -> None:
        if error:
            raise OSError(error, os.strerror(error))


async def main(sensor: Sensor) -> None:
    """Use it in the main loop and in an I/O thread, at once."""
    async with homebound.IOThread("io0") as io:
        here, there = await asyncio.gather(sensor.measure(), io.spawn(sensor.measure()))
        print(f"one value each: {here} and {there}")
        assert here == there == 21.5  # noqa: PLR2004
    async with sensor.values() as queue:
        values = [await queue.get() for _ in range(100)]
    print(f"a stream: {len(values)} values from {min(values)} to {max(values)}")
    assert values[:3] == [20.0, 20.1, 20.2]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        homebound.run(main(Sensor(build(folder))))
