"""Notice when code changes state that the whole process shares, and put the state back.

A method could, for example, set torch's default dtype and so change the numbers of every other method. This
module reads such state before a method's work and compares it afterwards: random generators, modes of torch
and NumPy, numbers of threads, the environment, signal handlers. ``bench.replaced`` does the same for replaced
functions.

The module looks only at libraries that have been imported, and imports neither torch nor NumPy itself. It
does not see the state inside C libraries, files, open handles, or changes to objects that code reaches by
walking from one object to another.
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
    """One piece of state that exists once in a process, such as NumPy's global random generator.

    ``read`` returns its value, and ``write`` sets it. ``fresh``: the value right after its library was
    imported, or None if that is unknown or does not matter. ``reported``: takes the old and the new value and
    returns whether the change is reported as a fault. ``slow``: whether ``read`` takes 10 us or more.
    ``imports``: whether libraries may change it when they are imported; such a change is not reported.
    """

    read: Callable[[], Any]
    write: Callable[[Any], object]
    fresh: Any = None
    reported: Callable[[Any, Any], bool] = lambda old, now: True
    slow: bool = False
    imports: bool = False


@dataclass(frozen=True)
class Held:
    """The state of a process at one moment.

    ``parts``: values by the name of the part. ``every``: whether parts that are slow to read are among them.
    ``modules``: how many modules had been imported.
    """

    parts: dict[str, Any]
    every: bool
    modules: int


def held(every: bool = True) -> Held:
    """Return the state of this process now. If ``every`` is false, leave out parts that are slow to read."""
    parts = {name: part.read() for name, part in _parts().items() if every or not part.slow}
    return Held(parts, every, len(sys.modules))


def put_back(before: Held, own: Collection[str] = ()) -> list[str]:
    """Put everything back as it was ``before``, and return the names of the parts that had been changed.

    Three changes are not in the list: environment variables that were added (they stay), filters of warnings,
    and what libraries do when they are imported, if one was imported meanwhile. ``own``: top-level names of
    modules that do not count as libraries.
    """
    changed = []
    library = _imported_since(before.modules, own)
    for name, part in _parts().items():
        if name not in before.parts and part.slow and not before.every:
            continue
        old = before.parts.get(name, part.fresh)
        if old is None:  # unknown before, for example because its library was imported since
            continue
        now = part.read()
        if old is not now and old != now:
            part.write(old)
            if part.reported(old, now) and not (part.imports and library):
                changed.append(name)
    return changed


@contextmanager
def kept(functions: bool = True, own: Collection[str] = ()) -> Iterator[list[str]]:
    """Run a block, put back what it changed for the whole process, and yield the list of these changes.

    The list is filled when the block ends. ``functions``: also put back functions that it replaced. ``own``:
    as for ``put_back``.
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
    """Return whether a module outside bench and ``own`` was imported after the first ``count``."""
    new = {name.partition(".")[0] for name in list(sys.modules)[count:]}  # new modules come last
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
    """Return the parts of Python and of the libraries that have been imported."""
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
    warnings.filters[:] = old  # type: ignore[index]  # it is a list, though its stub says otherwise
    warnings._filters_mutated()  # type: ignore[attr-defined]  # otherwise Python does not notice the change


_HEEDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)


@dataclass(eq=False)
class _Timer:
    """The process's timer of real time, which ends in SIGALRM, at one moment."""

    rings: float  # when it rings, by time.monotonic; inf if it is off
    every: float  # seconds

    def __eq__(self, now: object) -> bool:
        """Return whether no code has set the timer between this moment and ``now``.

        A timer that rings once may have rung meanwhile, and then it is off.
        """
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
    """Return the working folder, or None if it is gone."""
    try:
        return os.getcwd()
    except OSError:
        return None


def _folder_back(old: str) -> None:
    with suppress(OSError):  # somebody else may have moved or deleted it
        os.chdir(old)


def flushes_denormal() -> bool:
    """Return whether this thread counts denormal numbers as zero (torch.set_flush_denormal)."""
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
        reported=lambda old, now: any(now.get(key) != value for key, value in old.items()),
        slow=True,
        imports=True,
    ),
    "the filters of warnings": _Part(
        lambda: list(warnings.filters), _filters_back, reported=lambda old, now: False
    ),
    "Python's global random generator": _Part(random.getstate, random.setstate, slow=True, imports=True),
    "the working folder": _Part(_folder, _folder_back, reported=lambda old, now: _folder() == old),
    "Python's recursion limit": _Part(sys.getrecursionlimit, sys.setrecursionlimit, imports=True),
    # A method may set the timer while it works, so only changed handlers are reported.
    "the signal handlers": _Part(
        _signals, _signals_back, reported=lambda old, now: old[1:] != now[1:], imports=True
    ),
    "the standard streams": _Part(lambda: (sys.stdout, sys.stderr), _streams_back),
    "how the processor rounds tiny numbers": _Part(flushes_denormal, _flushes_back, imports=True),
}


def _numpy() -> dict[str, _Part]:
    import numpy as np

    everybodys: Any = np.random.mtrand._rand  # it is read and put back, never drawn from

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
        else:  # the same without importing torch's compiler, which takes seconds
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
