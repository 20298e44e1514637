"""Latencies, counted in buckets that are less than two percent wide."""

from __future__ import annotations

_FINE = 7  # bits of a value that are kept: 128 steps in each power of two
_STEPS = 1 << _FINE


class Latencies:
    """The latencies of any number of requests, in a few kilobytes.

    >>> from homebound.cli._latency import Latencies
    >>> latencies = Latencies()
    >>> for microseconds in range(1, 101):
    ...     latencies.add(microseconds / 1e6)
    >>> round(latencies.percentile(50) * 1e6), round(latencies.percentile(90) * 1e6)
    (50, 90)
    """

    def __init__(self) -> None:
        self.count: int = 0
        self.longest: float = 0.0  # seconds
        self._sum = 0.0
        self._buckets: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """Count one."""
        self.count += 1
        self._sum += seconds
        self.longest = max(self.longest, seconds)
        value = int(seconds * 1e9)
        shift = max(0, value.bit_length() - _FINE)
        bucket = shift * _STEPS + (value >> shift)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    @property
    def mean(self) -> float:
        """The mean in seconds, 0 without any."""
        return self._sum / self.count if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """Return a latency, in seconds, that so many percent do not exceed; 0 without any."""
        rest = self.count * percent / 100
        for bucket in sorted(self._buckets):
            rest -= self._buckets[bucket]
            if rest <= 0:
                return min(self.longest, _top_of(bucket))
        return self.longest


def _top_of(bucket: int) -> float:
    shift, value = divmod(bucket, _STEPS)
    return ((value + 1) << shift) / 1e9
