"""Kinds of mixed rows, and the cycle in which their shares are exact."""

KINDS = ("short", "packed", "long")
CYCLE = 100  # rows in which the shares are exact, in whole percent
