"""The seam to the machine: clock, parking, spinning, greenlets, fork, exit, steady looks, names.

Every room may import from here; this room imports none of the others and knows no context.
Its code runs on any thread.
"""
