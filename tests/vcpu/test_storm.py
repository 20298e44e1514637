"""Everything at once, from every kind of thread: nothing hangs or is lost, no vCPU stays inside."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import VCPU, ContextClosed, big_lock
from homebound.testing import until

if TYPE_CHECKING:
    import random

    from homebound.testing import Stress

pytestmark = pytest.mark.stress


class Storm:
    """vCPUs whose guests count, want to be exclusive, halt, and access devices."""

    def __init__(self, count: int, stress: Stress) -> None:
        self.rngs = [stress.rng() for _ in range(count)]
        self.inside = [False] * count
        self.rounds = [0] * count
        self.exclusives = 0  # counted while exclusive: two at a time would lose some
        self.asked_exclusives = [0] * (2 * count + 2)
        self.device = 0  # counted under the big lock
        self.asked_device = [0] * (2 * count + 2)
        self.wrong: list[str] = []
        self.cpus = [VCPU(index, self.execute) for index in range(count)]

    def execute(self, vcpu: VCPU) -> None:
        me = vcpu.index
        rng = self.rngs[me]
        self.rounds[me] += 1
        self.inside[me] = True
        for _ in range(rng.randrange(50)):
            if vcpu.interrupt_requested:
                break
        self.inside[me] = False
        self.act(vcpu, me, rng)

    def act(self, vcpu: VCPU, me: int, rng: random.Random) -> None:
        choice = rng.randrange(12)
        if choice == 0:
            self.be_exclusive(vcpu, me)
        elif choice == 1:
            with big_lock:
                self.be_exclusive(vcpu, me)
        elif choice == 2:
            self.access(rng.choice(self.cpus), me)
        elif choice == 3:
            with big_lock:
                self.touch()
            self.asked_device[me] += 1
        elif choice == 4:
            vcpu.halt()

    def be_exclusive(self, cpu: VCPU, who: int) -> None:
        try:
            cpu.exclusive(self.alone)
        except ContextClosed:
            return
        self.asked_exclusives[who] += 1

    def alone(self) -> None:
        before = self.exclusives
        if any(self.inside):
            self.wrong.append(f"in guest code: {self.inside}")
        time.sleep(0)
        if any(self.inside):
            self.wrong.append(f"in guest code later: {self.inside}")
        self.exclusives = before + 1

    def access(self, cpu: VCPU, who: int) -> None:
        try:
            cpu.run_on_cpu(self.touch)
        except ContextClosed:
            return
        self.asked_device[who] += 1

    def touch(self) -> None:
        before = self.device
        time.sleep(0)
        self.device = before + 1

    def disturb(self, who: int, rng: random.Random) -> None:
        """Do one thing to a vCPU from another thread."""
        cpu = rng.choice(self.cpus)
        choice = rng.randrange(6)
        if choice == 0:
            cpu.pause()
            cpu.resume()
        elif choice == 1:
            self.be_exclusive(cpu, who)
        elif choice == 2:
            with big_lock if not big_lock.held() else ExitStack():
                self.access(cpu, who)
        elif choice == 3:
            self.access(cpu, who)
        else:
            cpu.kick()

    def keep_awake(self) -> None:
        for cpu in self.cpus:
            cpu.resume()
            cpu.kick()

    def check(self) -> None:
        assert not self.wrong
        assert self.exclusives == sum(self.asked_exclusives)
        assert self.device == sum(self.asked_device)
        assert all(self.rounds)


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("main_loop", [False, True], ids=["no main loop", "main loop"])
def test_storm(count: int, main_loop: bool, stress: Stress):  # noqa: FBT001, C901  (one storm)
    storm = Storm(count, stress)

    def outsider(who: int, rng: random.Random) -> None:
        while not stress.over():
            storm.disturb(who, rng)

    async def main() -> None:
        rng = stress.rng()
        stress.go()
        while not stress.over():
            storm.disturb(2 * count, rng)
            await asyncio.sleep(0)
        while stress.alive():
            await asyncio.sleep(0.001)

    async def in_io_thread(rng: random.Random) -> None:
        while not stress.over():
            storm.disturb(2 * count + 1, rng)
            await asyncio.sleep(0)

    for number in range(2):
        stress.thread(outsider, count + number, stress.rng())
    with ExitStack() as stack, homebound.IOThread("io") as io:
        for cpu in storm.cpus:
            cpu.pause()
            stack.enter_context(cpu)
        storm.keep_awake()  # all have started: they may ask each other
        until(lambda: all(storm.rounds))
        stress.go()
        in_io = io.spawn(in_io_thread(stress.rng()))
        if main_loop:
            homebound.run(main())
        stress.wait()
        homebound.block_on(in_io, io.context, timeout=20)
    print(f"rounds {storm.rounds}, exclusive {storm.exclusives}, device {storm.device}")  # noqa: T201
    storm.check()


def test_paused_means_out_while_everybody_kicks(stress: Stress):
    """After pause() nothing runs until resume(), whatever kicks and items come from elsewhere."""
    rounds = [0]

    def execute(vcpu: VCPU) -> None:
        rounds[0] += 1
        while not vcpu.interrupt_requested:
            pass
        rounds[0] += 1

    def kicker(cpu: VCPU, rng: random.Random) -> None:
        while not stress.over():
            (cpu.kick if rng.random() < 0.7 else lambda: cpu.run_on_cpu(int))()

    with VCPU(0, execute) as cpu:
        for _ in range(2):
            stress.thread(kicker, cpu, stress.rng())
        stress.go()
        paused = 0
        while not (stress.over() and paused):
            cpu.pause()
            before = rounds[0]
            time.sleep(0)
            assert rounds[0] == before
            assert before % 2 == 0
            paused += 1
            cpu.resume()
        stress.join()
    assert paused


def test_stop_against_askers(stress: Stress):
    """Each request is either served or refused, however late it comes; none hangs."""
    rng = stress.rng()
    stress.go()
    lives = 0
    while not (stress.over() and lives):
        served: list[list[Any]] = [[] for _ in range(3)]
        answered = [0] * 3
        ran: list[int] = []

        def ask(
            who: int, cpu: VCPU, ran: list[int], served: list[Any], answered: list[int]
        ) -> None:
            try:
                while True:
                    served[who].append(cpu.run_on_cpu(ran.append, 1))
                    answered[who] += 1
            except ContextClosed:
                return

        cpu = VCPU(0, VCPU.halt if rng.random() < 0.5 else lambda _: None)
        cpu.start()
        askers = [stress.thread(ask, who, cpu, ran, served, answered) for who in range(3)]
        time.sleep(rng.random() * 0.002)
        cpu.stop(20)
        for asker in askers:
            asker.result(20)
        assert len(ran) == sum(answered)
        lives += 1
    assert lives


def test_no_kick_is_lost_by_a_halt(stress: Stress):
    """A producer adds and kicks; a guest that finds nothing halts: everything is consumed."""
    made, eaten = [0], [0]

    def execute(vcpu: VCPU) -> None:
        if eaten[0] == made[0]:
            vcpu.halt()
        else:
            eaten[0] = made[0]

    with VCPU(0, execute) as cpu:
        stress.go()
        while not stress.over() or made[0] <= 10:
            made[0] += 1
            cpu.kick()
            hopeless = time.monotonic() + 10
            while eaten[0] != made[0]:
                assert time.monotonic() < hopeless, (made, eaten, cpu)
