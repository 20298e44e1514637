"""Which vCPUs run guest code now, and who has them all stopped.

A FIFO of those who want in: a vCPU that is about to run guest code (any number may at a time), or
one that wants all others out. Nobody overtakes, so neither side starves, and a storm of one kind
cannot keep the other waiting.

All of it, and the fields of a vCPU that other threads write, changes under one *guard*, a raw lock
held for a few lines and never while anybody is called or woken. So the argument is sequential: in
each region below the world is what the regions before left. What a region decides is told to the
sleepers after it; they look again under the guard, so a wake-up may be late or in vain, not wrong.

Invariants, true whenever the guard is free (`_check` asserts them in stress runs):

    owner is None or not running          exclusive means that nobody runs guest code
    cpu in running  =>  not cpu._paused or cpu.interrupt_requested
    ticket in queue =>  not ticket.granted, and a ticket to run belongs to a cpu not in running
    cpu in running, an exclusive ticket in queue  =>  cpu.interrupt_requested

A vCPU that must come out is told by `interrupt_requested`. That is cleared in one place, by the
grant that lets it run a new round (`_let_in`). Whoever wants it out sets it in a later region; or
has queued in an earlier one, behind it, and then the grant sets it: the round is let in to end at
its first look. So no request is lost between the two.

tests/model/vcpu.pml searches every interleaving of this and of the thread's waits.
"""

from __future__ import annotations

import _thread
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .thread import VCPUThread


class Ticket:
    """A place in the queue. Fields are written under the guard."""

    __slots__ = ("cpu", "exclusive", "fresh", "granted")

    def __init__(self, cpu: VCPUThread, *, exclusive: bool, fresh: bool = False) -> None:
        self.cpu = cpu
        self.exclusive = exclusive
        self.fresh = fresh  # a new round: what it was interrupted for so far, it is about to see
        self.granted = False


class Gate:
    """The one of a process. Methods take the guard unless they say otherwise."""

    checked = False  # a stress run sets it: assert the invariants at each change

    def __init__(self) -> None:
        self.guard = _thread.RLock()  # a finaliser may ask, anywhere
        self.cpus: set[VCPUThread] = set()  # started and not ended
        self.running: set[VCPUThread] = set()  # in guest code
        self.owner: Ticket | None = None  # of who runs exclusively
        self._queue: deque[Ticket] = deque()

    def enter(self, cpu: VCPUThread, *, fresh: bool) -> bool:
        """Let `cpu` run guest code, or queue it; True if it is in. Asked again, it only looks.

        Called from: the vCPU's thread.
        """
        with self.guard:
            if cpu in self.running:
                return True
            if cpu._must_stay_out():
                return False
            if cpu._entry is None:
                cpu._entry = Ticket(cpu, exclusive=False, fresh=fresh)
                self._queue.append(cpu._entry)
            let_in = self._serve()
            inside = cpu in self.running
        wake_all(let_in)
        return inside

    def worth_entering(self, cpu: VCPUThread) -> bool:
        """`enter` would do something. Called from: the vCPU's thread."""
        with self.guard:
            return cpu in self.running or (cpu._entry is None and not cpu._must_stay_out())

    def is_out(self, cpu: VCPUThread) -> bool:
        """It runs no guest code. Called from: any thread."""
        with self.guard:
            return cpu not in self.running

    def leave(self, cpu: VCPUThread) -> bool:
        """`cpu` runs no guest code, and does not want to; True if it did.

        Called from: the vCPU's thread.
        """
        with self.guard:
            was_inside = cpu in self.running
            self.running.discard(cpu)
            if cpu._entry is not None:
                self._queue.remove(cpu._entry)
                cpu._entry = None
            let_in = self._serve()
        wake_all(let_in)
        if was_inside:
            cpu._out.tell()
        return was_inside

    def claim(self, cpu: VCPUThread) -> Ticket:
        """Queue for having all others out, and interrupt them. Called from: the vCPU's thread."""
        ticket = Ticket(cpu, exclusive=True)
        with self.guard:
            self._queue.append(ticket)
            for each in self.running:
                each.interrupt_requested = True
            let_in = self._serve()
            inside = list(self.running)
        wake_all(let_in)
        for each in inside:
            each._interrupt_execute()
        return ticket

    def give_up(self, ticket: Ticket) -> None:
        """The end of `claim`, granted or not. Called from: the vCPU's thread."""
        with self.guard:
            if ticket is self.owner:
                self.owner = None
            else:
                self._queue.remove(ticket)
            let_in = self._serve()
        wake_all(let_in)

    # Under the guard.

    def _serve(self) -> list[VCPUThread]:
        """Let in whose turn it is. They are to be woken once the guard was let go.

        In the threads of vCPUs only: Ctrl-C, which comes to the main thread, cannot cut it short.
        """
        served = []
        while self._queue and self.owner is None:
            head = self._queue[0]
            if head.exclusive:
                if self.running:
                    break
                self.owner = head
            elif head.cpu._must_stay_out():  # paused since it queued: `resume` has it queue again
                head.cpu._entry = None
                self._queue.popleft()
                continue
            else:
                self._let_in(head)
            head.granted = True
            self._queue.popleft()
            served.append(head.cpu)
        if self.checked:
            self._check()
        return served

    def _let_in(self, ticket: Ticket) -> None:
        cpu = ticket.cpu
        cpu._entry = None
        self.running.add(cpu)
        if ticket.fresh:
            cpu._kicked = False
            cpu.interrupt_requested = cpu._stopping or bool(cpu._work)
        if len(self._queue) > 1 and self._is_wanted_alone():
            cpu.interrupt_requested = True

    def _is_wanted_alone(self) -> bool:
        return any(ticket.exclusive for ticket in self._queue)

    def _check(self) -> None:
        assert self.owner is None or not self.running
        assert all(not cpu._paused or cpu.interrupt_requested for cpu in self.running)
        assert all(not ticket.granted for ticket in self._queue)
        if self._is_wanted_alone():
            assert all(cpu.interrupt_requested for cpu in self.running)


def wake_all(cpus: list[VCPUThread]) -> None:
    """Have them look. Called from: any thread, without the guard."""
    for cpu in cpus:
        cpu._wake()
