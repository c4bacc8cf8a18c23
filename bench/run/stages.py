"""Note in which stage of a cell an error was raised, and prepare its message and traceback for the record."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from bench.errors import UnreadableImage, out_of_memory, said
from bench.names import printable
from bench.records.types import Stage

MOST_TRACE = 20_000  # characters of a traceback that are kept, half of them from its beginning
_STAGE = "bench_stage"  # attribute of an exception that has passed through a stage


@contextmanager
def stage(name: Stage) -> Iterator[None]:
    """Mark the errors that leave the block with a stage. An inner block's mark is kept."""
    try:
        yield
    except Exception as error:
        with suppress(Exception):  # an error class of a method may refuse attributes
            if not hasattr(error, _STAGE):
                setattr(error, _STAGE, "read" if isinstance(error, UnreadableImage) else name)
        raise


def of(error: BaseException) -> Stage:
    """Return the stage that an error was marked with, or ``fit`` if it has no mark, as when a worker dies."""
    if isinstance(error, UnreadableImage):
        return "read"
    marked: Stage = getattr(error, _STAGE, "fit")
    return marked


def message(error: BaseException) -> str:
    """Return an error's message in one line, with the error's type unless it is one that a user can mend."""
    return printable(out_of_memory(error) or said(error))


def trace(error: BaseException) -> str:
    """Return the traceback of an error. A long one is cut to its beginning and end."""
    try:
        text = printable("".join(traceback.format_exception(error)))
    except Exception as other:
        text = f"{message(error)} (its traceback fails with {type(other).__name__})"
    left_out = len(text) - MOST_TRACE
    if left_out <= 0:
        return text
    half = MOST_TRACE // 2
    return f"{text[:half]}\n... {left_out} characters left out ...\n{text[-half:]}"
