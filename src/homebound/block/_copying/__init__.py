"""Copying one disk to another: the plan, the requests in flight, the state to resume from.

`homebound copy` uses it; it knows no command line. Everything runs in the home of one task.
"""
