"""The command line: `homebound serve`. It needs the `cli` extra (click and rich)."""

from __future__ import annotations

import sys


def main() -> None:
    """The `homebound` command.

    Called from: any thread.
    """
    try:
        from ._commands import homebound  # noqa: PLC0415  (its libraries are an extra)
    except ModuleNotFoundError as error:
        if error.name not in {"click", "rich"}:
            raise
        sys.exit(
            f"homebound: the command line needs {error.name}, which is not installed; "
            "install it with: pip install 'homebound[cli]'"
        )
    homebound()
