"""This module defines the exit codes of the command; docs/exit-codes.md lists them verb by verb."""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """The exit codes. Where several fit, ``first`` returns the one that counts."""

    GOOD = 0
    FAILED = 1  # something failed or got worse
    REFUSED = 2  # what the user asked for cannot be done here; finished work is kept
    INCOMPLETE = 3  # something is left; the same command goes on
    UNDECIDED = 4  # there are too few images to tell
    CHANGED = 5  # predictions changed, the accuracy did not
    INTERRUPTED = 130  # what shells report after Ctrl-C
    UNREAD = 141  # what shells report of a command whose reader has gone, as `head` does


# Codes that need a person come before those that the same command mends.
ORDER = (Code.FAILED, Code.UNDECIDED, Code.CHANGED, Code.INCOMPLETE, Code.GOOD)


def first(*codes: Code) -> Code:
    """Return the code that a command exits with when several fit."""
    return min(codes, key=ORDER.index)
