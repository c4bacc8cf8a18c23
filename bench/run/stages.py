"""What is recorded of an error: the stage of a cell that it comes from, what it says, and its traceback."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from bench.errors import BenchError, UnreadableImage, out_of_memory
from bench.names import printable
from bench.records.types import Stage

_STAGE = "bench_stage"  # attribute of an exception that has passed through a stage


@contextmanager
def stage(name: Stage) -> Iterator[None]:
    """Marks the errors that leave this block; the innermost block counts."""
    try:
        yield
    except Exception as error:
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
    """What an error says, with its type where it is none that a user can mend."""
    if line := out_of_memory(error):
        return printable(line)
    return printable(str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}")


def trace(error: BaseException) -> str:
    """Its traceback."""
    return printable("".join(traceback.format_exception(error)))
