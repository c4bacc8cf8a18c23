"""What code could change for everybody in its process: noticed, and put back. (no torch, unless it is here)

Generators, modes, threads, the environment, and functions that somebody replaced. Of libraries only what has
been imported is looked at. Not seen: what a C library holds, files, open handles, and whatever is found by
walking through the memory of others.
"""

from __future__ import annotations

import math
import operator
import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType
from typing import Any


@dataclass(frozen=True)
class _Part:
    """One thing that a process has once: how it is read, and how it is put back.

    ``fresh``: what it is in a library that was just imported, where that is known and matters. ``said``:
    whether a change, from the old to the new, is anybody's fault. ``slow``: reading it takes 10 us or more.
    """

    read: Callable[[], Any]
    write: Callable[[Any], object]
    fresh: Any = None
    said: Callable[[Any, Any], bool] = lambda old, now: True
    slow: bool = False


Held = dict[str, Any]  # what a process held at one moment, by the name of the part


_CODE = (FunctionType, BuiltinFunctionType, MethodDescriptorType, type)


def held(every: bool = True) -> Held:
    """What this process holds now; not ``every``: without what takes longer to read."""
    return {name: part.read() for name, part in _parts().items() if every or not part.slow}


def put_back(before: Held) -> list[str]:
    """Everything as it was ``before``; the names of what had been changed.

    Added environment variables stay, and filters of warnings go without a word, for importing a library adds
    some.
    """
    changed = []
    for name, part in _parts().items():
        old = before.get(name, part.fresh)
        if old is None:  # not looked at, or a library that was imported since, whose state says nothing
            continue
        now = part.read()
        if old is not now and old != now:
            part.write(old)
            if part.said(old, now):
                changed.append(name)
    return changed


class Names:
    """The functions and classes that modules and classes hold, to tell who replaced one of another's."""

    def __init__(self, owners: Mapping[str, Any]) -> None:
        self.owners = []
        self.classes = {name: owner for name, owner in owners.items() if isinstance(owner, type)}
        self.known = {owner: set(vars(owner)) for owner in self.classes.values()}
        for name, owner in owners.items():
            keys = [key for key, value in vars(owner).items() if isinstance(value, _CODE)]
            if len(keys) > 1:  # of fewer, itemgetter makes no tuple
                self.owners.append((name, owner, keys, operator.itemgetter(*keys)))

    def held(self) -> list[tuple[Any, ...] | None]:
        """What the names hold now."""
        return [_read(owner, take) for _, owner, _, take in self.owners]

    def put_back(self, before: list[tuple[Any, ...] | None]) -> list[str]:
        """The names that hold something else than ``before``, which they hold again.

        New names are let be, unless they hide what a class has inherited, and so is what a library replaces
        by something of its own.
        """
        changed = [f"{name}.{key}" for name, owner in self.classes.items() for key in self._hiding(owner)]
        for (name, owner, keys, take), old in zip(self.owners, before, strict=True):
            now = _read(owner, take)
            if old is None or (now is not None and all(map(operator.is_, old, now))):
                continue
            for key, value in zip(keys, old, strict=True):
                other = vars(owner).get(key)
                if other is not value and not _of_its_own(name, other):
                    setattr(owner, key, value)
                    changed.append(f"{name}.{key}")
        return changed

    def _hiding(self, owner: type) -> list[str]:
        """The new names of a class that hid inherited functions; they are gone."""
        known = self.known[owner]
        if len(vars(owner)) <= len(known):
            return []
        new = {key: value for key, value in vars(owner).items() if key not in known}
        inherited = {key for base in owner.__mro__[1:] for key in vars(base)}
        hiding = [key for key, value in new.items() if key in inherited and isinstance(value, _CODE)]
        for key in hiding:
            delattr(owner, key)
        known.update(new.keys() - set(hiding))
        return hiding


def _read(owner: Any, take: Callable[[Any], tuple[Any, ...]]) -> tuple[Any, ...] | None:
    try:
        return take(vars(owner))
    except KeyError:  # one of them was taken away
        return None


def _of_its_own(owner: str, value: Any) -> bool:
    module = str(getattr(value, "__module__", ""))
    return module.split(".")[0] == owner.split(".")[0] and not module.startswith("bench.methods")


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


def _tiny() -> bool:
    """Whether the processor rounds the smallest numbers to zero (torch.set_flush_denormal)."""
    return sys.float_info.min * 0.5 == 0.0


def _tiny_back(old: bool) -> None:
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
    ),
    "the filters of warnings": _Part(
        lambda: list(warnings.filters), _filters_back, said=lambda old, now: False
    ),
    "Python's global random generator": _Part(random.getstate, random.setstate, slow=True),
    "the working folder": _Part(os.getcwd, os.chdir),
    "Python's recursion limit": _Part(sys.getrecursionlimit, sys.setrecursionlimit),
    # A method may have set the timer for a moment of its own; handlers are the program's alone.
    "the signal handlers": _Part(_signals, _signals_back, said=lambda old, now: old[1:] != now[1:]),
    "the standard streams": _Part(lambda: (sys.stdout, sys.stderr), _streams_back),
    "how the processor rounds tiny numbers": _Part(_tiny, _tiny_back),
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
        "NumPy's global random generator": _Part(state, back, slow=True),
        "NumPy's handling of errors": _Part(
            lambda: tuple(np.geterr().items()), lambda old: np.seterr(**dict(old))
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
        torch.use_deterministic_algorithms(old[0], warn_only=old[1])
        torch.utils.deterministic.fill_uninitialized_memory = old[2]
        torch.backends.cuda.matmul.allow_tf32 = old[3]
        torch.backends.cudnn.allow_tf32 = old[4]
        torch.backends.cudnn.benchmark = old[5]

    return {
        "torch's global random generator": _Part(generator, generator_back, slow=True),
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
