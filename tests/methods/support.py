"""Run a method's functions without images, on given batches with the engine's optimiser and schedule.

Legend: K classes, C embedding width, P prompts, B batch, R replicas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.clip.text import TextTower, classifier, of_arrays
from bench.interface import (
    LR,
    POOLED,
    WD,
    Batch,
    Consts,
    Facts,
    Method,
    Params,
    Rows,
    State,
    Task,
    TextSide,
    points,
)
from bench.plan import settings as resolving
from bench.registry import builtin
from bench.train import loop, optim, rng, schedule
from tests.fixtures.references import parity


def method(name: str) -> Method:
    """A built-in method."""
    return builtin().get(name)


def fixture(name: str) -> dict[str, Any]:
    """A parity file: numbers as float64 or int64 tensors, scalars of shape (), text as NumPy arrays."""
    return {key: _tensor(array) for key, array in parity(name).items()}


def _tensor(array: np.ndarray) -> Any:
    if array.dtype.kind == "f":
        return torch.from_numpy(np.asarray(array, dtype=np.float64))
    return torch.from_numpy(np.asarray(array, dtype=np.int64)) if array.dtype.kind in "iu" else array


def text_tower(name: str) -> TextTower:
    """The float64 text tower that a parity file carries."""
    return of_arrays(parity(name))


def tiny_tower(
    sentences: Sequence[str], width: int = 16, C: int = 8, layers: int = 2, seed: int = 0
) -> TextTower:
    """A random float64 text tower that knows the tokens of the given sentences (and the placeholder X)."""
    from bench.clip.text import bpe_tokenizer

    g = rng.generator(seed, "tiny text tower")
    ids = np.unique(bpe_tokenizer(77)([*sentences, "X a photo of ."]).numpy())
    D = width
    shapes: dict[str, tuple[int, ...]] = {"positional_embedding": (77, D), "text_projection": (D, C)}
    shapes |= {"token_rows": (len(ids), D)}
    shapes |= {"ln_final.weight": (D,), "ln_final.bias": (D,)}
    for i in range(layers):
        parts = {
            "attn.in_proj": (3 * D, D),
            "attn.out_proj": (D, D),
            "mlp.c_fc": (4 * D, D),
            "mlp.c_proj": (D, 4 * D),
        }
        for part, shape in parts.items():
            join = "_" if part.endswith("in_proj") else "."
            shapes |= {f"block{i}.{part}{join}weight": shape, f"block{i}.{part}{join}bias": shape[:1]}
        shapes |= {f"block{i}.{ln}.{p}": (D,) for ln in ("ln_1", "ln_2") for p in ("weight", "bias")}
    arrays = {
        f"tower.{n}": (0.4 * torch.randn(s, generator=g, dtype=torch.float64)).numpy()
        for n, s in shapes.items()
    }
    return of_arrays({**arrays, "tower.token_ids": ids, "tower.num_heads": np.int64(2)})


@dataclass
class StandIn:
    """What methods read of a backbone, without an image tower."""

    text: Any = None
    head: Any = None
    scale: float = 100.0
    family: str = "rn"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Raw text features (P, C) in the tower's precision."""
        return self.text.encode_ids(self.text.tokenize(list(prompts)))


def make_task(
    method: Method,
    labels: Tensor,
    raw_PC: Tensor,
    *,
    class_of: Sequence[int] | None = None,
    classnames: Sequence[str] | None = None,
    templates: tuple[str, ...] = ("a photo of a {}.",),
    scale: float = 100.0,
    features: Mapping[tuple[str, str], Tensor] | None = None,
    backbone: StandIn | None = None,
    shots: int = 0,
    recipe_as: str = "default",
    preset: str = "paper",
    reduce: str = "normalise-then-mean",
    overrides: Mapping[str, Any] | None = None,
    states: Mapping[str, State] | None = None,
) -> Task:
    """A task from features: raw text rows (P, C), and support features by (tap, view).

    There is one row per class unless ``class_of`` says otherwise. ``shots`` 0 means the largest number of
    images of a class.
    """
    classes = list(range(len(raw_PC))) if class_of is None else list(class_of)
    K = max(classes) + 1
    names = tuple(classnames or (f"class {k}" for k in range(K)))
    backbone = backbone or StandIn(scale=scale)
    known = dict(features or {})
    shots = shots or int(torch.bincount(labels, minlength=K).max())
    facts = Facts(shots, K, len(labels), len(raw_PC), recipe_as, backbone.family, preset)
    return Task(
        facts=facts,
        settings=resolving.resolve(method, preset, recipe_as, overrides or {}),
        labels_N=labels,
        W_KC=classifier(raw_PC, classes, K, reduce, names),
        scale=scale,
        text=TextSide(raw_PC, torch.tensor(classes), names, templates),
        features=lambda tap, view: known[tap, view],
        slices=lambda tap, view: iter([(0, known[tap, view])]),
        backbone=backbone,  # type: ignore[arg-type]
        states=states or {},
        seed=1,
        device="cpu",
    )


def batch_of(
    x: Tensor, y: Tensor, step: int = 0, stream: str = "image", index: Tensor | None = None
) -> Batch:
    """A batch of one stream."""
    rows = Rows(x, y, torch.arange(len(y)) if index is None else index)
    return Batch({stream: rows}, step, rng.generator(0, "noise", step))


@dataclass
class Trace:
    """What a run did at every step: losses by name and, after it, combined gradients, parameters, rate."""

    losses: list[dict[str, float]] = field(default_factory=list)
    grads: list[Params] = field(default_factory=list)
    params: list[Params] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def of(self, name: str) -> Tensor:
        """One parameter after every step, (steps, ...)."""
        return torch.stack([p[name] for p in self.params])

    def loss(self, name: str = "loss") -> Tensor:
        """One named loss before every step, (steps,)."""
        return torch.tensor([named[name] for named in self.losses], dtype=torch.float64)


def drive(
    method: Method,
    task: Task,
    batches: Sequence[Batch],
    start: Params,
    *,
    consts: Consts | None = None,
    per_epoch: int = 1,
    epochs: int | None = None,
    replicas: int = 1,
) -> Trace:
    """The recipe's first grid point trained on ``batches`` by the method's functions.

    Gradients, optimiser and schedule are the engine's; ``epochs`` is the length of the planned run (default:
    that of the batches). ``replicas`` > 1 stacks equal copies, which maps over the functions; all copies must
    stay equal.
    """
    recipe = method.recipe(task.settings, task.facts)
    assert recipe.optim is not None and recipe.schedule is not None
    consts = method.prepare(task) if consts is None else consts
    point = points({**recipe.grid, **recipe.static})[0]
    settings = {**task.settings, **point}
    params = loop.stack([start] * replicas)
    steps = len(batches) if epochs is None else epochs * per_epoch
    table = schedule.rates(recipe.schedule, float(settings[LR]), steps, per_epoch)
    first = next(iter(start.values()))
    axes = loop.axes_of([point] * replicas, recipe, first.device, first.dtype)
    optimiser = optim.make(recipe.optim, params, [float(settings.get(WD, 0.0))] * replicas)
    trace = Trace()
    for step, batch in enumerate(batches):
        now = loop.replica(params, 0)
        by_name = method.losses({k: p.detach() for k, p in now.items()}, consts, batch, settings)
        _, grads = loop.gradients(method, consts, params, batch, settings, axes)
        optimiser.step(grads, torch.full((replicas,), float(table[step]), dtype=torch.float64))
        trace.losses.append({name: float(x) for name, x in by_name.items()})
        trace.grads.append({k: g[0].clone() for k, g in grads.items()})
        trace.params.append({k: p.detach()[0].clone() for k, p in params.items()})
        trace.rates.append(float(table[step]))
    for p in params.values():
        torch.testing.assert_close(p, p[:1].expand_as(p), rtol=0.0, atol=1e-12)
    return trace


def score(method: Method, task: Task, params: Params, x: Tensor, tap: str = POOLED, **values: Any) -> Tensor:
    """Logits (B, K) of raw features at one tap, at the settings and ``values``."""
    with torch.no_grad():
        return method.logits(params, method.prepare(task), {tap: x}, {**task.settings, **values})


def close(ours: Tensor, wanted: Tensor, rtol: float = 1e-9) -> None:
    """Equal to ``rtol`` of the largest magnitude of ``wanted``, in float64."""
    assert ours.dtype == torch.float64, ours.dtype
    bound = rtol * float(wanted.abs().max())
    torch.testing.assert_close(ours, wanted.to(torch.float64), rtol=0.0, atol=bound)
