"""Measurement and report, shared by all files here, which say only what to measure.

A case has variants that do the same work: ours, and the peers'. Each round runs every variant once,
in turn (A B C A B C ...), so that a machine that slows down slows all of them. A ratio is taken
within a round, and the median of these paired ratios is reported.

A variant is called with the number of operations, and returns seconds for one: a mean or, where
latency counts, one value an operation (then the medians are compared, and p99 shown). It sets up
its loop and threads outside of what it times.

Garbage collection is the same for all: everything is collected before a sample, and then it is on
as in any program, because the garbage of an operation is part of its cost. `--no-gc` switches it
off during the samples and shows the rest alone.
"""

from __future__ import annotations

import gc
import os
import statistics
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Sample = float | list[float]
    Variant = Callable[[int], Sample]

OURS = "homebound"
WARM_UP = 10  # a warm-up does this part of a sample's work


@dataclass(frozen=True)
class Target:
    """The target of a ratio: so many times as fast as the peer, or such a share of its time."""

    peer: str
    at_least: float | None = None  # times the peer's operations per second
    at_most: float | None = None  # of the peer's time
    ours: str = OURS

    def met(self, share: float) -> bool:
        """Tell whether our time divided by the peer's meets the target."""
        limit = 1 / self.at_least if self.at_least is not None else self.at_most
        return limit is None or share <= limit

    def __str__(self) -> str:
        if self.at_least is not None:
            return f"at least {self.at_least:g}x"
        return f"at most {self.at_most:g}"


@dataclass(frozen=True)
class Case:
    """Variants of one piece of work, and the targets of their ratios."""

    name: str
    what: str
    variants: Mapping[str, Variant]
    n: int  # operations in a sample
    targets: tuple[Target, ...] = ()
    pinned: bool = False  # to one core: for latency, which depends on where threads run


@dataclass
class Row:
    """One variant's samples, in seconds an operation; for latencies the p50."""

    samples: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        """Add one round's sample."""
        if isinstance(sample, float):
            self.samples.append(sample)
            return
        ordered = sorted(sample)
        self.samples.append(ordered[len(ordered) // 2])
        self.p99.append(ordered[len(ordered) * 99 // 100])


@dataclass
class Ratio:
    """The ratio of our time to one peer's: the median over the rounds."""

    ours: str
    peer: str
    share: float  # our time / the peer's time
    low: float  # the smallest and the largest of the rounds
    high: float
    target: str = ""
    met: bool | None = None


@dataclass
class Result:
    """A case's samples and ratios."""

    name: str
    what: str
    pinned: bool
    n: int
    rows: dict[str, Row]
    ratios: list[Ratio]

    def as_json(self) -> dict[str, Any]:
        """Return the samples and their ratios for the JSON file."""
        variants = {
            name: {
                "median_s": statistics.median(row.samples),
                "best_s": min(row.samples),
                **({"p99_s": statistics.median(row.p99)} if row.p99 else {}),
                "samples_s": row.samples,
            }
            for name, row in self.rows.items()
        }
        return {
            "name": self.name,
            "what": self.what,
            "pinned": self.pinned,
            "n": self.n,
            "variants": variants,
            "ratios": [asdict(ratio) for ratio in self.ratios],
        }


def measure(case: Case, *, rounds: int, scale: float = 1.0, no_gc: bool = False) -> Result:
    """Run a case: warm-up, then `rounds` rounds. `scale` reduces the work, to try it out.

    One round only tries it out, without a warm-up.
    """
    n = max(1, int(case.n * scale))
    rows = {name: Row() for name in case.variants}
    with _pinned(case.pinned):
        for variant in case.variants.values() if rounds > 1 else ():
            _sample(variant, max(1, n // WARM_UP), no_gc=no_gc)
        for _ in range(rounds):
            for name, variant in case.variants.items():
                rows[name].add(_sample(variant, n, no_gc=no_gc))
    return Result(case.name, case.what, case.pinned, n, rows, _ratios(case, rows))


def _sample(variant: Variant, n: int, *, no_gc: bool) -> Sample:
    gc.collect()
    if not no_gc:
        return variant(n)
    gc.disable()
    try:
        return variant(n)
    finally:
        gc.enable()


def _ratios(case: Case, rows: dict[str, Row]) -> list[Ratio]:
    """Return the ratio of each target, then ours against every other peer for information."""
    wanted = [(t.ours, t.peer, t) for t in case.targets if t.ours in rows and t.peer in rows]
    named = {(ours, peer) for ours, peer, _ in wanted}
    rest = [(OURS, peer, None) for peer in rows if not peer.startswith(OURS)]
    ratios = []
    for ours, peer, target in wanted + [each for each in rest if each[:2] not in named]:
        if ours not in rows:
            continue
        pairs = zip(rows[ours].samples, rows[peer].samples, strict=True)
        shares = [mine / theirs for mine, theirs in pairs]
        ratio = Ratio(ours, peer, statistics.median(shares), min(shares), max(shares))
        if target is not None:
            ratio.target, ratio.met = str(target), target.met(ratio.share)
        ratios.append(ratio)
    return ratios


@contextmanager
def _pinned(pinned: bool) -> Iterator[None]:  # noqa: FBT001
    """Run on one core: this thread, and all threads that it starts meanwhile."""
    if not pinned or not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})  # the first one serves the machine's interrupts
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


# --- the report --------------------------------------------------------------------------------

_UNITS = ((1e-6, 1e9, "ns"), (1e-3, 1e6, "us"), (1.0, 1e3, "ms"))


def duration(seconds: float) -> str:
    """Format seconds in a suitable unit."""
    for below, factor, unit in _UNITS:
        if seconds < below:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def report(result: Result) -> str:
    """Format a case as text: each variant's time, and the ratios beside their targets."""
    cores = "one core" if result.pinned else "all cores"
    lines = [f"{result.name} ({cores}, n={result.n}): {result.what}"]
    for name, row in result.rows.items():
        took = statistics.median(row.samples)
        each = f"  {name:34} {duration(took):>9}  {1 / took:>12,.0f}/s"
        each += f"  best {duration(min(row.samples))}"
        if row.p99:
            each += f"  p99 {duration(statistics.median(row.p99))}"
        lines.append(each)
    for ratio in result.ratios:
        verdict = "" if ratio.met is None else "  ok" if ratio.met else "  MISSED"
        wanted = f"  wanted: {ratio.target}{verdict}" if ratio.target else ""
        lines.append(
            f"    {ratio.ours} / {ratio.peer}: {ratio.share:.3f} of its time "
            f"({ratio.low:.3f}-{ratio.high:.3f}), {1 / ratio.share:.2f}x as fast{wanted}"
        )
    return "\n".join(lines)
