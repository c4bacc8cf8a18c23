"""Small float64 tasks for the engine's equality tests: no images, no weights, a fraction of a second a fit.

Legend: K classes, N support images, C embedding width, D tower width, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from bench.clip.heads import PoolingHead, attention_pool
from bench.interface import DENSE, EVAL, FLIP, POOLED, TEXT, Method, Recipe, Task
from bench.train import rng, select
from bench.train.loop import Pool
from tests.methods.support import StandIn, make_task, method

K, SHOTS, C, D, T = 5, 4, 12, 16, 9
OVERRIDES: dict[str, dict[str, Any]] = {
    "safe": {"steps": 14, "check_every": 3, "warmup": 2, "lr": (1e-2, 3e-3, 1e-3), "wd": (0.0, 0.1)},
    "cross-modal": {
        "steps": 14,
        "check_every": 3,
        "warmup": 2,
        "lr": (1e-2, 1e-3),
        "wd": (0.0, 0.1),
        "batch": (4, 6),
    },
    "cross-modal-linear": {
        "steps": 14,
        "check_every": 3,
        "warmup": 2,
        "lr": (1e-1, 1e-2),
        "wd": (0.0, 0.1),
        "batch": (4, 6),
    },
    "linear-probe-sgd": {
        "steps": 14,
        "check_every": 3,
        "warmup": 2,
        "lr": (1e-1, 1e-2),
        "wd": (0.0, 0.1),
        "batch": (4,),
    },
    "tip-adapter-f": {
        "key_views": 2,
        "epochs": 6,
        "batch": 7,
        "epoch_views": 3,
        "lr": (1e-1, 1e-2, 1e-3),
        "wd": (0.0, 0.1),
        "beta_steps": 3,
        "alpha_steps": 3,
    },
}


@dataclass
class Case:
    """A method on its task, with everything that ``select.fit`` takes, and images to predict."""

    method: Method
    recipe: Recipe
    task: Task
    consts: Any
    pools: dict[str, Pool]
    val: select.Labelled
    seen: dict[str, torch.Tensor]

    def fit(self, **changes: Any) -> select.Fitted:
        """The fit, with fields of the recipe replaced."""
        return select.fit(
            self.method, replace(self.recipe, **changes), self.task, self.consts, self.pools, self.val
        )

    def logits(self, fitted: select.Fitted) -> torch.Tensor:
        """Float64 logits of unseen images, at the chosen values."""
        values = {**self.task.settings, **fitted.values}
        with torch.no_grad():
            return self.method.logits(fitted.params, self.consts, self.seen, values)


def on(c: Case, device: str) -> Case:
    """The same case with all its tensors on a device."""
    task, known = c.task, c.task.features

    def there(x: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {k: p.to(device) for k, p in x.items()}

    moved = exact(replace(task.head, params=there(task.head.params)))
    text = replace(task.text, raw_PC=task.text.raw_PC.to(device), class_of_P=task.text.class_of_P.to(device))
    task = replace(
        task,
        labels_N=task.labels_N.to(device),
        W_KC=task.W_KC.to(device),
        text=text,
        device=device,
        features=lambda tap, view: known(tap, view).to(device),
        backbone=replace(task.backbone, head=moved),
    )
    pools = {name: replace(p, x=p.x.to(device), y=p.y.to(device)) for name, p in c.pools.items()}
    val = select.Labelled(there(dict(c.val.features)), c.val.y.to(device))
    return Case(c.method, c.recipe, task, c.method.prepare(task), pools, val, there(c.seen))


def exact(made: PoolingHead) -> PoolingHead:
    """The head with copies in its own precision."""
    object.__setattr__(made, "copy", lambda dtype=None: {n: p.clone() for n, p in made.params.items()})
    return made


@cache
def head() -> PoolingHead:
    """A random attention pool that methods copy in float64."""
    g = rng.generator(3, "head")
    shapes = {"positional_embedding": (T + 1, D), "c_proj.weight": (C, D), "c_proj.bias": (C,)}
    shapes |= {f"{n}_proj.weight": (D, D) for n in "qkv"} | {f"{n}_proj.bias": (D,) for n in "qkv"}
    return exact(
        attention_pool(
            {n: 0.3 * torch.randn(s, generator=g, dtype=torch.float64) for n, s in shapes.items()}, 4
        )
    )


def case(name: str, seed: int = 1, shots: int = SHOTS, **more: Any) -> Case:
    """A method on features that its classes explain in part; seeds differ in images, orders and starts."""
    made, pool = method(name), head()
    centre_KTD = torch.randn(K, T, D, generator=rng.generator(4, "classes"), dtype=torch.float64)

    def images(n: int, *purpose: str) -> dict[str, torch.Tensor]:
        noise = torch.randn(n, T, D, generator=rng.generator(4 + seed, *purpose), dtype=torch.float64)
        x_nTD = centre_KTD[torch.arange(n) % K] + 1.5 * noise
        return {DENSE: x_nTD, POOLED: pool(pool.params, x_nTD)}

    N = K * shots
    views = [EVAL, FLIP, *(f"rrc(0.5)#{i}" for i in range(8))]
    known = {(tap, view): x for view in views for tap, x in images(N, "train", view).items()}
    raw_PC = torch.randn(3 * K, C, generator=rng.generator(6, "text"), dtype=torch.float64)
    task = make_task(
        made,
        torch.arange(N) % K,
        raw_PC,
        class_of=[p // 3 for p in range(3 * K)],
        features=known,
        scale=20.0,
        backbone=StandIn(head=pool, scale=20.0),
        overrides={**OVERRIDES[name], **more},
    )
    task = replace(task, seed=seed)
    recipe = made.recipe(task.settings, task.facts)
    pools = {
        stream: Pool(raw_PC, task.text.class_of_P)
        if s.source == TEXT
        else Pool(torch.cat([known[s.tap, v] for v in s.views]), task.labels_N, len(s.views))
        for stream, s in recipe.streams.items()
    }
    val = select.Labelled(images(4 * K, "val"), torch.arange(4 * K) % K)
    return Case(made, recipe, task, made.prepare(task), pools, val, images(40, "test"))
