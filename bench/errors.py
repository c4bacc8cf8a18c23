"""What a user can mend: errors the command line prints as one line, without a traceback."""

from __future__ import annotations

import errno
import re

MOST = 2_000  # characters of what is told of an error
# How Python, NumPy, PyTorch and the system's loader say that memory is short.
_SHORT = re.compile(
    "not enough memory|bad[ _]alloc|out of memory|can't start new thread|failed to map segment"
    r"|(can't|cannot|unable to) allocate (memory|\d)|tr(y|ied|ying) to allocate \d|ALLOC(ATION)?_FAILED",
    re.IGNORECASE,
)
# How PyTorch says that it was the memory of a GPU; part of no longer word, and of no path.
_GPU = re.compile(r"(?<![\w./\\-])(CUDA|CUBLAS|CUDNN|CUSOLVER|CUSPARSE|CUFFT|CURAND|HIP)(?=_| |$)")
_SAID = 160  # characters of what they say: its beginning names the size
_LESS = "--jobs 1 --workers 0; else close other programs, or raise a limit on memory (`ulimit -v`)"
_LESS_ON_GPU = "--jobs 1 --no-join; else end what else runs on that GPU, or take --device cpu"


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
    line = _text(error)
    if not (isinstance(error, BenchError) and line):
        line = f"{type(error).__name__}: {line}".removesuffix(": ")
    return line if len(line) <= MOST else f"{line[: MOST - 3]}..."


def short_of_memory(error: BaseException) -> bool:
    """Whether an error means too little memory, the computer's or a GPU's."""
    if isinstance(error, RuntimeError | ImportError):  # no BenchError is either
        return type(error).__name__ == "OutOfMemoryError" or bool(_SHORT.search(_text(error)))
    return isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM


def out_of_memory(error: BaseException) -> str:
    """One line on an error that means too little memory, with what needs less; empty for any other."""
    if not short_of_memory(error):
        return ""
    text = _text(error)
    less = _LESS_ON_GPU if _GPU.search(text) else _LESS
    if len(text) > _SAID:
        text = f"{text[:_SAID]}..."
    why = f" ({text})" if text else ""
    return f"not enough memory{why}: `bench run` needs least with {less}"


def _text(error: BaseException) -> str:
    """What an error says, in one line."""
    try:
        text = str(error)
    except Exception as other:
        text = f"(its text fails with {type(other).__name__})"
    if isinstance(error, BaseExceptionGroup):
        text += "".join(f"; {said(inner)}" for inner in error.exceptions[:3])
    return " ".join(text[: 2 * MOST].split())
