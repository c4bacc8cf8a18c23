"""Which stage of a cell an error comes from: reading an image, encoding, preparing, fitting or evaluating."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.errors import UnreadableImage
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
    """The stage that an error was marked with; ``fit`` for one that no stage was told of, as when a worker dies."""
    if isinstance(error, UnreadableImage):
        return "read"
    found: Stage = getattr(error, _STAGE, "fit")
    return found
