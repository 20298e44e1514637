"""Errors that end a command with a line on standard error and status 1."""

from __future__ import annotations


class CommandError(Exception):
    """A failure of the command; the text says what, where and why."""


class OutputError(CommandError):
    """A failure to write to standard output, on which a script may wait."""


class ServeError(CommandError):
    """A failure of the server outside of `homebound.nbd`."""
