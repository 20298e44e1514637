"""Suites of behaviour that an implementation of a lock, a queue, an executor or a loop must pass.

`homebound.testing` exports them.
They run on the test's thread, with tasks and threads of their own.
"""
