"""A condition's waiter that is notified before it has released the lock.

A notified waiter that is cancelled passes the notification on without the lock, at any moment: also
just when another one has joined the queue and still has the lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import homebound

if TYPE_CHECKING:
    from homebound._sync.waiters import Waiter


class NotifiedAsItJoins(homebound.Condition):
    """Each waiter is passed a notification as soon as it is in the queue."""

    def _join(self, waiter: Waiter) -> bool:
        granted = super()._join(waiter)
        self._notify(1)
        return granted


def test_it_has_the_lock_once(place: Any):
    condition = NotifiedAsItJoins()
    place.do(condition, "acquire").result()
    assert place.do(condition, "wait").result() is True
    assert condition.locked()
    condition.release()
    assert not condition.locked()
    assert not condition._lock._waiters
