"""The interface every method implements: pure functions on named tensors, so that one engine trains one
replica or forty.

A method never sees a test or validation image: its ``Task`` holds the support set and the text side only; the
engine scores validation and evaluation feeds test features one batch at a time (architecture 4, protocol
21.13).

Shape legend: K classes, C embedding width, N support images, P prompts, B batch, G grid points, T tokens, D
tower width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

from bench.errors import BenchError
from bench.lazy import torch
from bench.train.optim import OptimSpec
from bench.train.schedule import Schedule

if TYPE_CHECKING:
    from torch import Tensor

    from bench.clip.backbone import Backbone
    from bench.clip.heads import PoolingHead

# Taps: where in the image tower features are taken, always raw.
PIXELS, LAYER3, DENSE, TOKENS, PREPROJ, POOLED = "pixels", "layer3", "dense", "tokens", "preproj", "pooled"
EVAL, FLIP = "eval", "flip"
SUPPORT, TEXT, PREPARED = "support", "text", "prepared"
LR, WD = "lr", "wd"  # the two grid axes the optimiser itself reads

Params = dict[str, "Tensor"]
Consts = Mapping[str, Any]
Values = Mapping[str, Any]
Features = Mapping[str, "Tensor"]


class FitValues(dict[str, Any]):
    """What a fit may read: settings, and the values of its grid point, but nothing that acts at inference
    only.

    Such a value is not in the fit's key, and not in here. Asking for it by ``[name]``, ``get``, ``pop``,
    ``setdefault`` or ``in`` raises BenchError; what the recipe itself puts under its name, as a grid axis, is
    in the key and may be read.
    """

    def __init__(self, values: Values, method: Method) -> None:
        super().__init__({name: value for name, value in values.items() if name not in method.inference})
        self.method = method.name
        self.late = frozenset(method.inference)

    def with_(self, more: Values) -> FitValues:
        """These values and, where names are the same instead of them, ``more``, all of which may be read."""
        found = FitValues.__new__(FitValues)
        found.update(self)
        found.update(more)
        found.method, found.late = self.method, self.late
        return found

    def _lacks(self, name: object) -> bool:
        """Whether the name is not here; raises BenchError where it must not be asked for."""
        if super().__contains__(name):
            return False
        if name in self.late:
            raise BenchError(
                f"{self.method}: '{name}' acts at inference only (Method.inference) and is not in the fit's "
                "key: "
                "read it in logits or sweep, or take it out of Method.inference"
            )
        return True

    def __missing__(self, name: str) -> Any:
        self._lacks(name)
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return not self._lacks(name)

    def get(self, name: str, default: Any = None) -> Any:
        """The value of that name, or ``default``."""
        return default if self._lacks(name) else self[name]

    def pop(self, name: str, *default: Any) -> Any:
        """The value of that name, which is taken out, or ``default``."""
        self._lacks(name)
        return super().pop(name, *default)

    def setdefault(self, name: str, default: Any = None) -> Any:
        """The value of that name, which is ``default`` from now on where there was none."""
        self._lacks(name)
        return super().setdefault(name, default)


def fit_values(method: Method, values: Values) -> FitValues:
    """The values that a fit of ``method`` may read."""
    return values if isinstance(values, FitValues) else FitValues(values, method)


def scored_values(method: Method, values: Values) -> dict[str, Any]:
    """What ``logits`` gets while a fit is selected: the fit's values, and for the rest the method's own
    defaults.

    What the user set or a preset names for inference is left out, because it must not move the fit.
    """
    return {**{name: method.settings[name] for name in method.inference}, **fit_values(method, values)}


@dataclass(frozen=True)
class Stream:
    """Where the rows of a batch come from.

    ``source``: the support images, the text prompts (raw features (P, C), every prompt a row), or a tensor
    (V, N, ...) that ``prepare`` left in the constants under the name ``tap``. ``views``: with ``rows =
    'union'`` every view of every image is a row (V * N rows, view-major); with ``'per-epoch'`` epoch e uses
    view e mod V (N rows). ``order`` is a batching rule of ``bench.train.batches``; ``batch`` counts rows
    (None: all of them).
    """

    source: str = SUPPORT
    tap: str = POOLED
    views: tuple[str, ...] = (EVAL,)
    rows: str = "union"
    order: str = "restart"
    batch: int | None = None
    first: int = 0


@dataclass(frozen=True)
class Recipe:
    """How a method is trained and selected, as data; part of the fit key.

    ``grid``: per-replica scalars (``lr`` and ``wd`` are read by the optimiser), first axis outermost.
    ``static``: values that change shapes; each combination is a group of its own. ``search``: inference-time
    values tried on validation after training. ``support``: taps and views of the support images that
    ``prepare`` reads. ``check``: values that replace the settings while checkpoints are scored; a value of
    ``Method.inference`` that is neither here nor searched has its class-level default then, whatever the user
    sets. ``fixed``: one value per grid, static and search axis, for protocols without validation. ``select``:
    ``best`` keeps each replica's best checkpoint on validation, ``last`` its final step. Checks come after
    steps 0, check_every, 2 check_every, ..., or after every epoch when that is None. ``criterion``: what is
    best, ``accuracy`` or ``loss``. ``patience``: checks without improvement after which a replica stops.
    ``halving``, for methods that are solved: how often the interval of two decades around the choice on a
    grid axis is halved (protocol 6.1).
    """

    streams: Mapping[str, Stream] = field(default_factory=dict)
    optim: OptimSpec | None = None
    schedule: Schedule | None = None
    steps: int | None = None
    epochs: int | None = None
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    static: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    search: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    support: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    check: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    check_every: int | None = None
    select: str = "best"
    criterion: str = "accuracy"
    patience: int | None = None
    halving: Mapping[str, int] = field(default_factory=dict)


def points(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the axes' values, first axis outermost; one empty point for no axes."""
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


@dataclass(frozen=True)
class Facts:
    """What a recipe may depend on; known before any image is read.

    ``tower``: 'rn', 'vit' or 'other'. ``recipe_as``: the row of a method's per-dataset table. ``prompts``: P,
    the number of prompts of all classes together (text samples of the cross-modal methods). ``recipe_as`` and
    ``preset`` are for ``recipe`` alone: a fit's key holds what it makes of them, not the words, so
    ``task.facts`` refuses them.
    """

    shots: int
    n_classes: int
    n_support: int
    n_prompts: int
    recipe_as: str = field(compare=False)
    tower: str
    preset: str = field(compare=False)


class FitFacts(Facts):
    """The facts as a fit sees them; asking for what is not in its key raises BenchError."""

    @classmethod
    def of(cls, facts: Facts) -> FitFacts:
        """What a fit may know of these facts."""
        return cls(facts.shots, facts.n_classes, facts.n_support, facts.n_prompts, "", facts.tower, "")

    def __getattribute__(self, name: str) -> Any:
        if name in ("recipe_as", "preset"):
            raise BenchError(
                f"task.facts.{name} is not in the fit's key, so a fit may not read it: read it in recipe, "
                "or make a setting of what presets or per_dataset change"
            )
        return super().__getattribute__(name)

    def __repr__(self) -> str:
        known = {name: value for name, value in vars(self).items() if name not in ("recipe_as", "preset")}
        return f"FitFacts({', '.join(f'{name}={value!r}' for name, value in known.items())})"


@dataclass(frozen=True)
class TextSide:
    """The text of a task: raw prompt features (P, C), the class of each (P,), class names, and the frozen
    text tower.
    """

    raw_PC: Tensor
    class_of_P: Tensor
    classnames: tuple[str, ...]
    templates: tuple[str, ...]


@dataclass(frozen=True)
class State:
    """What a fitted method keeps: named tensors, and the settings and values chosen that it was fitted
    with.
    """

    params: Params
    values: Values


@dataclass(frozen=True)
class Task:
    """What a method may learn from; all of it is in the fit's key.

    ``settings``: without the values that act at inference only, which raise BenchError when a fit asks for
    them. ``labels_N``: class of each support image. ``W_KC``: unit classifier rows of the prompt set.
    ``scale``: s = exp(logit scale). ``features(tap, view)``: raw float32 support features (N, ...), in draw
    order. ``slices(tap, view)``: the same in pieces ``(start, (n, ...))``, for taps that do not fit in memory
    at once. ``states``: fitted states named by ``Method.after``.
    """

    facts: Facts
    settings: Values
    labels_N: Tensor
    W_KC: Tensor
    scale: float
    text: TextSide
    features: Callable[[str, str], Tensor]
    slices: Callable[[str, str], Iterator[tuple[int, Tensor]]]
    backbone: Backbone
    states: Mapping[str, State]
    seed: int
    device: str

    @property
    def head(self) -> PoolingHead:
        """The frozen pooling head of the backbone."""
        return self.backbone.head


@dataclass(frozen=True)
class Rows:
    """One stream's part of a batch: features (B, ...), labels (B,) and positions in the view-major pool (B,).

    Position v * N + i is view v of image i, so ``index % N`` is the image.
    """

    x: Tensor
    y: Tensor
    index: Tensor


@dataclass(frozen=True)
class Lines:
    """Logits of G search points that differ by the factor of one term: base + factor * slope, point by point.

    ``base_BK``, ``slope_BK``: (B, K); ``factor_G``: (G,). The right points are counted without forming the
    logits.
    """

    base_BK: Tensor
    slope_BK: Tensor
    factor_G: Tensor

    def logits(self) -> Tensor:
        """(G, B, K)."""
        return self.base_BK + self.factor_G[:, None, None] * self.slope_BK


@dataclass(frozen=True)
class Batch:
    """The rows of every stream for one step, the step number (from 0) and a generator for the method's own
    randomness.

    Steps whose losses read rows alone can be replayed as CUDA graphs; those that read ``step`` or ``noise``
    are not, and tasks that read ``noise`` train one by one.
    """

    rows: Mapping[str, Rows]
    step: int
    noise: torch.Generator

    def __getitem__(self, stream: str) -> Rows:
        return self.rows[stream]


class Method:
    """Base class of all methods: fields at the top say what it is, functions below say what it does.

    All functions are pure: no argument is changed, the same arguments give the same result, and the logits of
    one image do not depend on the other images of the call. ``params`` is one replica's; the engine stacks
    replicas and maps over them. ``values`` holds the settings and the replica's grid point.

    ``inference`` names settings that act at inference only. They are not in a fit's key, so that they can
    change without another fit, and nothing of a fit may depend on them: ``task.settings`` and the ``values``
    of ``solve``, ``init``, ``losses`` and ``combine`` do not hold them and raise BenchError when asked for
    them. ``logits`` and ``sweep`` get all values: those of the evaluation, or, while the fit is selected, the
    recipe's (``check``, ``search``) and for the rest the defaults in ``settings`` here.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    cite: ClassVar[str] = ""
    version: ClassVar[int] = 1
    uses_labels: ClassVar[bool] = True
    prompts: ClassVar[tuple[str, ...]] = ("hand",)
    uses_prompts: ClassVar[bool] = True  # False: it has texts of its own, --prompts does not apply
    taps: ClassVar[tuple[str, ...]] = (POOLED,)
    towers: ClassVar[tuple[str, ...]] = ("rn", "vit", "other")
    after: ClassVar[tuple[str, ...]] = ()
    fuse: ClassVar[bool] = True
    note: ClassVar[str] = ""
    settings: ClassVar[Values] = {}
    presets: ClassVar[Mapping[str, Values]] = {}
    per_dataset: ClassVar[Mapping[str, Values]] = {}
    inference: ClassVar[tuple[str, ...]] = ()

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        """The recipe for one task; the default trains nothing."""
        return Recipe()

    def prepare(self, task: Task) -> Consts:
        """Computed once per task and shared by all replicas: cache keys, teacher logits, classifier."""
        return {"W_KC": task.W_KC, "scale": task.scale}

    def solve(self, task: Task, consts: Consts, values: Values) -> Params:
        """The parameters of a method without gradient training, for one grid point."""
        return {}

    def init(self, task: Task, consts: Consts, values: Values, generator: torch.Generator) -> Params:
        """Initial trainable tensors of one replica."""
        raise NotImplementedError

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, Tensor]:
        """Named scalar losses of one batch."""
        raise NotImplementedError

    def combine(self, grads: Mapping[str, Params], values: Values) -> Params:
        """One gradient from the gradients of the named losses; by default that of ``loss``."""
        return grads["loss"]

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        """(B, K) logits of raw test features, one entry per tap of ``taps``."""
        raise NotImplementedError

    def sweep(
        self, params: Params, consts: Consts, features: Features, values: Values, grid: Sequence[Values]
    ) -> Iterator[tuple[Sequence[int], Tensor | Lines]]:
        """Logits of all search points, in pieces (positions in ``grid``, (g, B, K)); override where points
        share work.

        A piece whose points differ by a factor of one term alone is best given as ``Lines``.
        """
        for i, point in enumerate(grid):
            yield [i], self.logits(params, consts, features, {**values, **point})[None]


def unit(x: Tensor) -> Tensor:
    """Rows divided by their Euclidean length."""
    return x / x.norm(dim=-1, keepdim=True)


def cosine_logits(f_BC: Tensor, W_KC: Tensor, scale: float | Tensor) -> Tensor:
    """(B, K) = s * norm(f) W^T; ``W_KC`` is used as it is (protocol 4, 6.2)."""
    return scale * unit(f_BC) @ W_KC.transpose(-1, -2)


def cross_entropy(logits_BK: Tensor, y_B: Tensor) -> Tensor:
    """Mean softmax cross-entropy; written out because it must map over stacked replicas."""
    picked = logits_BK.gather(-1, y_B[:, None])[:, 0]
    return (torch.logsumexp(logits_BK, dim=-1) - picked).mean()


def steps_of(recipe: Recipe, per_epoch: int) -> int:
    """Optimiser steps of a recipe whose epoch has ``per_epoch`` steps."""
    if recipe.steps is not None:
        return recipe.steps
    assert recipe.epochs is not None, "a trained recipe names steps or epochs"
    return math.ceil(recipe.epochs * per_epoch)
