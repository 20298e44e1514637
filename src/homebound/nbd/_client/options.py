"""The arguments of NBDDisk.connect: checked, and followed."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from ..._os.counts import check_count, check_limit
from .._protocol.wire import TransmissionFlag
from .dial import CONTEXT
from .uri import Target, parse_uri

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from .client import Client
    from .dial import Link


def target_of(
    place: str | socket.socket | int, export: str | None, tls: ssl.SSLContext | None
) -> Target:
    """Return where to connect. Raises URIError, ValueError, TypeError."""
    if isinstance(place, str):
        target = parse_uri(place)
    elif isinstance(place, socket.socket):
        target = Target(f"socket {place.fileno()}", sock=place)
    elif type(place) is int:
        try:
            target = Target(f"socket {place}", sock=socket.socket(fileno=place))
        except OSError as error:
            message = f"{place} is no descriptor of a socket; a port stands in an NBD URI"
            raise OSError(error.errno, f"{error.strerror}: {message}") from error
    else:
        raise TypeError(
            f"NBDDisk.connect takes an NBD URI, a connected socket or its descriptor, got {place!r}"
        )
    if export is not None:
        if not isinstance(export, str):
            raise TypeError(f"export is {export!r}; it must be the name of one")
        target = target.with_export(export)
    return target if tls is None else replace(target, tls=True, context=tls)


def check_options(
    connections: int, reconnect_delay: float, open_timeout: float, request_timeout: float | None
) -> None:
    """Raise ValueError for numbers that mean nothing, TypeError for what is none."""
    check_count("connections", connections, 1)
    for name, value in (("reconnect_delay", reconnect_delay), ("open_timeout", open_timeout)):
        check_limit(name, value)
        if value < 0:
            raise ValueError(f"{name} is {value}; it must be 0 or more seconds")
    if request_timeout is not None:
        check_limit("request_timeout", request_timeout)
        if request_timeout <= 0:
            raise ValueError(
                f"request_timeout is {request_timeout}; it must be more than 0 seconds"
            )


def names_of(meta: Sequence[str]) -> list[str]:
    """Return the metadata contexts to ask for. Raises TypeError for what are no names."""
    if isinstance(meta, str):
        raise TypeError(f"meta is {meta!r}; it must be a sequence of names: ({meta!r},)")
    for name in meta:
        if not isinstance(name, str):
            raise TypeError(f"meta has {name!r}; it must be a sequence of names")
    return list(dict.fromkeys((CONTEXT, *meta)))


async def open_links(client: Client, connections: int, open_timeout: float) -> list[Link]:
    """Make the first connection, and then the others, if the server supports them."""
    links = [await client.open(open_timeout)]
    if not links[0].export.flags & TransmissionFlag.CAN_MULTI_CONN:
        return links
    tasks = [asyncio.ensure_future(client.open(open_timeout)) for _ in range(connections - 1)]
    try:
        if tasks:
            await asyncio.wait(tasks)
        links += [task.result() for task in tasks]
    except BaseException:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(outcome, BaseException):
                outcome.close()
        links[0].close()
        raise
    return links
