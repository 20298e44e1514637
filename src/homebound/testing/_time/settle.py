"""Waiting until everybody is idle: "let everything happen that can, then look"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .watch import Request, watch

if TYPE_CHECKING:
    from ..._core.context import AioContext


async def settle(
    *contexts: AioContext,
    timeout: float | None = 10.0,  # noqa: ASYNC109  (of real time: asyncio.timeout is not)
) -> None:
    """Wait until `contexts`, by default all that run, are idle.

    A context is idle when it has nothing ready and sleeps, until a timer or event at most, with no
    job of its workers in flight; and nothing may be on its way between contexts, by mailbox or by
    socket. The caller counts as asleep. Under a virtual clock, time stands until this returns.

    Raises TimeoutError, naming what is busy, after `timeout` seconds of real time. Plain threads,
    foreign loops and other processes are not seen.

    >>> import asyncio, homebound
    >>> from homebound.testing import settle
    >>> async def main(io):
    ...     seen = []
    ...     io.context.call_soon(seen.append, "there")
    ...     await settle()
    ...     return seen
    >>> with homebound.IOThread() as io:
    ...     homebound.run(main(io))
    ['there']

    Called from: task.
    """
    request = Request(contexts or None, timeout)
    watch.ask(request)
    try:
        await request.served.wait()
    finally:
        watch.withdraw(request)
    _check(request, timeout)


def settle_sync(*contexts: AioContext, timeout: float | None = 10.0) -> None:
    """`settle` in this thread. A home's loop keeps turning meanwhile, as in `block_on`.

    >>> import homebound
    >>> from homebound.testing import settle_sync
    >>> with homebound.IOThread() as io:
    ...     seen = []
    ...     io.context.call_soon(seen.append, "there") and None
    ...     settle_sync()
    ...     seen
    ['there']

    Called from: any thread.
    """
    request = Request(contexts or None, timeout)
    watch.ask(request)
    try:
        request.served.wait_sync()
    finally:
        watch.withdraw(request)
    _check(request, timeout)


def _check(request: Request, timeout: float | None) -> None:
    if request.error is not None:
        raise request.error
    if request.busy is not None:
        message = f"settle: not idle after {timeout} s: {request.busy}"
        raise TimeoutError(message)
