"""`--run`: a command that uses the server; the server stops when it ends."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .._workers.to_worker import to_worker
from ._announce import uri_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._announce import Announced

_SHELL = "/bin/sh"
_PATIENCE = 5.0  # seconds between SIGTERM and SIGKILL
_BY_SIGNAL = 128  # added to its number by shells
# Python ignores these two; its child processes must not.
_DEFAULT = (signal.SIGPIPE, signal.SIGXFSZ)


def variables(
    uris: Sequence[str], unix: str | None, exports: Sequence[Announced]
) -> dict[str, str]:
    """Return uri, unixsocket, port, size and exportname of the first export, for the command."""
    first = exports[0]
    uri = uri_of(uris[0], first.name) if uris else ""
    port = None if unix is not None else urlsplit(uri).port
    return {
        "uri": uri,
        "unixsocket": unix or "",
        "port": str(port or ""),
        "size": "" if first.size is None else str(first.size),
        "exportname": first.name,
    }


async def run_beside(
    command: str, environment: dict[str, str], blocked: set[int], stopped: asyncio.Event
) -> int:
    """Run the shell command until it ends or `stopped` is set; return its status, as shells do.

    `blocked` is the signal mask that it starts with.
    """
    process = os.posix_spawn(  # noqa: ASYNC221  (it returns before the shell has begun)
        _SHELL,
        [_SHELL, "-c", command],
        {**os.environ, **environment},
        setsigmask=blocked,
        setsigdef=_DEFAULT,
    )
    ended = asyncio.ensure_future(to_worker(os.waitpid, process, 0))
    stopping = asyncio.ensure_future(stopped.wait())
    try:
        await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
        for number in (signal.SIGTERM, signal.SIGKILL):
            if ended.done():
                break
            os.kill(process, number)
            await asyncio.wait((ended,), timeout=_PATIENCE)  # last: the jump rule
    finally:
        stopping.cancel()
    code = os.waitstatus_to_exitcode((await ended)[1])
    return code if code >= 0 else _BY_SIGNAL - code
