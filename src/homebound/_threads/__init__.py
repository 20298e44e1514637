"""Threads that are homes, and threads that wait: run, I/O threads, block_on and wait_while.

The rooms above import its functions and `wait_until`.
Each of them says where it may be called: home thread, holder of the big lock, or any thread.
"""
