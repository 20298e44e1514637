"""Errors that end a command with a line on standard error and status 1."""

from __future__ import annotations


class CommandError(Exception):
    """The command has failed; the text says what, where and why."""


class OutputError(CommandError):
    """Standard output takes nothing, so what a script waits for cannot be told."""


class ServeError(CommandError):
    """The server has not ended as it should."""
