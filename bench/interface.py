"""The interface every method implements: pure functions on named tensors.

One engine can thus train one replica or forty. One import line of this module serves a method file: it also
gives the data of recipes (``bench.recipe``), torch and ``Tensor``. A method never sees a test or validation
image: its ``Task`` holds the support set and the text side only; the engine scores validation and evaluation
feeds test features one batch at a time (docs/architecture.md, The interface; protocol 21.13).

Shape legend: K classes, C embedding width, N support images, P prompts, B batch, G grid points, T tokens, D
tower width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from bench.errors import BenchError
from bench.lazy import torch
from bench.names import nearest
from bench.prompts import fill
from bench.recipe import (
    DENSE,
    EVAL,
    FLIP,
    LAYER3,
    LR,
    PIXELS,
    POOLED,
    PREPARED,
    PREPROJ,
    SUPPORT,
    TEXT,
    TOKENS,
    WD,
    OptimSpec,
    Recipe,
    Schedule,
    Stream,
    legal,
    points,
    steps_of,
)
from bench.values import FitValues, Values

if TYPE_CHECKING:
    from torch import Tensor

    from bench.clip.backbone import Backbone
    from bench.clip.heads import PoolingHead
else:
    Tensor = Any  # a name for annotations, which nobody evaluates: the real class would import torch

# What a method file needs, so that it has one import line; the data of a recipe come from bench.recipe.
__all__ = [
    "DENSE",
    "EVAL",
    "FLIP",
    "LAYER3",
    "LR",
    "PIXELS",
    "POOLED",
    "PREPARED",
    "PREPROJ",
    "SUPPORT",
    "TEXT",
    "TOKENS",
    "WD",
    "Batch",
    "BenchError",
    "Consts",
    "Facts",
    "Features",
    "FitFacts",
    "FitValues",
    "LearnedText",
    "Lines",
    "Method",
    "OptimSpec",
    "Params",
    "Recipe",
    "Rows",
    "Schedule",
    "State",
    "Stream",
    "Task",
    "Tensor",
    "TextSide",
    "Values",
    "cosine_logits",
    "cross_entropy",
    "fill",
    "fit_values",
    "legal",
    "nearest",
    "points",
    "scored_values",
    "steps_of",
    "torch",
    "unit",
]

Params = dict[str, Tensor]
Consts = Mapping[str, Any]
Features = Mapping[str, Tensor]


def fit_values(method: Method, values: Values) -> FitValues:
    """The values that a fit of ``method`` may read."""
    return values if isinstance(values, FitValues) else FitValues(values, method.name, method.inference)


def scored_values(method: Method, values: Values) -> dict[str, Any]:
    """What ``logits`` gets while a fit is selected: the fit's values, else the method's own defaults.

    What the user set or a preset names for inference is left out, because it must not move the fit.
    """
    return {**{name: method.settings[name] for name in method.inference}, **fit_values(method, values)}


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
    """A task's text: raw prompt features (P, C), the class of each (P,), class names, frozen text tower."""

    raw_PC: Tensor
    class_of_P: Tensor
    classnames: tuple[str, ...]
    templates: tuple[str, ...]


@dataclass(frozen=True)
class State:
    """What a fitted method keeps: named tensors, and the settings and chosen values it was fitted with."""

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


def random_bytes(n: int, generator: torch.Generator, pinned: bool = False) -> Tensor:
    """The next ``n`` random bytes (n,) uint8 of a generator on the processor, eight for each of its numbers.

    ``pinned``: in memory from which a GPU copies while others go on.
    """
    words = torch.empty(-(-n // 8), dtype=torch.int64, pin_memory=pinned)
    return words.random_(-(2**63), None, generator=generator).view(torch.uint8)[:n]


@dataclass(frozen=True)
class Batch:
    """One step's rows of every stream, the step number (from 0) and the method's randomness.

    Randomness comes as bytes, or as a generator on the processor. Both belong to the step: all replicas meet
    the same, and both begin with the same numbers. Tasks whose losses read either train one by one.

    Steps whose losses read rows and bytes alone can be replayed as CUDA graphs; those that read ``step`` or
    ``noise`` are not.
    """

    rows: Mapping[str, Rows]
    step: int
    noise: torch.Generator

    def __getitem__(self, stream: str) -> Rows:
        return self.rows[stream]

    def bytes(self, *shape: int) -> Tensor:
        """The step's next random bytes, uint8 of this shape on the device of the rows.

        Made for dropout: ``x * (batch.bytes(*x.shape) >= round(256 * p)) / (1.0 - p)``. What is asked for may
        depend on shapes and settings alone. In a batch made by hand they are drawn from ``noise``.
        """
        device = next((rows.y.device for rows in self.rows.values()), None)
        return random_bytes(math.prod(shape), self.noise).to(device).view(shape)


@dataclass(frozen=True)
class LearnedText:
    """Vectors that a method trains inside its prompts, through the text tower at every step.

    ``shared``: those that all classes have in common. ``own``: those that a class has for itself.
    """

    shared: int
    own: int


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

    ``micro`` bounds memory: a training batch of more rows goes through ``losses`` in pieces of so many, the
    last one smaller; the pieces' losses and gradients are averaged by their rows, before ``combine``. It is
    for recipes of one stream, and for losses that are means over a batch's rows and draw no randomness.
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
    micro: ClassVar[int | None] = None
    note: ClassVar[str] = ""
    settings: ClassVar[Values] = {}
    presets: ClassVar[Mapping[str, Values]] = {}
    per_dataset: ClassVar[Mapping[str, Values]] = {}
    inference: ClassVar[tuple[str, ...]] = ()

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        """The recipe for one task; the default trains nothing."""
        return Recipe()

    def learned_text(self, settings: Values, facts: Facts) -> LearnedText | None:
        """What is learned inside the prompts, at a fit's price; None if no gradient passes the text tower."""
        return None

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
        """Logits of all search points, in pieces (positions in ``grid``, (g, B, K)).

        Override it where points share work.

        A piece whose points differ by a factor of one term alone is best given as ``Lines``.
        """
        for i, point in enumerate(grid):
            yield [i], self.logits(params, consts, features, {**values, **point})[None]


def unit(x: Tensor) -> Tensor:
    """Rows divided by their Euclidean length."""
    length: Tensor = x.norm(dim=-1, keepdim=True)
    return x / length


def cosine_logits(f_BC: Tensor, W_KC: Tensor, scale: float | Tensor) -> Tensor:
    """(B, K) = s * norm(f) W^T; ``W_KC`` is used as it is (protocol 4, 6.2)."""
    return scale * unit(f_BC) @ W_KC.transpose(-1, -2)


def cross_entropy(logits_BK: Tensor, y_B: Tensor) -> Tensor:
    """Mean softmax cross-entropy; written out because it must map over stacked replicas.

    ``y_B`` (B,): classes from 0 to K - 1. One outside them counts as a class of logit 0; the engine checks
    the labels of its streams before training, and other labels are the method's to check.
    A mask picks the logits of the classes: on a GPU the backward pass of ``gather`` is slower, and waits for
    the device in older versions of PyTorch. The numbers are the same, bit for bit.
    """
    of_K = torch.arange(logits_BK.shape[-1], device=logits_BK.device)
    picked = torch.where(y_B[:, None] == of_K, logits_BK, 0).sum(-1)
    return (torch.logsumexp(logits_BK, dim=-1) - picked).mean()
