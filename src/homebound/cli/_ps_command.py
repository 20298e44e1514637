"""`homebound ps`, `pstree` and `top`, and their options."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from . import _ps
from ._began import Progress
from ._seen import read
from ._stdio import put
from ._types import TEXT

if TYPE_CHECKING:
    from collections.abc import Callable

_INTERVAL = 1.0  # seconds between two looks of top
_CLEAR = "\x1b[H\x1b[2J"

_HELP_WHERE = """

    WHERE is the number of a process, or the path of its socket: start the program with
    HOMEBOUND_TOP=path, or have it call homebound.debug.listen(path).
"""


def _command(help_text: str) -> Callable[[Callable[..., None]], click.Command]:
    """Return a decorator for a command that looks at a program."""

    def decorate(function: Callable[..., None]) -> click.Command:
        function = click.pass_context(function)
        function = click.option(
            "--json", "as_json", is_flag=True, help="Write each look as a line of JSON."
        )(function)
        function = click.option("--once", is_flag=True, help="Look once. ps and pstree always do.")(
            function
        )
        function = click.argument("where", metavar="WHERE", type=TEXT)(function)
        return click.command(help=help_text + _HELP_WHERE)(function)

    return decorate


@_command("Show the tasks of a running program: where they are at home, and what they wait for.")
def ps(ctx: click.Context, *, where: str, once: bool, as_json: bool) -> None:
    """Show the tasks."""
    del once
    ctx.ensure_object(Progress).began = True
    _put(read(where, with_tasks=True), _ps.tasks, as_json=as_json)


@_command("Show the tasks of a running program as a tree: below each the tasks that it awaits.")
def pstree(ctx: click.Context, *, where: str, once: bool, as_json: bool) -> None:
    """Show the tasks as a tree."""
    del once
    ctx.ensure_object(Progress).began = True
    _put(read(where, with_tasks=True), _ps.tree, as_json=as_json)


@_command("Show the homes of a running program and what they do, each second until Ctrl-C.")
def top(ctx: click.Context, *, where: str, once: bool, as_json: bool) -> None:
    """Show the homes."""
    ctx.ensure_object(Progress).began = True
    before = None
    try:
        while True:
            seen = read(where, with_tasks=False)
            if not as_json and not once and sys.stdout is not None and sys.stdout.isatty():
                put(_CLEAR)
            _put(seen, lambda seen: _ps.homes(seen, before), as_json=as_json)  # noqa: B023  (at once)
            if once:
                return
            before = seen
            time.sleep(_INTERVAL)
    except KeyboardInterrupt:
        return


def _put(seen: dict[str, Any], show: Callable[[dict[str, Any]], Any], *, as_json: bool) -> None:
    put(json.dumps(seen) if as_json else "\n".join(show(seen)))
