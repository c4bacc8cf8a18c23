"""What is recorded of an error: the stage of a cell that it comes from, what it says, and its traceback."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from bench.errors import UnreadableImage, out_of_memory, said
from bench.names import printable
from bench.records.types import Stage

MOST_TRACE = 20_000  # characters of its traceback, half of them of its beginning
_STAGE = "bench_stage"  # attribute of an exception that has passed through a stage


@contextmanager
def stage(name: Stage) -> Iterator[None]:
    """Marks the errors that leave this block; the innermost block counts."""
    try:
        yield
    except Exception as error:
        with suppress(Exception):  # a method's own class of errors may refuse attributes
            if not hasattr(error, _STAGE):
                setattr(error, _STAGE, "read" if isinstance(error, UnreadableImage) else name)
        raise


def of(error: BaseException) -> Stage:
    """The stage that an error was marked with; ``fit`` where none was, as when a worker dies."""
    if isinstance(error, UnreadableImage):
        return "read"
    marked: Stage = getattr(error, _STAGE, "fit")
    return marked


def message(error: BaseException) -> str:
    """What an error says in a line, with its type where it is none that a user can mend."""
    return printable(out_of_memory(error) or said(error))


def trace(error: BaseException) -> str:
    """Its traceback; of a long one the beginning and the end."""
    try:
        text = printable("".join(traceback.format_exception(error)))
    except Exception as other:
        text = f"{message(error)} (its traceback fails with {type(other).__name__})"
    left_out = len(text) - MOST_TRACE
    if left_out <= 0:
        return text
    half = MOST_TRACE // 2
    return f"{text[:half]}\n... {left_out} characters left out ...\n{text[-half:]}"
