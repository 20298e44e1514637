"""libnbd's Python interface over this package's client: calls that block, and libnbd's aio calls.

`homebound.nbd.libnbd` exports it. It runs in the threads of its callers, one at a time.
"""
