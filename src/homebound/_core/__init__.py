"""Contexts, their mailboxes and loops, tasks, and the big lock: one component.

Its files share private state and are read together (docs/design/core.md).
Any thread may post and wake; tasks run in their context's home thread, or its stand-in.
"""
