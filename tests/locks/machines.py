"""State machines of Hypothesis: tasks of two loops, one ours and one asyncio's, and a thread.

Both loops are run by the test's own thread, in turn, so every run can be repeated. Between a grant
and the step in which the waiter would take it, anything may happen.
"""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant

import homebound

LOOPS = st.integers(0, 1)
INDEX = st.integers(0, 20)
STEPS = 8
SETTINGS = settings(max_examples=60, stateful_step_count=30, deadline=None)


class Machine(RuleBasedStateMachine):
    """Two loops, and the tasks that wait, in the order in which they came."""

    def __init__(self) -> None:
        super().__init__()
        self.loops = [homebound.new_event_loop(), asyncio.SelectorEventLoop()]
        self.waiting: list[Any] = []  # what the model says waits: (task, what it wants)
        self.ended: list[Any] = []  # what the model says is over: (task, its result or "cancelled")

    def spawn(self, loop: int, coro: Any) -> Any:
        """It begins after the rule: nothing of a rule may come after it."""
        return self.loops[loop].create_task(coro)

    def settle(self) -> None:
        for _ in range(2):
            for loop in self.loops:
                loop.run_until_complete(self._steps())

    async def _steps(self) -> None:
        for _ in range(STEPS):
            await asyncio.sleep(0)

    def pick(self, index: int) -> Any:
        return self.waiting.pop(index % len(self.waiting))

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        self.settle()
        for task, _ in self.waiting:
            assert not task.done()
        for task, result in self.ended:
            assert task.done()
            assert ("cancelled" if task.cancelled() else task.result()) == result
        self.ended.clear()
        self.look()

    def look(self) -> None:
        """What is fought over looks as the model says."""
        raise NotImplementedError

    def teardown(self) -> None:
        for task, _ in self.waiting:
            task.cancel()
        self.settle()
        for loop in self.loops:
            loop.close()
