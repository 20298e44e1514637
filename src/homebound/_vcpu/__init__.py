"""Virtual CPUs: threads that run guest work without the big lock.

No other private room imports from here.
Each VCPU runs on a thread of its own; any thread may call its methods.
"""
