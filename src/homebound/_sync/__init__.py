"""One wait queue, and the locks, events, conditions and queues that are built on it.

`_debug` reads their waiters and holders; no other private room imports from here.
Tasks of every home and plain threads run it, under the guard of each object.
"""
