"""The executors of a loop: the calls that its tasks have made there count as work of its context.

`homebound.testing` and deadlock reports ask what a context waits for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._aio.loop import InheritedLoop
from .served import made_for, runs_threads

if TYPE_CHECKING:
    import asyncio

    from .loop_context import LoopContext


class ExecutorLoop(InheritedLoop):
    """The part of a loop that has functions called in executors."""

    home: LoopContext  # see Loop

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Any, *args: Any
    ) -> asyncio.Future[Any]:
        """Do as asyncio's run_in_executor, and note that the context waits for an executor.

        The executor's thread works for this context meanwhile; see `served.py`.
        """
        chosen = self._default_executor if executor is None else executor
        if chosen is None or isinstance(chosen, self.thread_pools) or runs_threads(chosen):
            func = made_for(self.home, func)
        future = super().run_in_executor(executor, func, *args)
        away = self.home._away
        away.add(future)
        future.add_done_callback(away.discard)
        return future

    async def shutdown_default_executor(self, *args: Any, **timeout: Any) -> None:
        """Do as asyncio's shutdown_default_executor, then end the context's own workers."""
        self.home._away.add(self)  # asyncio starts a thread that waits for the executor's threads
        try:
            await super().shutdown_default_executor(*args, **timeout)
        finally:  # asyncio's own fails if it cannot start the thread that waits
            self.home._away.discard(self)
            await self.home._end_workers()
