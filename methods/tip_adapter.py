"""Tip-Adapter and Tip-Adapter-F: a key-value cache of the support set beside W (protocol 12)."""

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

# Initial alpha (init beta is 1 everywhere) and the upper ends of the search, per dataset (protocol 12.3).
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

_BLOCK = 1 << 20  # affinities raised at once: what a processor's cache holds


def search_axis(start: float, top: float, steps: int) -> tuple[float, ...]:
    """``start + j (top - start) / steps``, j = 0 .. steps - 1: the upper end is excluded (protocol 12.3)."""
    return tuple(start + j * (top - start) / steps for j in range(steps))


def affinity_logits(a_BN: Tensor, onehot_NK: Tensor, sharpness: float | Tensor) -> Tensor:
    """exp(-beta (1 - a)) L for affinities a = q . key; (B, K)."""
    return torch.exp(-sharpness * (1.0 - a_BN)) @ onehot_NK


class TipAdapter(Method):
    name = "tip-adapter"
    title = "Tip-Adapter"
    cite = "Zhang et al. 2022"
    # beta (sharpness) and alpha (residual ratio) are searched on validation unless they are set.
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
        """Keys are the raw features averaged over the views and normalised once (12.1)."""
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
        """The affinity once, class sums once per beta; alpha is a factor (12.5)."""
        q_BC = unit(features[POOLED])
        a_BN = q_BC @ self._keys(params, consts).T
        text_BK = cosine_logits(q_BC, consts["W_KC"], consts["scale"])
        yield from broadcast_sweep(text_BK, a_BN, consts["onehot_NK"], grid, sharpness="beta", ratio="alpha")


def broadcast_sweep(
    text_BK: Tensor, a_BN: Tensor, onehot_NK: Tensor, grid: Sequence[Values], sharpness: str, ratio: str
) -> Iterator[tuple[Sequence[int], Lines]]:
    """Pieces of a grid over sharpness and residual ratio: text + ratio * cache, one cache per sharpness."""
    groups: dict[float, list[int]] = {}
    for i, point in enumerate(grid):
        groups.setdefault(point[sharpness], []).append(i)
    sums = class_sums(a_BN, onehot_NK)
    for value, positions in groups.items():
        yield positions, Lines(text_BK, sums(value), text_BK.new_tensor([grid[i][ratio] for i in positions]))


def class_sums(a_BN: Tensor, onehot_NK: Tensor) -> Callable[[float], Tensor]:
    """``affinity_logits`` as a function of the sharpness.

    Where all classes have as many keys, keys are put in order once and a class is a sum of consecutive rows:
    N additions for each image instead of N K multiplications. Images lie innermost, so that all of them are
    added at once.
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
    """Trains the keys at the initial alpha, beta; few-shot validation picks epoch, alpha and beta (12.5)."""

    name = "tip-adapter-f"
    title = "Tip-Adapter-F"
    # one_bank: the epochs reuse the views of the cache.
    # half_state: the released code keeps fp16 optimiser state, which changes the steps (protocol 12.4).
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
