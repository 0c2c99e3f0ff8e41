"""Servers of other makes and versions than the wheels', where they are installed."""
