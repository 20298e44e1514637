"""The command from its arguments to its exit status.

0: success. 1: failure; a line on standard error says what, where and why. 2: wrong usage; a line
says what is wrong.
"""

from __future__ import annotations

import sys

import click

from ._began import Progress
from ._errors import CommandError
from ._group import homebound
from ._stdio import discard_output, tell

_FAILED = 1
_WRONG_USE = 2
_INTERRUPTED = 130  # as shells report a program that Ctrl-C ended


def run_command() -> int:
    """Run the command that `sys.argv` names; return its exit status."""
    progress = Progress()
    try:
        return homebound.main(prog_name="homebound", standalone_mode=False, obj=progress) or 0
    except click.UsageError as error:
        return _explain(error)
    except click.ClickException as error:
        return _complain(error.format_message())
    except CommandError as error:
        return _complain(str(error))
    except click.Abort:
        return _INTERRUPTED
    except Exception as error:
        words = _words(error, progress)
        if words is None:
            raise
        return _complain(words)


def _complain(text: str) -> int:
    tell(f"homebound: {_one_line(text)}")
    return _FAILED


def _explain(error: click.UsageError) -> int:
    command = error.ctx.command_path if error.ctx is not None else _command_named()
    if error.ctx is not None and error.message == error.ctx.get_help():
        tell(error.message)  # a command without any argument
    else:
        text = _one_line(error.format_message()).removesuffix(".")
        tell(f"{command}: {text}; see {command} --help")
    return _WRONG_USE


def _command_named() -> str:
    """Return the command that the arguments name, for an error that click's parser raises."""
    path = ["homebound"]
    command: click.Group = homebound
    for argument in sys.argv[1:]:
        found = command.get_command(click.Context(command), argument)
        if found is None:
            break
        path.append(argument)
        if not isinstance(found, click.Group):
            break
        command = found
    return " ".join(path)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _words(error: Exception, progress: Progress) -> str | None:
    """Return a message for an error of a disk, of a server or of the system; None for others."""
    from ..block import DiskError  # noqa: PLC0415  (not for --help: see _group.py)
    from ..nbd import NBDError  # noqa: PLC0415

    if isinstance(error, (DiskError, NBDError)):
        return str(error)
    if not isinstance(error, OSError):
        return None
    words = error.strerror or str(error)
    if not progress.began:  # click was writing, the help for instance
        if sys.stdout is not None:
            discard_output(sys.stdout)
        return f"cannot write to standard output: {words}"
    return f"{error.filename!r}: {words}" if error.filename is not None else words
