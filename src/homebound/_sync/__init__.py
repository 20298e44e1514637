"""One wait queue, and the locks, events, conditions and queues that are built on it.

`_debug` reads their waiters and holders; no other private room imports from here.
The code runs in tasks of every home and in plain threads, under the guard of each object.
"""
