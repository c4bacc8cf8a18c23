"""What a user can mend: errors the command line prints as one line, without a traceback."""

from __future__ import annotations

MOST = 2_000  # characters of what is told of an error


class BenchError(ValueError):
    """A problem the user can mend; its message says what is wrong and what to do, in one or two lines."""


class MissingData(BenchError):
    """A dataset, split file or prompt file is not where it is looked for; cells that need it are blocked."""


class MissingWeights(BenchError):
    """The backbone's weights are not on this machine; the message names the command that gets them."""


class UnsuitableImage(BenchError):
    """An image that is whole and cannot be used as it is: too large, or of values without a known white."""


class UnreadableImage(BenchError):
    """An image of a dataset is absent, damaged or no image. ``path``: as the dataset lists it."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


def said(error: BaseException) -> str:
    """An error in one line of bounded length: its type, unless a user can mend it, and what it says.

    The errors of plugins may have no text, an endless one, or one that fails.
    """
    try:
        text = str(error)
    except Exception as other:
        text = f"(its text fails with {type(other).__name__})"
    if isinstance(error, BaseExceptionGroup):
        text += "".join(f"; {said(inner)}" for inner in error.exceptions[:3])
    line = " ".join(text[: 2 * MOST].split())
    if not (isinstance(error, BenchError) and line):
        line = f"{type(error).__name__}: {line}".removesuffix(": ")
    return line if len(line) <= MOST else f"{line[: MOST - 3]}..."
