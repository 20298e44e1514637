"""The program's progress, which decides what an error of a stream means."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Progress:
    """The state of the program, as click's `obj`."""

    began: bool = False  # the command, after click has parsed its arguments
