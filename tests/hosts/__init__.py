"""The service on several hosts: network namespaces joined by a bridge, whose links fail.

It uses the parts of the fault suite; `make faults-hosts` runs it.
"""
