"""The bell of a sleeping home.

A context's `_bell` is AWAKE, or CLOSED, or a list of one element, SET (what a ring writes), made
for the present sleep (mailbox.py puts it up). On a loop of our own `list.pop` gives the element to
one of many producers. A slow producer that still holds the bell of an earlier sleep finds it empty,
or rings it without harm. Only the home, or its stand-in under the big lock, writes `_bell`, so a
closed context stays closed however late a producer is.

A finaliser may come in as a producer rings, and wait for the home that is to be woken. If the bell
were taken first, it would wait for the call that it has interrupted. So on a loop of our own the
bell is taken and rung in one call in C; for a foreign loop it is taken after the loop was told.
"""

from __future__ import annotations

from typing import Any

AWAKE: Any = None  # a producer has nothing to do: the falsy value whose test costs least
CLOSED: Any = ("closed",)
