"""What the service does with domain events: consumers, their pipeline and the ports they ask for.

Knows the domain, and reaches everything else through its ports.
"""
