"""Around every piece of a method's work: what it does to others is undone, and is its own failure.

Three layers keep methods from each other. What is small is copied for each fit (``bench.run.task``). Writes
into what a function was given are noticed by counters (``bench.train.pure``). And here, after each piece of
work: the state of the process, functions of torch and of the program that a plugin replaced, and the contents
of the backbone where the method asked for it. What a plugin does while it is imported or planned is undone in
the same way (``bench.registry``, ``bench.plan.asking``). Plugins are trusted: this finds mistakes, and no ill
will.
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

HEAD, WHOLE = "task.head", "task.backbone"  # what a method asks a task for
_HERE = Path(__file__).resolve().parents[1]
_METHODS = "bench.methods"
Print = dict[str, object]  # by tensor: what its contents come to


class Guard:
    """What one session holds against methods: everybody's functions, and the contents of backbones."""

    def __init__(self) -> None:
        self.names = replaced.names()
        self.towers: dict[tuple[int, str], tuple[Backbone, Print]] = {}  # as they were before anybody asked
        self.asked: defaultdict[str, set[tuple[int, str]]] = defaultdict(set)  # by the method's name

    def lend(self, tower: Backbone, part: str, method: Method) -> None:
        """A method asks for a part of a backbone, which is looked at after its work from now on."""
        key = id(tower), part
        if key not in self.towers:
            with suppress(BenchError):  # not every model has a causal text tower
                _ = tower.text if part == WHOLE else None
            self.towers[key] = tower, _print(tower, part)
        self.asked[method.name].add(key)

    @contextmanager
    def work(self, fit: Planned, doing: str) -> Iterator[None]:
        """Around the work of a fit's method: nothing of it stays but its result.

        Raises BenchError where it changed what is everybody's, which is as before then, and where it tried to
        end the program. Ctrl-C stays what it is, even if a method raises it. What takes longer to look at is
        looked at around plugins alone: the program's own methods are held to it by their tests.
        """
        method, plugin = fit.method, bool(fit.parts.source)
        before = process.held(plugin), self.names.held() if plugin else None
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._mended(method, before)
            if isinstance(error, Exception) or _of_the_program(error.__traceback__):
                raise
            raise BenchError(
                f"{method.name} raised {type(error).__name__} in {doing}, which would end the whole run: "
                "a method that cannot go on raises an error that says why"
            ) from error
        if spoilt := self._mended(method, before):
            raise BenchError(
                f"{method.name} changed {' and '.join(spoilt[:3])} in {doing}; "
                "it was put back: methods are pure functions, and this belongs to the whole program"
            )

    def _mended(self, method: Method, before: tuple[process.Held, replaced.Held | None]) -> list[str]:
        """What a method changed that is everybody's; it is as before."""
        changed = [] if before[1] is None else replaced.put_back(before[1])
        for key in sorted(self.asked.get(method.name, ())):
            tower, known = self.towers[key]
            now = _print(tower, key[1])
            if other := next((name for name in known if known[name] != now.get(name)), ""):
                changed.append(f"{key[1]} ({other})")
                _renew(tower)
            else:  # with copies that were made since
                self.towers[key] = tower, now
        return [*changed, *process.put_back(before[0], sources.tops_of(method))]


def _of_the_program(trace: TracebackType | None) -> bool:
    """Whether an error comes from the program's own code, as when it is told by a signal to end."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    place = Path(trace.tb_frame.f_code.co_filename)
    module = str(trace.tb_frame.f_globals.get("__name__"))
    return place.is_relative_to(_HERE) and not module.startswith(_METHODS)


def _tensors(tower: Backbone, part: str) -> dict[str, Tensor]:
    """The tensors of a part of a backbone, by name; of the whole one those of its copies too."""
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


def _print(tower: Backbone, part: str) -> Print:
    """What the contents of a backbone's part come to, and in which mode its modules are."""
    seen: dict[int, object] = {}
    made: Print = {}
    for name, x in _tensors(tower, part).items():
        if id(x) not in seen:
            seen[id(x)] = (tuple(x.shape), x.dtype, x.requires_grad, _sum(x.detach()))
        made[name] = seen[id(x)]
    if part == WHOLE:
        made["modes"] = [
            (m.training, len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks))
            for m in tower.model.modules()
        ]
    return made


def _sum(x: Tensor) -> object:
    """A checksum of a tensor's bytes; on a GPU one that is made there, of rows and of columns."""
    if x.device.type == "cpu":
        flat = x.contiguous().reshape(-1).view(torch.uint8)
        return zlib.crc32(flat.numpy().data)
    whole = x.double().reshape(len(x), -1) if x.ndim else x.double().reshape(1, 1)
    return whole.sum(0).cpu().numpy().tobytes(), whole.sum(1).cpu().numpy().tobytes()


def _renew(tower: Backbone) -> None:
    """Load a backbone's weights again, into the tensors that others hold."""
    with torch.random.fork_rng():  # a new model draws its first weights; that is not the method's doing
        fresh = backbones.load(tower.spec, tower.device, tower.dtype)
        for name in ("text", "_trunk"):
            if name in tower.__dict__:
                getattr(fresh, name)
    new = _tensors(fresh, WHOLE)
    with torch.no_grad():
        for name, x in _tensors(tower, WHOLE).items():
            if name in new and x.shape == new[name].shape:
                x.data.copy_(new[name])
    mended, right = _print(tower, WHOLE), _print(fresh, WHOLE)
    if mended != right:  # not its tensors alone: a module is another one, or has hooks
        tower.__dict__.clear()
        tower.__dict__.update(fresh.__dict__)
