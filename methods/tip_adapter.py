"""Tip-Adapter and Tip-Adapter-F: a cache of the support set beside the text classifier (protocol 12).

SAFE-A uses the same cache on other embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bench.interface import (
    LR,
    POOLED,
    Batch,
    Consts,
    Facts,
    Features,
    Lines,
    Method,
    OptimSpec,
    Params,
    Recipe,
    Schedule,
    Stream,
    Task,
    Tensor,
    Values,
    cosine_logits,
    cross_entropy,
    torch,
    unit,
)

# Per dataset: upper ends of the search for beta and alpha, and the initial alpha; the initial beta is 1
# everywhere (protocol 12.3).
_TABLE = {
    "imagenet": (7, 3, 1.17),
    "caltech101": (12, 5, 3),
    "dtd": (13, 13, 2),
    "eurosat": (12, 10, 2),
    "fgvc_aircraft": (30, 30, 5),
    "ucf101": (7, 3, 3),
    "food101": (10, 10, 1.17),
    "oxford_flowers": (50, 50, 10),
    "oxford_pets": (7, 3, 1.17),
    "stanford_cars": (20, 10, 3),
    "sun397": (12, 10, 1.17),
}

_BLOCK = 1 << 20  # affinities that go through the exponential at once: so many fit a processor's cache


def search_axis(start: float, top: float, steps: int) -> tuple[float, ...]:
    """Return the values of a search axis (protocol 12.3).

    They are ``start + j (top - start) / steps`` for j = 0 .. steps - 1, so the upper end is excluded.
    """
    return tuple(start + j * (top - start) / steps for j in range(steps))


def affinity_logits(a_BN: Tensor, onehot_NK: Tensor, sharpness: float | Tensor) -> Tensor:
    """Return exp(-beta (1 - a)) L, (B, K), for affinities a = q . key and one-hot labels L."""
    return torch.exp(-sharpness * (1.0 - a_BN)) @ onehot_NK


class TipAdapter(Method):
    """Compare an image with a cache of the support images and add their labels to the zero-shot logits.

    A key is the mean of a support image's raw features over random crops, normalised once; its value is the
    image's label, and closer keys count more. The logits are s q W^T + alpha exp(-beta (1 - q key^T)) L.
    Nothing is trained; validation searches alpha and beta.

    Source: Zhang et al. 2022 (protocol 12).
    Deviates: the released code searches alpha and beta on the full validation split, and on ImageNet on the
        test set; here few-shot validation chooses them. Features and keys are fp32, where it uses fp16.
    Settings:
        key_views: random crops that a key is averaged over
        crop: smallest area of a random crop, as a share of the image
        beta_top: upper end of the search for ``beta``, itself excluded; the lower end is 0.1
        alpha_top: upper end of the search for ``alpha``, itself excluded; the lower end is 0.1
        beta_steps: number of values on the search axis of ``beta``
        alpha_steps: number of values on the search axis of ``alpha``
        init_beta: ``beta`` while keys are trained, and without validation
        init_alpha: ``alpha`` while keys are trained, and without validation
        beta: sharpness of the comparison with the keys; none: searched on validation
        alpha: weight of the cache beside the zero-shot logits; none: searched on validation
    """

    name = "tip-adapter"
    title = "Tip-Adapter"
    cite = "Zhang et al. 2022"
    settings = {
        "key_views": 10,
        "crop": 0.5,
        "beta_top": 7.0,
        "alpha_top": 3.0,
        "beta_steps": 200,
        "alpha_steps": 20,
        "init_beta": 1.0,
        "init_alpha": 1.17,
        "beta": None,
        "alpha": None,
    }
    presets = {"quick": {"key_views": 4}}
    per_dataset = {
        name: {"beta_top": float(b), "alpha_top": float(a), "init_alpha": float(i)}
        for name, (b, a, i) in _TABLE.items()
    }
    inference = ("beta", "alpha")

    def _views(self, settings: Values) -> tuple[str, ...]:
        return tuple(f"rrc({settings['crop']:g})#{i}" for i in range(settings["key_views"]))

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        return Recipe(
            support={POOLED: self._views(settings)},
            search={
                "beta": search_axis(0.1, settings["beta_top"], settings["beta_steps"]),
                "alpha": search_axis(0.1, settings["alpha_top"], settings["alpha_steps"]),
            },
            check={"beta": settings["init_beta"], "alpha": settings["init_alpha"]},
            fixed={"beta": settings["init_beta"], "alpha": settings["init_alpha"]},
        )

    def prepare(self, task: Task) -> Consts:
        """Return the cache: raw features averaged over the views and normalised once (protocol 12.1)."""
        views = self._views(task.settings)
        mean_NC = torch.stack([task.features(POOLED, view) for view in views]).mean(0)
        onehot_NK = torch.nn.functional.one_hot(task.labels_N, task.facts.n_classes).to(mean_NC.dtype)
        return {"W_KC": task.W_KC, "scale": task.scale, "keys_NC": unit(mean_NC), "onehot_NK": onehot_NK}

    def _keys(self, params: Params, consts: Consts) -> Tensor:
        return params["keys_NC"] if "keys_NC" in params else consts["keys_NC"]

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        q_BC = unit(features[POOLED])
        cache_BK = affinity_logits(q_BC @ self._keys(params, consts).T, consts["onehot_NK"], values["beta"])
        alpha: float | Tensor = values["alpha"]
        return cosine_logits(q_BC, consts["W_KC"], consts["scale"]) + alpha * cache_BK

    def sweep(
        self, params: Params, consts: Consts, features: Features, values: Values, grid: Sequence[Values]
    ) -> Iterator[tuple[Sequence[int], Lines]]:
        """Compute the affinities once, their class sums once per beta; alpha is a factor (protocol 12.5)."""
        q_BC = unit(features[POOLED])
        a_BN = q_BC @ self._keys(params, consts).T
        text_BK = cosine_logits(q_BC, consts["W_KC"], consts["scale"])
        yield from broadcast_sweep(text_BK, a_BN, consts["onehot_NK"], grid, sharpness="beta", ratio="alpha")


def broadcast_sweep(
    text_BK: Tensor, a_BN: Tensor, onehot_NK: Tensor, grid: Sequence[Values], sharpness: str, ratio: str
) -> Iterator[tuple[Sequence[int], Lines]]:
    """Yield the logits text + ratio * cache of a grid, in one piece for each sharpness.

    ``sharpness`` and ``ratio`` are the names of the two values in ``grid``.
    """
    groups: dict[float, list[int]] = {}
    for i, point in enumerate(grid):
        groups.setdefault(point[sharpness], []).append(i)
    sums = class_sums(a_BN, onehot_NK)
    for value, positions in groups.items():
        yield positions, Lines(text_BK, sums(value), text_BK.new_tensor([grid[i][ratio] for i in positions]))


def class_sums(a_BN: Tensor, onehot_NK: Tensor) -> Callable[[float], Tensor]:
    """Return ``affinity_logits`` as a function of the sharpness.

    Where all classes have the same number of keys, the keys are sorted by class once, and a class is then a
    sum of consecutive rows: N additions for each image in place of N K multiplications. Images lie
    innermost, so that one operation adds all of them.
    """
    y_N, K = onehot_NK.argmax(1), onehot_NK.shape[1]
    each, rest = divmod(len(y_N), K)
    if rest or bool((onehot_NK.sum(0) != each).any()):
        return lambda sharpness: affinity_logits(a_BN, onehot_NK, sharpness)
    behind_KnB = torch.unflatten(a_BN.T[y_N.argsort(stable=True)] - 1.0, 0, (K, each))
    blocks = torch.split(behind_KnB, max(1, _BLOCK // behind_KnB[0].numel()))

    def sums(sharpness: float) -> Tensor:
        parts = [(block * sharpness).exp_().sum(1) for block in blocks]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).T.contiguous()

    return sums


class TipAdapterF(TipAdapter):
    """Train the keys of Tip-Adapter's cache by cross-entropy, at the initial alpha and beta.

    Afterwards few-shot validation chooses the epoch, alpha and beta. The keys are not normalised again while
    they train, and an image sees its own key.

    Source: Zhang et al. 2022 (protocol 12.3, 12.5).
    Trains: the keys (N, C).
    Deviates: the released code chooses the epoch on the test set and reports the better of two test figures;
        here few-shot validation chooses everything, and nothing takes a maximum of test figures. Keys and
        optimiser state are fp32, where it uses fp16; ``half_state`` repeats what that does to the steps
        (protocol 12.4).
    Settings:
        lr: learning rates of AdamW; where there are several, validation chooses
        wd: weight decays to choose from, as a factor of the learning rate
        eps: constant in AdamW's denominator
        epochs: number of epochs
        batch: images per step
        epoch_views: random crops per image that the epochs use in turn, beside those of the keys
        one_bank: whether the epochs use the crops of the keys in place of further ones
        half_state: whether second moments below 3e-8 become 0, as in the released code's fp16 state
    """

    name = "tip-adapter-f"
    title = "Tip-Adapter-F"
    settings = {
        **TipAdapter.settings,
        "lr": (1e-3,),
        "wd": (0.01,),
        "eps": 1e-4,
        "epochs": 20,
        "batch": 256,
        "epoch_views": 20,
        "one_bank": False,
        "half_state": False,
    }
    presets = {"quick": {"key_views": 4, "one_bank": True}}
    per_dataset = {
        name: {**row, **({"epochs": 100, "epoch_views": 100} if name == "eurosat" else {})}
        for name, row in TipAdapter.per_dataset.items()
    }

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        base = super().recipe(settings, facts)
        views = tuple(
            f"rrc({settings['crop']:g})#{settings['key_views'] + i}" for i in range(settings["epoch_views"])
        )
        if settings["one_bank"]:
            views = self._views(settings)
        return Recipe(
            streams={
                "image": Stream(views=views, rows="per-epoch", order="epoch-keep", batch=settings["batch"])
            },
            optim=OptimSpec("adamw", eps=settings["eps"], half_state=settings["half_state"]),
            schedule=Schedule("cosine"),
            epochs=settings["epochs"],
            grid={LR: settings["lr"], "wd": settings["wd"]},
            support=base.support,
            search=base.search,
            check=base.check,
            fixed={**base.fixed, LR: 1e-3, "wd": 0.01},
        )

    def init(self, task: Task, consts: Consts, values: Values, generator: torch.Generator) -> Params:
        return {"keys_NC": consts["keys_NC"].clone()}

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, Tensor]:
        at_start = {**values, "alpha": values["init_alpha"], "beta": values["init_beta"]}
        return {
            "loss": cross_entropy(
                self.logits(params, consts, {POOLED: batch["image"].x}, at_start), batch["image"].y
            )
        }
