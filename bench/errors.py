"""Errors that a user can mend; the command line prints them as one line, without a traceback.

This module also puts any error into one line, and recognises errors that mean too little memory. It belongs
to the ground and imports nothing of bench.
"""

from __future__ import annotations

import errno
import re

MOST = 2_000  # characters of an error that are shown
# Words by which Python, NumPy, PyTorch and the system's loader say that memory is short.
_SHORT = re.compile(
    "not enough memory|bad[ _]alloc|out of memory|can't start new thread|failed to map segment"
    r"|(can't|cannot|unable to) allocate (memory|\d)|tr(y|ied|ying) to allocate \d|ALLOC(ATION)?_FAILED",
    re.IGNORECASE,
)
# Words by which PyTorch names a GPU's memory; inside a longer word or a path they do not count.
_GPU = re.compile(r"(?<![\w./\\-])(CUDA|CUBLAS|CUDNN|CUSOLVER|CUSPARSE|CUFFT|CURAND|HIP)(?=_| |$)")
_SAID = 160  # characters of such a message that are shown: its beginning names the size
_LESS = "--jobs 1 --workers 0; else close other programs, or raise a limit on memory (`ulimit -v`)"
_LESS_ON_GPU = "--jobs 1 --no-join; else end what else runs on that GPU, or take --device cpu"


class BenchError(ValueError):
    """A problem that a user can mend. Its message says in one or two lines what is wrong and what to do."""


class MissingData(BenchError):
    """A dataset, split file or prompt file that is not in its place. Cells that need it are blocked."""


class MissingWeights(BenchError):
    """Weights of a backbone that are not on this machine. The message names the command that gets them."""


class UnsuitableImage(BenchError):
    """An image that is whole but cannot be used: too large, or its values have no known white."""


class UnreadableImage(BenchError):
    """An image of a dataset that is absent, damaged or no image. ``path``: as the dataset lists it."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


def said(error: BaseException) -> str:
    """Return an error as one line of bounded length: its message, after its type unless it is a BenchError.

    It also works for errors of plugins, whose message may be empty, endless, or fail when it is asked for.
    """
    line = _text(error)
    if not (isinstance(error, BenchError) and line):
        line = f"{type(error).__name__}: {line}".removesuffix(": ")
    return line if len(line) <= MOST else f"{line[: MOST - 3]}..."


def short_of_memory(error: BaseException) -> bool:
    """Return whether an error means too little memory, of the computer or of a GPU."""
    if isinstance(error, RuntimeError | ImportError):  # a BenchError is neither
        return type(error).__name__ == "OutOfMemoryError" or bool(_SHORT.search(_text(error)))
    return isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM


def out_of_memory(error: BaseException) -> str:
    """Return one line about an error that means too little memory, with options that need less.

    For any other error the line is empty.
    """
    if not short_of_memory(error):
        return ""
    text = _text(error)
    less = _LESS_ON_GPU if _GPU.search(text) else _LESS
    if len(text) > _SAID:
        text = f"{text[:_SAID]}..."
    why = f" ({text})" if text else ""
    return f"not enough memory{why}: `bench run` needs least with {less}"


def _text(error: BaseException) -> str:
    """Return the message of an error as one line."""
    try:
        text = str(error)
    except Exception as other:
        text = f"(its text fails with {type(other).__name__})"
    if isinstance(error, BaseExceptionGroup):
        text += "".join(f"; {said(inner)}" for inner in error.exceptions[:3])
    return " ".join(text[: 2 * MOST].split())
