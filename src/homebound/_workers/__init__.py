"""Worker pools: the threads, their jobs, and the hand-over of a result to the task's home.

`homebound.block` and `homebound.nbd` import from here.
A job runs in a worker thread; it is submitted from any thread.
"""
