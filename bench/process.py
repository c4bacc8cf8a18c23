"""What code could change for everybody in its process: noticed, and put back. (no torch, unless it is here)

Generators, modes, threads, the environment; functions that somebody replaced are in ``bench.replaced``. Of
libraries only what has been imported is looked at. Not seen: what a C library holds, files, open handles, and
whatever is found by walking through the memory of others.
"""

from __future__ import annotations

import math
import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from bench import replaced


@dataclass(frozen=True)
class _Part:
    """One thing that a process has once: how it is read, and how it is put back.

    ``fresh``: what it is in a library that was just imported, where that is known and matters. ``said``:
    whether a change, from the old to the new, is anybody's fault. ``slow``: reading it takes 10 us or more.
    ``imports``: libraries change it when they are imported, and who imports one cannot help it.
    """

    read: Callable[[], Any]
    write: Callable[[Any], object]
    fresh: Any = None
    said: Callable[[Any, Any], bool] = lambda old, now: True
    slow: bool = False
    imports: bool = False


@dataclass(frozen=True)
class Held:
    """What a process held at one moment, by the name of the part, and how many modules it had.

    ``every``: parts that take longer to read are among them.
    """

    parts: dict[str, Any]
    every: bool
    modules: int


def held(every: bool = True) -> Held:
    """What this process holds now; not ``every``: without what takes longer to read."""
    parts = {name: part.read() for name, part in _parts().items() if every or not part.slow}
    return Held(parts, every, len(sys.modules))


def put_back(before: Held, own: Collection[str] = ()) -> list[str]:
    """Everything as it was ``before``; the names of what had been changed.

    Some goes without a word: added environment variables, which stay, filters of warnings, and what libraries
    do to the process when they are imported, if one was meanwhile. ``own``: modules that are no library.
    """
    changed = []
    library = _imported_since(before.modules, own)
    for name, part in _parts().items():
        if name not in before.parts and part.slow and not before.every:
            continue
        old = before.parts.get(name, part.fresh)
        if old is None:  # not there, or of a library that was imported since, whose state says nothing
            continue
        now = part.read()
        if old is not now and old != now:
            part.write(old)
            if part.said(old, now) and not (part.imports and library):
                changed.append(name)
    return changed


@contextmanager
def kept(functions: bool = True, own: Collection[str] = ()) -> Iterator[list[str]]:
    """Around somebody's code: what it changed for everybody is put back, and is in the list afterwards.

    ``functions``: those that it replaced too. ``own``: as for ``put_back``.
    """
    changed: list[str] = []
    before = held()
    around: AbstractContextManager[list[str]] = replaced.kept() if functions else nullcontext([])
    with around as names:
        try:
            yield changed
        finally:
            changed += put_back(before, own)
    changed += names


def _imported_since(count: int, own: Collection[str]) -> bool:
    """Whether a module has joined the first ``count`` that belongs neither to the program nor to ``own``."""
    new = {name.partition(".")[0] for name in list(sys.modules)[count:]}  # new ones come last
    return bool(new - {"bench", *own})


def _parts() -> Mapping[str, _Part]:
    torch = sys.modules.get("torch")
    return _known(
        "numpy.random" in sys.modules,
        hasattr(torch, "get_rng_state"),
        hasattr(torch, "cuda") and torch.cuda.is_initialized(),  # type: ignore[union-attr]
    )


@cache
def _known(numpy: bool, torch: bool, gpu: bool) -> Mapping[str, _Part]:
    """The parts of the libraries that are here."""
    return {
        **_PYTHON,
        **(_numpy() if numpy else {}),
        **(_torch() if torch else {}),
        **(_gpu() if gpu else {}),
    }


def _environment_back(old: Mapping[str, str]) -> None:
    for key, value in old.items():
        if os.environ.get(key) != value:
            os.environ[key] = value


def _filters_back(old: list[Any]) -> None:
    warnings.filters[:] = old  # type: ignore[index]  # a list, whatever its stub says
    warnings._filters_mutated()  # type: ignore[attr-defined]  # else what was warned of stays silent


_HEEDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)


@dataclass(eq=False)
class _Timer:
    """The process's one timer of real time, which SIGALRM tells of, at one moment."""

    rings: float  # time.monotonic; inf: it does not tick
    every: float  # seconds

    def __eq__(self, now: object) -> bool:
        """Whether it has been let be since, as one is that has rung its only time."""
        assert isinstance(now, _Timer)
        rung = not self.every and self.rings <= time.monotonic() and now.rings == math.inf
        return rung or ((self.rings < math.inf) == (now.rings < math.inf) and self.every == now.every)


def _signals() -> tuple[Any, ...]:
    left, every = signal.getitimer(signal.ITIMER_REAL)
    timer = _Timer(time.monotonic() + left if left else math.inf, every)
    return timer, *map(signal.getsignal, _HEEDED)


def _signals_back(old: tuple[Any, ...]) -> None:
    timer, *handlers = old
    for number, handler in zip(_HEEDED, handlers, strict=True):
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)
    if timer != _signals()[0]:
        left = 0.0 if timer.rings == math.inf else max(0.001, timer.rings - time.monotonic())
        signal.setitimer(signal.ITIMER_REAL, left, timer.every)


def _folder() -> str | None:
    """The working folder; None where it is gone."""
    try:
        return os.getcwd()
    except OSError:
        return None


def _folder_back(old: str) -> None:
    with suppress(OSError):  # somebody else may have moved or deleted it
        os.chdir(old)


def flushes_denormal() -> bool:
    """Whether the processor takes denormal numbers for zero in this thread (torch.set_flush_denormal)."""
    return sys.float_info.min * 0.5 == 0.0


def _flushes_back(old: bool) -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(old)


def _streams_back(old: tuple[Any, Any]) -> None:
    sys.stdout, sys.stderr = old


_PYTHON = {
    "the environment": _Part(
        lambda: dict(os.environ),
        _environment_back,
        said=lambda old, now: any(now.get(key) != value for key, value in old.items()),
        slow=True,
        imports=True,
    ),
    "the filters of warnings": _Part(
        lambda: list(warnings.filters), _filters_back, said=lambda old, now: False
    ),
    "Python's global random generator": _Part(random.getstate, random.setstate, slow=True, imports=True),
    "the working folder": _Part(_folder, _folder_back, said=lambda old, now: _folder() == old),
    "Python's recursion limit": _Part(sys.getrecursionlimit, sys.setrecursionlimit, imports=True),
    # A method may have set the timer for a moment of its own; handlers are the program's alone.
    "the signal handlers": _Part(
        _signals, _signals_back, said=lambda old, now: old[1:] != now[1:], imports=True
    ),
    "the standard streams": _Part(lambda: (sys.stdout, sys.stderr), _streams_back),
    "how the processor rounds tiny numbers": _Part(flushes_denormal, _flushes_back, imports=True),
}


def _numpy() -> dict[str, _Part]:
    import numpy as np

    everybodys: Any = np.random.mtrand._rand  # read and put back, not drawn from

    def state() -> tuple[Any, ...]:
        now: Any = everybodys.get_state()
        return (now[0], now[1].tobytes(), *now[2:])

    def back(old: tuple[Any, ...]) -> None:
        name, key, *rest = old
        everybodys.set_state((name, np.frombuffer(key, np.uint32), *rest))

    return {
        "NumPy's global random generator": _Part(state, back, slow=True, imports=True),
        "NumPy's handling of errors": _Part(
            lambda: tuple(np.geterr().items()), lambda old: np.seterr(**dict(old)), imports=True
        ),
    }


def _torch() -> dict[str, _Part]:
    torch = sys.modules["torch"]

    def generator() -> bytes:
        return bytes(torch.get_rng_state().numpy().tobytes())

    def generator_back(old: bytes) -> None:
        torch.set_rng_state(torch.frombuffer(bytearray(old), dtype=torch.uint8))

    def modes() -> tuple[Any, ...]:
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cudnn.allow_tf32,
            torch.backends.cudnn.benchmark,
        )

    def modes_back(old: tuple[Any, ...]) -> None:
        if "torch._inductor" in sys.modules:
            torch.use_deterministic_algorithms(old[0], warn_only=old[1])
        else:  # what that does but for importing torch's compiler, which takes seconds
            torch.set_deterministic_debug_mode(("warn" if old[1] else "error") if old[0] else "default")
        torch.utils.deterministic.fill_uninitialized_memory = old[2]
        torch.backends.cuda.matmul.allow_tf32 = old[3]
        torch.backends.cudnn.allow_tf32 = old[4]
        torch.backends.cudnn.benchmark = old[5]

    return {
        "torch's global random generator": _Part(generator, generator_back, slow=True, imports=True),
        "torch's default dtype": _Part(torch.get_default_dtype, torch.set_default_dtype, torch.float32),
        "torch's default device": _Part(_device, torch.set_default_device, "cpu", slow=True),
        "torch's number of threads": _Part(torch.get_num_threads, torch.set_num_threads),
        "whether torch records gradients": _Part(torch.is_grad_enabled, torch.set_grad_enabled, True),
        "torch's deterministic and TF32 modes": _Part(modes, modes_back),
    }


def _gpu() -> dict[str, _Part]:
    torch = sys.modules["torch"]
    return {
        "the GPU's global random generator": _Part(
            lambda: torch.cuda.get_rng_state().numpy().tobytes(),
            lambda old: torch.cuda.set_rng_state(torch.frombuffer(bytearray(old), dtype=torch.uint8)),
            slow=True,
        )
    }


def _device() -> str:
    return str(sys.modules["torch"].get_default_device())
