"""Compute a lower bound on what a fit costs, from its recipe and the backbone's shapes, without torch.

The cost is counted in operations and bytes: matrix products (two operations for a multiply-add) and the
traffic of weights, optimiser state and features. ``Device.seconds`` turns both into the least time on a
device with so many operations and bytes a second. The model knows no method by name: it infers what is
trained from the taps that the recipe's streams read, and from the text that a method says it learns.

Legend: R replicas, B batch, K classes, N support images, C embedding width, T tokens, D tower width, H heads,
L text tokens.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from bench.clip.backbone import BackboneSpec
from bench.plan import batches, needs
from bench.plan.cells import Planned
from bench.recipe import (
    DENSE,
    LAYER3,
    PIXELS,
    SUPPORT,
    TEXT,
    Recipe,
    drawn,
    legal,
    points,
    steps_of,
    steps_per_epoch,
)

NAME_TOKENS = 4  # fewest tokens of a learned prompt besides its context: start, name, full stop, end
LAYER4_SHARE = 0.2  # the part of a ResNet tower's operations that its last stage takes


@dataclass(frozen=True)
class Cost:
    """A number of floating-point operations, and of bytes moved to and from memory."""

    flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    def times(self, n: float) -> Cost:
        """Return ``n`` times this cost."""
        return Cost(self.flops * n, self.bytes * n)


@dataclass(frozen=True)
class Device:
    """A roofline: the operations and the bytes that a device handles per second."""

    name: str
    flops: float
    bytes: float

    def seconds(self, cost: Cost) -> float:
        """Return the least time in seconds that the cost can take on this device."""
        return max(cost.flops / self.flops, cost.bytes / self.bytes)


# fp32 without tensor cores, as training runs (TF32 is off); vendor's figures.
H100 = Device("NVIDIA H100 SXM", 67e12, 3.35e12)


def this_processor(side: int = 768) -> Device:
    """Measure the roofline of this processor with NumPy: the best of five products and of five copies."""
    a, wide = np.ones((side, side), np.float32), np.ones(1 << 23, np.float32)
    to = np.empty_like(wide)
    product = min(_clock(lambda: a @ a) for _ in range(5))
    copy = min(_clock(lambda: np.copyto(to, wide)) for _ in range(5))
    return Device("this processor", 2 * side**3 / product, 2 * wide.nbytes / copy)


def _clock(fn: object) -> float:
    """Return the seconds that one call takes."""
    assert callable(fn)
    began = time.perf_counter()
    fn()
    return time.perf_counter() - began


@dataclass(frozen=True)
class Shapes:
    """The sizes of a backbone.

    ``tokens``: how many enter the pooling head. ``tower``: operations of one image's forward pass.
    """

    family: str
    width: int
    out: int
    tokens: int
    heads: int
    tower: float
    text_width: int
    text_layers: int


def shapes(spec: BackboneSpec) -> Shapes:
    """Return the sizes that an architecture's configuration implies."""
    config = spec.config
    vision, text, C = config["vision_cfg"], config["text_cfg"], int(config["embed_dim"])
    tw, tl = int(text.get("width", 512)), int(text.get("layers", 12))
    if spec.family == "rn":
        width, layers = int(vision.get("width", 64)), vision["layers"]
        D, T = 32 * width, (spec.image_size // 32) ** 2 + 1
        return Shapes("rn", D, C, T, D // 64, _resnet(width, layers, spec.image_size), tw, tl)
    D = int(vision.get("width", 768))
    patch = int(vision.get("patch_size", 16))
    T = (spec.image_size // patch) ** 2 + 1
    layers = vision.get("layers", 12)
    depth = int(layers) if isinstance(layers, int) else sum(layers)
    tower = depth * _block(T, D) + 2.0 * (T - 1) * 3 * patch**2 * D
    return Shapes(spec.family, D, C, T, D // int(vision.get("head_width", 64)), tower, tw, tl)


def _block(T: int, D: int) -> float:
    """Return the operations of a transformer block on T tokens."""
    return 2.0 * T * 12 * D * D + 4.0 * T * T * D


def _resnet(width: int, layers: list[int], image: int) -> float:
    """Return the operations of a ModifiedResNet up to its attention pool: the stem, then bottlenecks."""
    half = image // 2
    macs = half**2 * 9.0 * (3 * width / 2 + (width / 2) ** 2 + (width / 2) * width)
    side, into = image // 4, width
    for stage, depth in enumerate(layers):
        planes = width * 2**stage
        after = side if stage == 0 else side // 2
        for i in range(depth):
            # The blur pool comes after both convolutions of a strided block, so these run at full size.
            before = side if i == 0 else after
            macs += before**2 * (into * planes + 9 * planes**2) + after**2 * 4 * planes**2
            macs += after**2 * into * 4 * planes if i == 0 else 0.0
            into = 4 * planes
        side = after
    return 2.0 * macs


def head_parameters(s: Shapes) -> int:
    """Return the number of parameters of a pooling head."""
    D = s.width
    if s.family == "rn":
        return 3 * (D * D + D) + s.out * (D + 1) + s.tokens * D
    return 12 * D * D + 13 * D + 2 * D + D * s.out


def head_forward(s: Shapes, replicas: int = 1) -> float:
    """Return the operations of the folded head for one image: no keys, no values, one query."""
    square = 3 if s.family == "rn" else 12
    return replicas * 2.0 * (square * s.width**2 + 2 * s.heads * s.tokens * s.width + s.width * s.out)


def text_forward(s: Shapes, L: int) -> float:
    """Return the operations of the text tower for one prompt of L tokens."""
    return s.text_layers * _block(L, s.text_width) + 2.0 * s.text_width * s.out


def prompts_forward(s: Shapes, K: int, common: int, own: int) -> float:
    """Return the operations of the text tower for K prompts of ``own`` tokens each behind ``common`` ones.

    A row holds the common tokens once (bench.clip.packed_text), and only end tokens leave the last block.
    """
    D = s.text_width
    behind: float = min(K * own, (6.0 * D * common) ** 0.5)
    row = common + behind
    T = K * own / behind * row
    attention = 6.0 * T * D * D + 4.0 * D * T * row
    return s.text_layers * attention + 18.0 * D * D * ((s.text_layers - 1) * T + K) + 2.0 * K * D * s.out


@dataclass(frozen=True)
class _Trained:
    """The size of what a recipe trains.

    ``parameters``: how many numbers. ``per_image``, ``per_step``: forward operations. ``backward``:
    operations of the backward pass, as a multiple of the forward pass. ``row_bytes``: bytes of an image's
    features.
    """

    parameters: float
    per_image: float
    per_step: float = 0.0
    backward: float = 2.0
    row_bytes: float = 0.0


def _trained(fit: Planned, recipe: Recipe, s: Shapes) -> _Trained:
    """Return what a recipe trains, inferred from its taps and from the text that the method learns."""
    K, C = fit.facts.n_classes, s.out
    taps = {stream.tap for stream in recipe.streams.values() if stream.source != TEXT}
    rows = float(K * C)
    if PIXELS in taps:
        n = s.tower / 2 / s.tokens  # a rough estimate: every weight is used once per token
        return _Trained(n, s.tower + 2 * rows, row_bytes=4.0 * 3 * fit.backbone.image_size**2)
    if LAYER3 in taps:
        return _Trained(
            0.6 * s.width**2 * 3 + head_parameters(s), LAYER4_SHARE * s.tower + head_forward(s) + 2 * rows
        )
    if DENSE in taps:
        return _Trained(
            head_parameters(s) + rows, head_forward(s) + 2 * rows, row_bytes=2.0 * s.tokens * s.width
        )
    if learned := fit.learned:
        # Every step computes the classifier with the text tower. The tower's weights are not trained, so its
        # backward pass forms no gradients of weights.
        forward = prompts_forward(s, K, 1 + learned.shared, learned.own + NAME_TOKENS - 1)
        return _Trained(float((learned.shared + learned.own) * s.text_width), 2 * rows, forward, 1.0, 2.0 * C)
    cached = float(fit.facts.n_support * C) if recipe.support else 0.0
    return _Trained(rows + cached, 2 * (rows + cached), row_bytes=2.0 * C)


def _rows(fit: Planned, recipe: Recipe) -> tuple[int, int]:
    """Return the images in a batch, and the steps in an epoch of the longest stream."""
    images, longest = 0, 1
    for stream in recipe.streams.values():
        size = batches.size(stream, fit.facts)
        total, batch = drawn(stream, *size)
        if legal(stream.order, total, batch):
            longest = max(longest, steps_per_epoch(stream.order, total, batch, size[0]))
        images += min(total, batch) if stream.source == SUPPORT else 0
    return images, longest


def step(fit: Planned) -> Cost:
    """Return the cost of one step of one replica: forward pass, backward pass and update."""
    recipe, s = fit.recipe, shapes(fit.backbone)
    assert recipe.optim is not None
    t, (B, _) = _trained(fit, recipe, s), _rows(fit, recipe)
    flops = (1 + t.backward) * (B * t.per_image + t.per_step)
    # Both passes read the weights, and one writes gradients. The update reads and writes weights and moments,
    # and reads the gradients.
    moments = 1 if recipe.optim.name == "sgd" else 2
    return Cost(flops, 4.0 * t.parameters * (2 + 1 + 3 + 2 * moments) + B * t.row_bytes)


def steps(fit: Planned) -> int:
    """Return the number of optimiser steps, which all grid points take together; 0 for a closed form."""
    return steps_of(fit.recipe, _rows(fit, fit.recipe)[1]) if fit.recipe.optim else 0


def whole(fit: Planned) -> Cost:
    """Return the cost of a fit: all steps of all grid points, the validation checks, and the search."""
    recipe, s = fit.recipe, shapes(fit.backbone)
    K, n_val = fit.facts.n_classes, len(fit.draw.val.paths) if needs.scores_validation(fit) else 0
    R = len(points({**recipe.grid, **recipe.static}))
    first = len(next(iter(recipe.search.values()))) if recipe.search else 0
    # All points of a search share one product, which is summed over the classes' rows for each value of the
    # first axis.
    cost = Cost(2.0 * n_val * fit.facts.n_support * (s.out + first)) if first else Cost()
    if recipe.optim is None:
        return cost + Cost(2.0 * R * n_val * K * s.out)
    _, per_epoch = _rows(fit, recipe)
    steps = steps_of(recipe, per_epoch)
    checks = -(-steps // (recipe.check_every or per_epoch)) if recipe.select == "best" else 1
    checks = checks if n_val else 0
    t = _trained(fit, recipe, s)
    check = Cost(n_val * t.per_image + t.per_step, 4.0 * t.parameters + 2 * n_val * t.row_bytes)
    return cost + step(fit).times(R * steps) + check.times(R * checks)
