"""The command line: _group.py lists the commands. It needs the `cli` extra (click and rich)."""

from __future__ import annotations

import gc
import sys

from ._stdio import fill_standard_streams


def main() -> None:
    """Run the `homebound` command.

    Called from: any thread.
    """
    fill_standard_streams()
    gc.disable()  # until the command's modules are loaded: see _group.py
    try:
        status = _run()
    except KeyboardInterrupt:  # before the command has begun, or after it has ended
        status = 130
    finally:
        gc.enable()
    sys.exit(status)


def _run() -> int:
    try:
        from ._main import run_command  # noqa: PLC0415  (its libraries are an extra)

        return run_command()  # which loads more of them
    except ModuleNotFoundError as error:
        if error.name not in {"click", "rich"}:
            raise
        sys.exit(
            f"homebound: the command line needs {error.name}, which is not installed; "
            "install it with: pip install 'homebound[cli]'"
        )
