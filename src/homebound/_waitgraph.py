"""Who cannot go on before whom: threads that wait for each other are found by following them.

Looked at without stopping anything, so what one look shows may be a moment old here and newer
there. A cycle that is real is in every look from then on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._biglock import big_lock, thread_name
from ._task import Task
from ._wait import waits

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Frame:
    """A thread returns from what it is in."""

    ident: int

    def __str__(self) -> str:
        return f"thread {thread_name(self.ident)}"


@dataclass(frozen=True, slots=True)
class Service:
    """A home runs what is in its mailbox: it may do so inside a wait of its own."""

    ident: int

    def __str__(self) -> str:
        return f"the home in thread {thread_name(self.ident)}"


Node = Any  # a Frame, a Service or a Task


class WaitGraph:
    """The waits of one moment."""

    def __init__(self) -> None:
        self.owner = big_lock._owner
        self.queue = [waiter.ident for waiter in tuple(big_lock._waiters)]
        # Of each thread: what it waits for, innermost last.
        self.subjects: dict[int, list[object]] = {}
        for ident, _what, subject in waits():
            self.subjects.setdefault(ident, []).append(subject)

    def needs(self, node: Node) -> Iterator[tuple[str, Node]]:
        """What must happen before `node` can, each with how to say so."""
        if isinstance(node, Task):
            yield from self._task_needs(node)
        elif node.ident in self.queue:
            if self.owner is not None:
                yield "waits for the big lock, held by", Frame(self.owner)
        elif isinstance(node, Frame):
            subject = next(reversed(self.subjects.get(node.ident, ())), None)
            if isinstance(subject, Task) and not subject.done():
                yield "waits in block_on for", subject

    def _task_needs(self, task: Task[Any]) -> Iterator[tuple[str, Node]]:
        awaited = task._fut_waiter
        if isinstance(awaited, Task) and not awaited.done():
            yield "waits for", awaited
        home = task._home
        ident = None if home is None else home._home_ident
        if ident is None:
            return
        yield "is at home with", Service(ident)
        # Inside a block_on of its own, it goes on when those begun after that have returned.
        subjects = self.subjects.get(ident, [])
        if awaited is not None and any(subject is awaited for subject in subjects[:-1]):
            inner = subjects[-1]
            if isinstance(inner, Task) and inner is not awaited and not inner.done():
                yield "stands below a block_on for", inner

    def cycle(self) -> list[tuple[Node, str]]:
        """Some that wait for each other in a ring, each with how it waits; [] if none do."""
        finished: set[Node] = set()
        for ident in (*self.queue, *self.subjects):
            found = self._search(Frame(ident), finished)
            if found:
                return found
        return []

    def _search(self, start: Node, finished: set[Node]) -> list[tuple[Node, str]]:
        """Depth first; `path` is the way to where we are, with how each node waits for the next."""
        path: list[tuple[Node, str]] = [(start, "")]
        ways = [self.needs(start)]
        while ways:
            how, node = next(ways[-1], ("", None))
            if node is None:
                ways.pop()
                finished.add(path.pop()[0])
                continue
            path[-1] = (path[-1][0], how)
            on_path = [each for each, _ in path]
            if node in on_path:
                return path[on_path.index(node) :]
            if node not in finished:
                path.append((node, ""))
                ways.append(self.needs(node))
        return []


def describe(node: Node) -> str:
    """A node, for a report."""
    return f"task {node.get_name()!r}" if isinstance(node, Task) else str(node)
