"""The mean time of a script's calls, and the number of workers that should share them.

Short calls are best made one after the other in one worker: each hand-over costs more than they do,
and the GIL lets only one run. Calls that wait, for a server or a device, overlap.
"""

from __future__ import annotations

from ..._os.clock import perf_counter

_LONG = 0.0002  # seconds; a hand-over costs less than a fifth of it
_MANY = 16  # as many as nbdkit's threads for a connection
_WEIGHT = 0.1  # of the last call, in the mean


class Patience:
    """The mean time of a call; threads may lose each other's additions to it.

    It stays zero, which means one worker, while no call is timed: only calls that may overlap are.
    """

    __slots__ = ("_mean",)

    def __init__(self) -> None:
        self._mean = 0.0

    @property
    def slices(self) -> int:
        """The number of workers."""
        return _MANY if self._mean > _LONG else 1

    def begin(self) -> float:
        """Begin a call; return what `end` takes."""
        return perf_counter()

    def end(self, began: float) -> None:
        """End a call. One that has failed need not be counted."""
        self._mean += (perf_counter() - began - self._mean) * _WEIGHT
