"""The interface that every method implements: a class with fields and pure functions of named tensors.

A method file imports everything it needs from this one module: the base class ``Method``, the ``Task`` that a
method learns from, the data of recipes (``bench.recipe``), torch and ``Tensor``. Only parts of CLIP, such as
the text tower, come from ``bench.clip``. docs/adding-a-method.md leads from an idea to a row in a table.

A method never sees a test or a validation image. Its ``Task`` holds the support set and the text; the engine
scores the validation images, and an evaluation passes the test features to ``logits`` batch by batch
(protocol 21.13). This module runs nothing by itself and imports neither the engine nor torch: torch is loaded
when a method first uses it.

Names of tensors end in their axes, as in ``W_KC``: K classes, C embedding width, N support images, P prompts,
B images of a batch, G grid or search points, T tokens, D width of the tower.
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
    Tensor = Any  # annotations are never evaluated, and importing the real class would import torch

# Each of these names is explained in docs/adding-a-method.md; a test compares the two lists.
# fmt: off
__all__ = [
    "DENSE", "EVAL", "FLIP", "LAYER3", "LR", "PIXELS", "POOLED", "PREPARED", "PREPROJ", "SUPPORT", "TEXT",
    "TOKENS", "WD", "Batch", "BenchError", "Consts", "Facts", "Features", "FitFacts", "FitValues",
    "LearnedText", "Lines", "Method", "OptimSpec", "Params", "Recipe", "Rows", "Schedule", "State",
    "Stream", "Task", "Tensor", "TextSide", "Values", "cosine_logits", "cross_entropy", "fill",
    "fit_values", "legal", "nearest", "points", "scored_values", "steps_of", "torch", "unit",
]
# fmt: on

Params = dict[str, Tensor]
Consts = Mapping[str, Any]
Features = Mapping[str, Tensor]


def fit_values(method: Method, values: Values) -> FitValues:
    """Return the values without those that act at inference only: what a fit of ``method`` may read."""
    return values if isinstance(values, FitValues) else FitValues(values, method.name, method.inference)


def scored_values(method: Method, values: Values) -> dict[str, Any]:
    """Return the values that ``logits`` gets while validation selects a fit of ``method``.

    Those that act at inference only have the defaults of the method's class here. What the user or a preset
    sets for them must not move the fit, so it is left out.
    """
    return {**{name: method.settings[name] for name in method.inference}, **fit_values(method, values)}


@dataclass(frozen=True)
class Facts:
    """The sizes of one task, known before any image is read. A recipe may depend on them.

    ``shots``: labelled images per class that were asked for; a class that has fewer gives all it has. Where
    all labelled images are given (folds, datasets 4.7), it is the median of the classes' support images
    (``folds.shots``). It is 0 for a method without labels.
    ``n_classes``: K. ``n_support``: N. ``n_prompts``: P, the prompts of all classes together. ``recipe_as``:
    the name of the row in ``Method.per_dataset`` that applies, usually the dataset's. ``tower``: the family
    of the image tower, 'rn', 'vit' or 'other'. ``preset``: 'paper' or 'quick'.

    Only ``recipe`` gets ``recipe_as`` and ``preset``. ``task.facts`` refuses them, because a fit's key holds
    the settings and the recipe that follow from the two, but not the two names.
    """

    shots: int
    n_classes: int
    n_support: int
    n_prompts: int
    recipe_as: str = field(compare=False)
    tower: str
    preset: str = field(compare=False)


class FitFacts(Facts):
    """The facts as a fit sees them: asking for one that is not in the fit's key raises BenchError."""

    @classmethod
    def of(cls, facts: Facts) -> FitFacts:
        """Return these facts without the two that a fit may not read."""
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
    """The text of a task.

    ``raw_PC``: features of all prompts, class after class, not normalised. ``class_of_P``: the class of each
    prompt. ``classnames``: K names in the order of the labels, as the dataset writes them (``green_frog``).
    ``templates``: the templates that the prompts were made of, empty for sets of sentences.
    """

    raw_PC: Tensor
    class_of_P: Tensor
    classnames: tuple[str, ...]
    templates: tuple[str, ...]


@dataclass(frozen=True)
class State:
    """A fitted method as it is kept.

    ``params``: named tensors. ``values``: the settings of the fit and what validation chose, such as a
    learning rate or a searched weight.
    """

    params: Params
    values: Values


@dataclass(frozen=True)
class Task:
    """Everything that a method may learn from. All of it is in the fit's key.

    ``facts``: sizes. ``settings``: the resolved settings; asking for one that acts at inference only raises
    BenchError. ``labels_N``: the class of each support image, 0 to K - 1. ``W_KC``: the zero-shot classifier
    of the prompt set, one row of length 1 per class. ``scale``: s = exp(``logit_scale``) of the backbone.
    ``text``: the prompts behind ``W_KC``. ``features(tap, view)``: float32 support features (N, ...) in the
    order of ``labels_N``, not normalised. ``slices(tap, view)``: yields the same as pieces (position of the
    first row, (n, ...)), for taps too large for memory. ``backbone``: the frozen CLIP. ``states``: the fitted
    states that ``Method.after`` names. ``seed``: of the draw. ``device``: where the tensors are.
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
        """The backbone's frozen pooling head. Raises BenchError if its tower has none."""
        return self.backbone.head


@dataclass(frozen=True)
class Rows:
    """The rows that one stream gives to a batch.

    ``x``: raw features (B, ...). ``y``: classes (B,). ``index``: positions (B,) in the stream's rows. These
    are ordered view by view: position v * N + i is view v of image i, so ``index % N`` is the image.
    """

    x: Tensor
    y: Tensor
    index: Tensor


@dataclass(frozen=True)
class Lines:
    """The logits of G search points that differ by the factor of one term: base + factor * slope.

    ``base_BK`` and ``slope_BK`` hold for all points, ``factor_G`` has one number for each. The engine counts
    the images that each point classifies right without forming all G * B * K logits.
    """

    base_BK: Tensor
    slope_BK: Tensor
    factor_G: Tensor

    def logits(self) -> Tensor:
        """Return the logits of every point, (G, B, K)."""
        return self.base_BK + self.factor_G[:, None, None] * self.slope_BK


def random_bytes(n: int, generator: torch.Generator, pinned: bool = False) -> Tensor:
    """Return the next ``n`` random bytes, uint8 (n,), of a generator on the processor.

    Each number of the generator gives eight bytes. ``pinned`` puts them into page-locked memory, which a GPU
    copies from while it computes.
    """
    words = torch.empty(-(-n // 8), dtype=torch.int64, pin_memory=pinned)
    return words.random_(-(2**63), None, generator=generator).view(torch.uint8)[:n]


@dataclass(frozen=True)
class Batch:
    """One training step's data: the rows of every stream (``batch["image"]``), the step and its randomness.

    ``step`` counts from 0. Random numbers come from ``bytes`` or from ``noise``, a generator on the
    processor. Both start anew at each step, from the same numbers for all replicas. Tasks whose losses read
    either are trained one by one instead of together. Losses that read rows and ``bytes`` alone can be
    replayed as a CUDA graph; losses that read ``step`` or ``noise`` cannot.
    """

    rows: Mapping[str, Rows]
    step: int
    noise: torch.Generator

    def __getitem__(self, stream: str) -> Rows:
        return self.rows[stream]

    def bytes(self, *shape: int) -> Tensor:
        """Return the step's next random bytes, uint8 of this shape, on the device of the rows.

        Dropout: ``x * (batch.bytes(*x.shape) >= round(256 * p)) / (1.0 - p)``. The shape may depend on shapes
        and settings alone. In a batch made by hand the bytes come from ``noise``.
        """
        device = next((rows.y.device for rows in self.rows.values()), None)
        return random_bytes(math.prod(shape), self.noise).to(device).view(shape)


@dataclass(frozen=True)
class LearnedText:
    """The number of vectors that a method trains inside its prompts, through the text tower at every step.

    ``shared``: vectors that all classes have in common. ``own``: vectors that each class has for itself.
    """

    shared: int
    own: int


class Method:
    """The base class of all methods: fields say what a method is, functions say what it does.

    Every function is pure: it changes no argument, the same arguments give the same result, and the logits of
    one image do not depend on the other images of the call. ``params`` are the tensors of one replica, that
    is, of one grid point of a fit; the engine stacks replicas and maps over them. ``values`` holds the
    settings and the replica's grid point.

    Settings named in ``inference`` act after the fit. They are in no fit's key, so that they can change
    without another fit, and nothing of a fit may depend on them: ``task.settings`` and the ``values`` of
    ``solve``, ``init``, ``losses`` and ``combine`` lack them and raise BenchError if asked for one.
    ``logits`` and ``sweep`` get all values. During an evaluation these are what validation chose, or what the
    user set instead. While a fit is selected they are the recipe's (``check``, ``search``) and, for the rest,
    the defaults in ``settings``.

    ``micro`` bounds memory. Example: with ``micro = 64`` a batch of 150 rows goes through ``losses`` in
    pieces of 64, 64 and 22 rows, whose losses and gradients are averaged by rows before ``combine``. It is
    for recipes of one stream whose losses are means over the rows of a batch and use no randomness.
    """

    # Who it is. ``version`` rises whenever the numbers of the method may change.
    name: ClassVar[str]
    title: ClassVar[str]
    cite: ClassVar[str] = ""
    note: ClassVar[str] = ""  # a remark for `bench list methods`
    version: ClassVar[int] = 1
    # What it reads: labels, prompt sets (a cell for each), taps, kinds of towers, states of other methods.
    uses_labels: ClassVar[bool] = True
    prompts: ClassVar[tuple[str, ...]] = ("hand",)
    uses_prompts: ClassVar[bool] = True  # False if it has its own texts: --prompts does not apply
    taps: ClassVar[tuple[str, ...]] = (POOLED,)
    towers: ClassVar[tuple[str, ...]] = ("rn", "vit", "other")
    after: ClassVar[tuple[str, ...]] = ()
    # How it trains: whether its functions map over replicas, and the rows of a piece of a batch.
    fuse: ClassVar[bool] = True
    micro: ClassVar[int | None] = None
    # Its values: defaults, then the dataset's row, then the preset, then --set; those of inference only.
    settings: ClassVar[Values] = {}
    per_dataset: ClassVar[Mapping[str, Values]] = {}
    presets: ClassVar[Mapping[str, Values]] = {}
    inference: ClassVar[tuple[str, ...]] = ()

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        """Return how the method is fitted on a task of these facts; the default trains nothing."""
        return Recipe()

    def learned_text(self, settings: Values, facts: Facts) -> LearnedText | None:
        """Return what is learned inside the prompts, for the estimate of a fit's cost; None if nothing is."""
        return None

    def prepare(self, task: Task) -> Consts:
        """Return what is computed once per task and shared by all replicas, such as the keys of a cache."""
        return {"W_KC": task.W_KC, "scale": task.scale}

    def solve(self, task: Task, consts: Consts, values: Values) -> Params:
        """Return the fitted tensors of a method that is not trained by gradients, for one grid point."""
        return {}

    def init(self, task: Task, consts: Consts, values: Values, generator: torch.Generator) -> Params:
        """Return the tensors from which the training of one replica starts."""
        raise NotImplementedError

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, Tensor]:
        """Return the scalar losses of one batch by name."""
        raise NotImplementedError

    def combine(self, grads: Mapping[str, Params], values: Values) -> Params:
        """Return one gradient made of the gradients of the named losses; by default that of ``loss``."""
        return grads["loss"]

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        """Return logits (B, K) of raw features (B, ...), which have one entry for each tap in ``taps``."""
        raise NotImplementedError

    def sweep(
        self, params: Params, consts: Consts, features: Features, values: Values, grid: Sequence[Values]
    ) -> Iterator[tuple[Sequence[int], Tensor | Lines]]:
        """Yield the logits of all search points in pieces: (positions in ``grid``, logits (g, B, K)).

        Override it if the points share work. Yield ``Lines`` if they differ by the factor of one term.
        """
        for i, point in enumerate(grid):
            yield [i], self.logits(params, consts, features, {**values, **point})[None]


def unit(x: Tensor) -> Tensor:
    """Return the rows divided by their Euclidean length."""
    length: Tensor = x.norm(dim=-1, keepdim=True)
    return x / length


def cosine_logits(f_BC: Tensor, W_KC: Tensor, scale: float | Tensor) -> Tensor:
    """Return s * unit(f) W^T, (B, K). ``W_KC`` is used as it is (protocol 4, 6.2)."""
    return scale * unit(f_BC) @ W_KC.transpose(-1, -2)


def cross_entropy(logits_BK: Tensor, y_B: Tensor) -> Tensor:
    """Return the mean softmax cross-entropy; it maps over stacked replicas.

    ``y_B``: classes from 0 to K - 1. Another number counts as a class of logit 0: the engine checks the
    labels of its streams, and a method checks labels that it makes itself.
    """
    # A mask picks the logits of the classes, with the same bits as ``gather``: on a GPU the backward pass of
    # ``gather`` is slower, and in older versions of PyTorch it waits for the device.
    of_K = torch.arange(logits_BK.shape[-1], device=logits_BK.device)
    picked = torch.where(y_B[:, None] == of_K, logits_BK, 0).sum(-1)
    return (torch.logsumexp(logits_BK, dim=-1) - picked).mean()
