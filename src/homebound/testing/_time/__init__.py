"""Time and order in tests: the virtual clock, the sequencer, waits for idle and conditions.

`homebound.testing` and its plugin import from here.
They run on the test's threads and homes.
"""
