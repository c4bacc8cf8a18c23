"""Undo what a method changes outside its own cell, and fail the cell for it.

Three layers protect methods from each other. Small tensors are copied for each fit (``bench.run.task``).
Version counters show writes into tensors that a function was given (``bench.train.pure``). This module checks
the rest after each call of a method's functions: the state of the process, functions of torch and of the
program that a plugin may have replaced, and the contents of the backbone if the method asked for it. Changes
that a plugin makes while it is imported or planned are undone in the same way (``bench.registry``,
``bench.plan.asking``). Plugins are trusted: the guard finds mistakes, not attacks.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from bench import process, replaced, sources
from bench.clip import backbone as backbones
from bench.clip.backbone import Backbone
from bench.errors import BenchError
from bench.interface import Method
from bench.plan.cells import Planned

HEAD, WHOLE = "task.head", "task.backbone"  # the parts of a backbone that a method can ask a task for
_HERE = Path(__file__).resolve().parents[1]
_METHODS = "bench.methods"
Print = dict[str, object]  # a fingerprint: tensor's name -> shape, type and checksum of its contents


class Guard:
    """The guard of everything that methods share in a session: the process, functions and backbones."""

    def __init__(self) -> None:
        self.names = replaced.names()
        self.towers: dict[tuple[int, str], tuple[Backbone, Print]] = {}  # (id, part) -> last known contents
        self.asked: defaultdict[str, set[tuple[int, str]]] = defaultdict(set)  # by the method's name

    def lend(self, tower: Backbone, part: str, method: Method) -> None:
        """Note that a method uses a part of a backbone, so that ``work`` checks this part afterwards."""
        key = id(tower), part
        if key not in self.towers:
            with suppress(BenchError):  # not every model has a causal text tower
                _ = tower.text if part == WHOLE else None
            self.towers[key] = tower, _fingerprint(tower, part)
        self.asked[method.name].add(key)

    @contextmanager
    def work(self, fit: Planned, doing: str) -> Iterator[None]:
        """Run the block as a method's work and undo every side effect.

        Raises BenchError if the method changed something that other methods use, which is then restored, or
        if it tried to end the program. KeyboardInterrupt is passed on, even if a method raises it. Checks
        that take longer are made for plugins alone, because tests make them for the program's own methods.
        """
        method, plugin = fit.method, bool(fit.parts.source)
        before = process.held(plugin), self.names.held() if plugin else None
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._put_back(method, before)
            if isinstance(error, Exception) or _of_the_program(error.__traceback__):
                raise
            raise BenchError(
                f"{method.name} raised {type(error).__name__} in {doing}, which would end the whole run: "
                "a method that cannot go on raises an error that says why"
            ) from error
        if spoilt := self._put_back(method, before):
            raise BenchError(
                f"{method.name} changed {' and '.join(spoilt[:3])} in {doing}; "
                "it was put back: methods are pure functions, and this belongs to the whole program"
            )

    def _put_back(self, method: Method, before: tuple[process.Held, replaced.Held | None]) -> list[str]:
        """Restore everything shared that a method changed, and return the names of the changed things."""
        changed = [] if before[1] is None else replaced.put_back(before[1])
        for key in sorted(self.asked.get(method.name, ())):
            tower, known = self.towers[key]
            now = _fingerprint(tower, key[1])
            if other := next((name for name in known if known[name] != now.get(name)), ""):
                changed.append(f"{key[1]} ({other})")
                _renew(tower)
            else:  # the new fingerprint covers copies of the backbone that were made meanwhile
                self.towers[key] = tower, now
        return [*changed, *process.put_back(before[0], sources.tops_of(method))]


def _of_the_program(trace: TracebackType | None) -> bool:
    """Return whether an error was raised in the program's own code, as when a signal tells it to end."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    place = Path(trace.tb_frame.f_code.co_filename)
    module = str(trace.tb_frame.f_globals.get("__name__"))
    return place.is_relative_to(_HERE) and not module.startswith(_METHODS)


def _tensors(tower: Backbone, part: str) -> dict[str, Tensor]:
    """Return the tensors of a part of a backbone by name. The whole backbone includes its copies."""
    head = {f"head.{name}": x for name, x in tower._head.params.items()} if tower._head else {}
    if part == HEAD:
        return head
    text = tower.__dict__.get("text")
    tensors = {**head, **({f"text.{name}": x for name, x in text.params.items()} if text else {})}
    for name, module in (("model", tower.model), ("trunk", tower.__dict__.get("_trunk"))):
        if module is not None:
            tensors |= {
                f"{name}.{key}": x for key, x in (*module.named_parameters(), *module.named_buffers())
            }
    return tensors


def _fingerprint(tower: Backbone, part: str) -> Print:
    """Return the fingerprint of a part of a backbone. For the whole it includes modules' modes and hooks."""
    seen: dict[int, object] = {}
    made: Print = {}
    for name, x in _tensors(tower, part).items():
        if id(x) not in seen:
            seen[id(x)] = (tuple(x.shape), x.dtype, x.requires_grad, _checksum(x.detach()))
        made[name] = seen[id(x)]
    if part == WHOLE:
        made["modes"] = [
            (m.training, len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks))
            for m in tower.model.modules()
        ]
    return made


def _checksum(x: Tensor) -> object:
    """Return a checksum of a tensor's bytes. On a GPU it is the sums of rows and of columns, made there."""
    if x.device.type == "cpu":
        flat = x.contiguous().reshape(-1).view(torch.uint8)
        return zlib.crc32(flat.numpy().data)
    whole = x.double().reshape(len(x), -1) if x.ndim else x.double().reshape(1, 1)
    return whole.sum(0).cpu().numpy().tobytes(), whole.sum(1).cpu().numpy().tobytes()


def _renew(tower: Backbone) -> None:
    """Load a backbone's weights again, into the same tensors, because others hold references to them."""
    with torch.random.fork_rng():  # a new model draws random weights, which must not move other draws
        fresh = backbones.load(tower.spec, tower.device, tower.dtype)
        for name in ("text", "_trunk"):
            if name in tower.__dict__:
                getattr(fresh, name)
    new = _tensors(fresh, WHOLE)
    with torch.no_grad():
        for name, x in _tensors(tower, WHOLE).items():
            if name in new and x.shape == new[name].shape:
                x.data.copy_(new[name])
    mended, right = _fingerprint(tower, WHOLE), _fingerprint(fresh, WHOLE)
    if mended != right:  # not only tensors changed: a module was replaced, or has hooks
        tower.__dict__.clear()
        tower.__dict__.update(fresh.__dict__)
