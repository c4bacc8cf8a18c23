"""What the command's exit codes mean: docs/exit-codes.md says it verb by verb."""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """Exit codes. Where several would fit, ``first`` has the one that counts."""

    GOOD = 0
    FAILED = 1  # something failed or got worse
    REFUSED = 2  # what was asked for cannot be done, or not here; what was finished before is kept
    INCOMPLETE = 3  # the same command again goes on
    UNDECIDED = 4
    CHANGED = 5
    INTERRUPTED = 130  # as a shell says of Ctrl-C
    UNREAD = 141  # as a shell says of a command whose reader has gone


# What needs a person comes before what the same command mends.
ORDER = (Code.FAILED, Code.UNDECIDED, Code.CHANGED, Code.INCOMPLETE, Code.GOOD)


def first(*codes: Code) -> Code:
    """The one of several codes that a command ends with."""
    return min(codes, key=ORDER.index)
