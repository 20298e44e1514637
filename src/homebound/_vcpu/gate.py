"""The gate in front of guest code: which vCPUs run it now, and which one has stopped all others.

A FIFO of tickets. A ticket is either to run guest code, which any number of vCPUs may do at a time,
or to be exclusive, with all other vCPUs out of guest code. No ticket overtakes another, so a storm
of one kind cannot keep the other kind waiting.

The gate, and the fields of a vCPU that other threads write, change under one *guard*: a raw lock
held for a few lines, never while a callback runs or a thread is woken. So the argument is
sequential: each region below sees the world as the regions before it left it. A thread that must
know what a region has decided is woken after it, and looks again under the guard. So a wake-up may
be late or needless, but never wrong.

Invariants, true whenever the guard is free (`_check` asserts them in stress runs):

    owner is None or not running          no guest code runs while a vCPU is exclusive
    cpu in running  =>  not cpu._paused or cpu.interrupt_requested
    ticket in queue =>  not ticket.granted, and a ticket to run belongs to a cpu not in running
    cpu in running, an exclusive ticket in queue  =>  cpu.interrupt_requested

`interrupt_requested` tells a vCPU to come out. It is cleared in one place: by the grant that begins
a new round (`_let_in`). A request in a later region sets it again. A ticket to be exclusive that
was queued in an earlier region, further back, has the grant itself set it: the round ends at its
first look. So no request is lost in between.

tests/model/vcpu.pml searches every interleaving of this and of the thread's waits.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from .._os.guard import new_guard
from .._threads.wait_until import Watchers

if TYPE_CHECKING:
    from .thread import VCPUThread, Work


class Ticket:
    """A place in the queue. Fields are written under the guard."""

    __slots__ = ("cpu", "exclusive", "fresh", "granted")

    def __init__(self, cpu: VCPUThread, *, exclusive: bool, fresh: bool = False) -> None:
        self.cpu = cpu
        self.exclusive = exclusive
        self.fresh = fresh  # for a new round, which will see what earlier interrupts were for
        self.granted = False


class Entrant:
    """The fields of a vCPU that the gate decides on.

    They are written under the gate's guard, by any thread. `execute` and messages read them
    without it.
    """

    interrupt_requested: bool

    def __init__(self) -> None:
        self.interrupt_requested = False  # `execute` is to return; see the head of this file
        self._kicked = False  # `kick` was called during this round: the round may not halt
        self._halted = False
        self._paused = False
        self._started = False  # this one and the next two are set once
        self._stopping = False  # refuses new work items
        self._ended = False
        self._work: deque[Work] = deque()  # FIFO; any thread appends, the vCPU's thread pops
        self._ticket: Ticket | None = None  # its place in the queue for running guest code
        self._out = Watchers()  # told when it has left guest code, or is no longer to be paused

    def _must_stay_out(self) -> bool:
        """Return True while it is paused. Under the guard."""
        return self._paused and not self._stopping


class Gate:
    """The gate of a process. Methods take the guard unless they say otherwise."""

    checked = False  # set by a stress run: assert the invariants at each change

    def __init__(self) -> None:
        self.guard = new_guard()  # a finaliser may call a method at any point
        self.cpus: set[VCPUThread] = set()  # started and not ended
        self.running: set[VCPUThread] = set()  # in guest code
        self.owner: Ticket | None = None  # of the vCPU that is exclusive
        self._queue: deque[Ticket] = deque()

    def admit(self, cpu: VCPUThread, *, fresh: bool) -> bool:
        """Let `cpu` run guest code, or queue it once; True if it is in.

        Called from: the vCPU's thread.
        """
        with self.guard:
            if cpu in self.running:
                return True
            if cpu._must_stay_out():
                return False
            if cpu._ticket is None:
                cpu._ticket = Ticket(cpu, exclusive=False, fresh=fresh)
                self._queue.append(cpu._ticket)
            let_in = self._serve()
            inside = cpu in self.running
        wake_all(let_in)
        return inside

    def worth_asking(self, cpu: VCPUThread) -> bool:
        """Return True if `admit` would let it in or queue it. Called from: the vCPU's thread."""
        with self.guard:
            return cpu in self.running or (cpu._ticket is None and not cpu._must_stay_out())

    def is_out(self, cpu: VCPUThread) -> bool:
        """Return True if it runs no guest code. Called from: any thread."""
        with self.guard:
            return cpu not in self.running

    def take_out(self, cpu: VCPUThread) -> bool:
        """Take `cpu` out of guest code, and out of the queue for it; True if it was in.

        Called from: the vCPU's thread.
        """
        with self.guard:
            was_inside = cpu in self.running
            self.running.discard(cpu)
            if cpu._ticket is not None:
                self._queue.remove(cpu._ticket)
                cpu._ticket = None
            let_in = self._serve()
        wake_all(let_in)
        if was_inside:
            cpu._out.tell()
        return was_inside

    def claim(self, cpu: VCPUThread) -> Ticket:
        """Queue to be exclusive, and interrupt the others. Called from: the vCPU's thread."""
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
        """End a `claim`, granted or not. Called from: the vCPU's thread."""
        with self.guard:
            if ticket is self.owner:
                self.owner = None
            else:
                self._queue.remove(ticket)
            let_in = self._serve()
        wake_all(let_in)

    def begin_as_child(self) -> None:
        """Start anew in a forked process, with the parent's vCPUs ended and a new guard.

        None of their threads exists there, and one of them may have held the guard.
        """
        for cpu in self.cpus:
            cpu._stopping = cpu._ended = True
        self.__init__()  # type: ignore[misc]

    # Under the guard.

    def _serve(self) -> list[VCPUThread]:
        """Grant the tickets whose turn it is; returns the vCPUs to wake once the guard is released.

        Only vCPUs' threads do this, so Ctrl-C, which comes to the main thread, cannot cut it short.
        """
        served = []
        while self._queue and self.owner is None:
            head = self._queue[0]
            if head.exclusive:
                if self.running:
                    break
                self.owner = head
            elif head.cpu._must_stay_out():  # paused since it queued: `resume` has it queue again
                head.cpu._ticket = None
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
        cpu._ticket = None
        self.running.add(cpu)
        if ticket.fresh:
            cpu._kicked = False
            cpu.interrupt_requested = cpu._stopping or bool(cpu._work)
        if len(self._queue) > 1 and self._is_claimed():
            cpu.interrupt_requested = True

    def _is_claimed(self) -> bool:
        return any(ticket.exclusive for ticket in self._queue)

    def _check(self) -> None:
        assert self.owner is None or not self.running
        assert all(not cpu._paused or cpu.interrupt_requested for cpu in self.running)
        assert all(not ticket.granted for ticket in self._queue)
        if self._is_claimed():
            assert all(cpu.interrupt_requested for cpu in self.running)


def wake_all(cpus: list[VCPUThread]) -> None:
    """Have their threads look again. Called from: any thread, without the guard."""
    for cpu in cpus:
        cpu._wake()
