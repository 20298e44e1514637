"""One component: contexts, their mailboxes and loops, tasks, and the big lock.

Its files share private state and are read together (docs/design/core.md).
Any thread posts, wakes and asks; a context's home thread, or its stand-in, runs tasks.
"""
