"""LP++: a linear head beside the text classifier, which has a learned weight per class (protocol 18.3)."""

from __future__ import annotations

from typing import NamedTuple

from bench.interface import (
    POOLED,
    Consts,
    Facts,
    Features,
    Method,
    Params,
    Recipe,
    Task,
    Tensor,
    Values,
    torch,
    unit,
)


class Point(NamedTuple):
    """The trained tensors at one step: head V (K, C), bias b (K,), class weights a (K,)."""

    V_KC: Tensor
    b_K: Tensor
    a_K: Tensor


def initial(f_NC: Tensor, y_N: Tensor, W_KC: Tensor, b_K: Tensor, factor: float) -> Point:
    """Return the start: V holds the sum of each class's features, and b is the given bias.

    a is the same for all classes: ``factor`` times the mean over classes of the mean cosine between a class's
    images and its text.
    """
    V_KC = torch.zeros_like(W_KC).index_add(0, y_N, f_NC)
    cosines_K = (V_KC * W_KC).sum(1) / torch.bincount(y_N, minlength=len(W_KC))
    return Point(V_KC, b_K, (factor * cosines_K.mean()).expand(len(W_KC)))


def step_sizes(f_NC: Tensor, W_KC: Tensor) -> tuple[Tensor, Tensor]:
    """Return the learning rates of (V, b) and of a, which follow from the curvature of the loss.

    They are 4 N / lambda_max(F'F) and N / (4 max_k sum_i cos(i, k)^2).
    """
    gram = f_NC @ f_NC.T if len(f_NC) < f_NC.shape[1] else f_NC.T @ f_NC
    lr_w = 4.0 * len(f_NC) / torch.linalg.eigvalsh(gram)[-1]
    return lr_w, len(f_NC) / (4.0 * (f_NC @ W_KC.T).square().sum(0).max())


def score(at: Point, f_BC: Tensor, cos_BK: Tensor) -> Tensor:
    """Return logits (B, K): V norm(f) + b + a cos, where the cosines have no factor s."""
    return f_BC @ at.V_KC.T + at.b_K + at.a_K * cos_BK


def descend(
    start: Point, f_NC: Tensor, y_N: Tensor, W_KC: Tensor, steps: int, momentum: float, every: int
) -> Point:
    """Train on all rows and return the state after every step, stacked (S, ...).

    V and b move at every step, with momentum. a makes a plain step every ``every`` steps, along the sum of
    all its gradients so far: the source never clears that gradient.
    """
    lr_w, lr_a = step_sizes(f_NC, W_KC)
    cos_NK = f_NC @ W_KC.T
    onehot_NK = torch.nn.functional.one_hot(y_N, len(W_KC)).to(f_NC.dtype)
    at, speed_KC, speed_K, pull_K = (
        start,
        torch.zeros_like(start.V_KC),
        torch.zeros_like(start.b_K),
        torch.zeros_like(start.b_K),
    )
    path = []
    for step in range(1, steps + 1):
        error_NK = (score(at, f_NC, cos_NK).softmax(1) - onehot_NK) / len(f_NC)
        speed_KC = momentum * speed_KC + error_NK.T @ f_NC
        speed_K = momentum * speed_K + error_NK.sum(0)
        pull_K = pull_K + (error_NK * cos_NK).sum(0)
        a_K = at.a_K - lr_a * pull_K if step % every == 0 else at.a_K
        at = Point(at.V_KC - lr_w * speed_KC, at.b_K - lr_w * speed_K, a_K)
        path.append(at)
    return Point(*(torch.stack(parts) for parts in zip(*path, strict=True)))


class LpPlusPlus(Method):
    """Train a linear head together with one weight per class for the text classifier.

    The logits are V norm(f) + b + a cos(f, t). Training sees one random crop of every image, all rows at
    once, at learning rates that are computed from the data. Validation chooses the step: the latest of the
    best.

    Source: Huang et al. 2024 (protocol 18.3).
    Trains: V (K, C), b (K,) and a (K,).
    Deviates: the step is chosen on min(n, 4) validation images per class at n shots, where the released code
        uses n. Parameters are fp32, where it uses fp16.
    Settings:
        steps: training steps
        crop: smallest area of a random crop, as a share of the image
        momentum: momentum of the steps of V and b
        a_every: steps between two steps of a
        init_a: factor of the mean cosine that the weights a start from
    """

    name = "lp++"
    title = "LP++"
    cite = "Huang et al. 2024"
    settings = {"steps": 300, "crop": 0.5, "momentum": 0.9, "a_every": 10, "init_a": 250.0}
    presets = {"quick": {}}  # 300 steps on stored features are quick already

    def _view(self, settings: Values) -> str:
        return f"rrc({settings['crop']:g})#0"

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        last = settings["steps"] - 1
        return Recipe(
            support={POOLED: (self._view(settings),)},
            search={"epoch": tuple(range(last, -1, -1))},  # latest first: the first of equals is the latest
            fixed={"epoch": last},
        )

    def first_bias(self, task: Task) -> Tensor:
        """Return the start (K,) that PyTorch gives a linear layer's bias, drawn from the task's seed."""
        K, C = task.W_KC.shape
        generator = torch.Generator().manual_seed(task.seed)
        bound: float = C**-0.5
        return ((2.0 * torch.rand(K, generator=generator) - 1.0) * bound).to(task.W_KC)

    def solve(self, task: Task, consts: Consts, values: Values) -> Params:
        f_NC = unit(task.features(POOLED, self._view(values)))
        start = initial(f_NC, task.labels_N, task.W_KC, self.first_bias(task), values["init_a"])
        path = descend(
            start, f_NC, task.labels_N, task.W_KC, values["steps"], values["momentum"], values["a_every"]
        )
        return {"V_SKC": path.V_KC, "b_SK": path.b_K, "a_SK": path.a_K}

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        f_BC, epoch = unit(features[POOLED]), int(values["epoch"])
        at = Point(params["V_SKC"][epoch], params["b_SK"][epoch], params["a_SK"][epoch])
        return score(at, f_BC, f_BC @ consts["W_KC"].T)
