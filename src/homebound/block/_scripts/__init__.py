"""Disks that are Python scripts: our own kind, and nbdkit's Python plugins unchanged.

`open_disk` and the command line open them; a script's plain functions run in worker threads, its
`async def` functions in the home of the request.
"""
