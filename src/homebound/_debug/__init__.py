"""What a program is doing, and where it hangs: dump, stall watch and the search for deadlocks.

It reads every room below; nothing depends on it but `homebound` itself and the command line.
Its code runs on the thread of the caller, or on the watch's own.
"""
