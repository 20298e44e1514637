"""The seam to the machine and the interpreter: clock, parking, threads, greenlets, fork and exit.

Every room may import from here; this room imports none of the others and knows no context.
Its code runs on any thread.
"""
