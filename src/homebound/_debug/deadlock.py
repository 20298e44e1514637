"""Deadlocks: rings of those who wait for each other, told so that it can be seen who is at fault.

Only what is certain is told. Left out: who waits with a timeout of his own, or below a timer that
will cancel him; a semaphore of which one holder gets on; a ring through one lock alone that was
taken by `acquire()`, because that is how a lock is used as a gate, which somebody else opens. What
nobody can know: whether somebody outside of the ring means to cancel one in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._aio.shapes import loop_kept_by, thread_frames
from .._core.big_lock import thread_name
from .._os.stacks import stack, task_stack
from .rings import NOTHING, Ring, proof, rings, stuck
from .timers import Timers
from .wait_graph import Frame, Held, Service, WaitGraph, describe, is_task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .rings import Needs, Node


@dataclass(frozen=True, slots=True)
class Deadlock:
    """A ring in one look. It is real if the next look shows the same."""

    ring: Ring
    proof: tuple[object, ...]

    def is_that(self, other: Deadlock) -> bool:
        """The same waits, not only the same who wait."""
        return len(self.proof) == len(other.proof) and all(map(_same, self.proof, other.proof))

    @property
    def idents(self) -> set[int]:
        """The threads in it."""
        return {node.ident for node, _ in self.ring if isinstance(node, (Frame, Service))}

    def __str__(self) -> str:
        """What each waits for, and who has it. The same for the same ring."""
        return "deadlock: " + "; ".join(
            f"{describe(node)} {way.how} {describe(way.node)}" for node, way in self.ring
        )

    def stacks(self) -> Iterator[str]:
        """Where each thread and each task in it stands, innermost call last."""
        frames = thread_frames()
        for ident in sorted(self.idents):
            yield f"thread {thread_name(ident)}:"
            yield from stack(frames.get(ident))
        for node, _ in self.ring:
            if is_task(node):
                yield f"{describe(node)}:"
                yield from task_stack(node)


def _same(one: object, other: object) -> bool:
    return one is other


def look(graph: WaitGraph | None = None) -> list[Deadlock]:
    """The rings of one moment."""
    if graph is None:
        graph = WaitGraph()
    left = stuck(graph.needs)
    if not left:
        return []
    left = stuck(_without_timed(graph, left))
    return [
        Deadlock(_turned(ring), proof(ring, left)) for ring in rings(left) if not _may_be_gate(ring)
    ]


def look_twice() -> list[Deadlock]:
    """Those that are certain."""
    first = look()
    if not first:
        return []
    second = look()
    return [each for each in second if any(each.is_that(before) for before in first)]


def _without_timed(graph: WaitGraph, left: dict[Node, Needs]) -> dict[Node, Needs]:
    """Who will be cancelled, or is let go by a timer, needs nobody."""
    loops: dict[int, Any] = {id(each.loop): each.loop for each in graph.contexts}
    loops |= {id(loop): loop for loop in map(loop_kept_by, filter(is_task, left))}
    limited = [call.subject for calls in graph.calls.values() for call in calls if call.timed]
    timers = Timers(loops.values(), limited)

    def ends(node: Node) -> bool:
        if isinstance(node, Held):
            return timers.touch(node.queue)
        return is_task(node) and timers.end(node)

    return {node: NOTHING if ends(node) else need for node, need in left.items()}


def _may_be_gate(ring: Ring) -> bool:
    locks = {id(node.queue): way for node, way in ring if isinstance(node, Held)}
    if len(locks) != 1:
        return False
    [way] = locks.values()
    record: Any = way.proof[0]
    return not record[1]


def _turned(ring: Ring) -> Ring:
    """Begun at the same node however it was found."""
    first = min(range(len(ring)), key=lambda index: describe(ring[index][0]))
    return ring[first:] + ring[:first]
