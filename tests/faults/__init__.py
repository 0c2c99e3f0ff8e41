"""The fault suite: the service as processes, faults by a seeded schedule, a check from outside.

Knows the service only by its command line, its webhook and its tables; `make faults` runs it.
"""
