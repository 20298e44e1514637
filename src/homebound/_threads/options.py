"""The options that IOThread and Background have in common: a name, and what makes the loop."""

from __future__ import annotations

from .._core.coroutines import shown


def check_options(what: str, name: object, loop_factory: object) -> None:
    """Raise TypeError for what is no name of a thread, or no factory of loops.

    Called from: any thread.
    """
    if name is not None and not isinstance(name, str):
        hint = f"; IOThreadPool({name}) makes {name} threads" if isinstance(name, int) else ""
        message = f"{what}: the name is {shown(name)}; it must be a str{hint}"
        raise TypeError(message)
    if loop_factory is not None and not callable(loop_factory):
        message = (
            f"{what}: loop_factory is called to make the loop, as asyncio.new_event_loop is; got "
            f"{shown(loop_factory)}"
        )
        raise TypeError(message)
