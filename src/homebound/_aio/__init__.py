"""The private parts of asyncio: of loops, handles, futures, tasks and asynchronous generators.

A private name of asyncio's appears in this room and in no other; the rooms above import from here.
Each function says on which thread it runs: most on the home thread, the registry on any.
"""
