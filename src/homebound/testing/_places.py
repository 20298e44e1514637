"""Places where a test's work is done: plain threads, and loops of others in threads."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

T = TypeVar("T")

PATIENCE = 20.0  # seconds until a thread is taken to hang


class Threads:
    """Plain threads, homes of no context, that end with the `with`. Each one's outcome is a future.

    Leaving the `with` raises AssertionError if a thread hangs for `patience` seconds.

    >>> from homebound.testing import Threads
    >>> with Threads() as threads:
    ...     threads.start(sum, [1, 2, 3]).result()
    6

    Called from: any thread.
    """

    def __init__(self, *, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._threads: list[threading.Thread] = []

    def start(self, fn: Callable[..., T], /, *args: Any) -> Future[T]:
        """Call `fn(*args)` in a new thread.

        Called from: any thread.
        """
        future: Future[T] = Future()

        def body() -> None:
            try:
                future.set_result(fn(*args))
            except BaseException as error:  # noqa: BLE001  (the future's reader gets it)
                future.set_exception(error)

        thread = threading.Thread(target=body, name=f"plain{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return future

    def alive(self) -> list[threading.Thread]:
        """Return the threads that have not ended.

        Called from: any thread.
        """
        return [thread for thread in self._threads if thread.is_alive()]

    def join(self) -> None:
        """Wait for all. Raises AssertionError if one hangs.

        Called from: any thread.
        """
        for thread in self._threads:
            thread.join(self._patience)
        if self.alive():
            raise AssertionError(f"these threads hang: {self.alive()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.join()


class LoopThread:
    """An asyncio loop of others, running in a thread of its own until the `with` ends.

    >>> import asyncio
    >>> from homebound.testing import LoopThread
    >>> with LoopThread(asyncio.SelectorEventLoop) as thread:
    ...     thread.call(asyncio.sleep(0, "done")).result()
    'done'

    Called from: any thread.
    """

    def __init__(
        self, factory: Callable[[], asyncio.AbstractEventLoop], *, name: str | None = None
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = factory()
        self.thread: threading.Thread = threading.Thread(
            target=self._live, name=name or f"loop of {type(self.loop).__module__}", daemon=True
        )
        self.thread.start()

    def _live(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def call(self, coro: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine there.

        Called from: any thread.
        """
        return asyncio.run_coroutine_threadsafe(coro, self.loop)

    def stop(self) -> None:
        """Run no more; what waits there, waits.

        Called from: any thread.
        """
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(PATIENCE)
            if self.thread.is_alive():
                raise AssertionError(f"{self.thread} hangs")

    def close(self) -> None:
        """Stop, and close the loop, with whatever tasks are left. No-op a second time.

        Called from: any thread.
        """
        if not self.loop.is_closed():
            self.stop()
            self.loop.close()

    def end(self) -> None:
        """Cancel its tasks, wait for them, and close the loop. The end of the `with`.

        Called from: any thread.
        """
        if self.thread.is_alive():
            self.call(_cancel_all()).result(PATIENCE)
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def other_loops() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Loop factories that are not homebound's, by name: asyncio's, and uvloop's where installed.

    Called from: any thread.
    """
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "asyncio": asyncio.SelectorEventLoop
    }
    try:
        import uvloop  # noqa: PLC0415  (optional)
    except ImportError:
        return factories
    factories["uvloop"] = uvloop.new_event_loop
    return factories
