"""Views of what a program does and where it hangs: dump, stall watch, search for deadlocks.

It reads every room below, in private_state.py; only `homebound` itself and the command line import
from it. Its code runs on the caller's thread, or on the watch's own.
"""
