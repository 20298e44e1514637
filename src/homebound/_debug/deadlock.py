"""Deadlocks: cycles of tasks and threads that wait for each other, with what each waits for.

Only certain deadlocks are reported. Left out are: a wait with a timeout of its own, or below a
timer that will cancel it; a semaphore one of whose holders goes on; a cycle through a single lock
that was acquired by `acquire()`, because a lock that serves as a gate is, and another task opens
it. One thing cannot be known: whether a task outside the cycle is going to cancel one in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import is_
from typing import TYPE_CHECKING, Any

from .._aio.shapes import loop_kept_by, thread_frames
from .._core.big_lock import shown_thread
from .._os.stacks import stack, task_stack
from .cycles import NOTHING, Cycle, cycles, proof, stuck
from .private_state import waits_for_caller
from .timers import Timers
from .wait_graph import Frame, Held, Service, WaitGraph, describe, is_task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .cycles import Needs, Node


@dataclass(frozen=True, slots=True)
class Deadlock:
    """A cycle in one look. It is a deadlock if the next look shows the same one."""

    cycle: Cycle
    proof: tuple[object, ...]

    def is_that(self, other: Deadlock) -> bool:
        """Return True if these are the same waits, not only the same tasks and threads."""
        return len(self.proof) == len(other.proof) and all(map(is_, self.proof, other.proof))

    @property
    def idents(self) -> set[int]:
        """The idents of the threads in it."""
        return {node.ident for node, _ in self.cycle if isinstance(node, (Frame, Service))}

    def __str__(self) -> str:
        """Return a line with what each waits for and what holds that; equal for equal cycles."""
        line = "deadlock: " + "; ".join(
            f"{describe(node)} {edge.how} {describe(edge.node)}" for node, edge in self.cycle
        )
        return line + self._advice()

    def _advice(self) -> str:
        """Return what to do about a lock that is acquired again; nothing for other cycles."""
        locks = [node for node, _ in self.cycle if isinstance(node, Held)]
        others = [node for node, _ in self.cycle if not isinstance(node, Held)]
        if len(locks) != 1 or sum(not waits_for_caller(node) for node in others) != 1:
            return ""
        kind = type(locks[0].queue).__name__
        return f" (a {kind} is not recursive: its holder must not acquire it again)"

    def stacks(self) -> Iterator[str]:
        """Return the stack of each thread and each task in it, innermost call last."""
        frames = thread_frames()
        for ident in sorted(self.idents):
            yield f"thread {shown_thread(ident)}:"
            yield from stack(frames.get(ident))
        for node, _ in self.cycle:
            if is_task(node):
                yield f"{describe(node)}:"
                yield from task_stack(node)


def look(graph: WaitGraph | None = None) -> list[Deadlock]:
    """Find the cycles of one moment."""
    if graph is None:
        graph = WaitGraph()
    left = stuck(graph.needs)
    if not left:
        return []
    left = stuck(_without_timed(graph, left))
    found = [cycle for cycle in cycles(left) if not _may_be_gate(cycle)]
    return [Deadlock(_turned(cycle), proof(cycle, left)) for cycle in found]


def look_twice() -> list[Deadlock]:
    """Find the deadlocks: the cycles that two looks show."""
    first = look()
    if not first:
        return []
    second = look()
    return [each for each in second if any(each.is_that(before) for before in first)]


def _without_timed(graph: WaitGraph, left: dict[Node, Needs]) -> dict[Node, Needs]:
    """Return the needs, without those of nodes whose wait a timer will end."""
    loops: dict[int, Any] = {id(each.loop): each.loop for each in graph.contexts}
    loops |= {id(loop): loop for loop in map(loop_kept_by, filter(is_task, left))}
    limited = [call.subject for calls in graph.calls.values() for call in calls if call.timed]
    timers = Timers(loops.values(), limited)

    def ends(node: Node) -> bool:
        if isinstance(node, Held):
            return timers.touch(node.queue)
        return is_task(node) and timers.end(node)

    return {node: NOTHING if ends(node) else need for node, need in left.items()}


def _may_be_gate(cycle: Cycle) -> bool:
    locks = {id(node.queue): edge for node, edge in cycle if isinstance(node, Held)}
    if len(locks) != 1:
        return False
    [edge] = locks.values()
    record: Any = edge.proof[0]
    _holder, scoped, _watch = record
    return not scoped


def _turned(cycle: Cycle) -> Cycle:
    """Return the cycle begun at its first node by name, wherever the search began."""
    first = min(range(len(cycle)), key=lambda index: describe(cycle[index][0]))
    return cycle[first:] + cycle[:first]
