"""SAFE: fine-tune the pooling head on the support set, blend with the frozen one at test (protocol 15).

The settings carry the ambiguity register's letters (protocol 17); the defaults are the recommended readings.
"""

from __future__ import annotations

from typing import ClassVar

from bench.interface import (
    DENSE,
    EVAL,
    FLIP,
    LR,
    POOLED,
    WD,
    Batch,
    Consts,
    Facts,
    Features,
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


def train_views(augment: str) -> tuple[str, ...]:
    """Setting ``augment`` (A7) as views: none, flip (centre crop and mirror), rrc:V random resized crops."""
    if augment.startswith("rrc:"):
        return (EVAL, *(f"rrc(0.5)#{i}" for i in range(int(augment[4:]))))
    return {"none": (EVAL,), "flip": (EVAL, FLIP)}[augment]


def blend(tuned_BC: Tensor, frozen_BC: Tensor, beta: float | Tensor, how: str) -> Tensor:
    """beta * frozen + tuned, on raw outputs (Eq. 3) or on unit vectors (A3); shapes (B, C)."""
    return beta * unit(frozen_BC) + unit(tuned_BC) if how == "unit" else beta * frozen_BC + tuned_BC


class Safe(Method):
    name = "safe"
    title = "SAFE"
    cite = "Zhu et al. 2023"
    taps = (DENSE, POOLED)
    towers: ClassVar[tuple[str, ...]] = ("rn", "vit")
    settings = {
        "lr": (1e-4, 1e-5, 1e-6, 1e-7),
        "wd": (0.0, 1e-3, 1e-5),
        "steps": 12800,
        "batch": 8,
        "check_every": 100,
        "warmup": 50,  # A8
        "train_scale": 0.546,  # A2: times s, exp(4) for OpenAI's weights
        "augment": "flip",  # A7: none, flip, rrc:V
        "tail": "all",  # A9, ViT only: all = last block + ln_post + proj, block = last block
        "train_classifier": False,  # A5
        "select_with_blend": False,  # A11
        "criterion": "accuracy",  # A29: accuracy or loss
        "patience": None,  # A13: checks without improvement after which a run may stop
        "blend": "raw",  # A3
        "beta": 0.5,  # A17
    }
    presets = {
        "quick": {"lr": (1e-2, 3e-3, 1e-3), "wd": (0.0,), "steps": 300, "check_every": 25, "warmup": 15}
    }
    inference = ("beta", "blend")

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        return Recipe(
            streams={
                "image": Stream(tap=DENSE, views=train_views(settings["augment"]), batch=settings["batch"])
            },
            optim=OptimSpec("adamw"),
            schedule=Schedule("warmup-cosine-cm", {"warmup_steps": settings["warmup"]}),
            steps=settings["steps"],
            grid={LR: settings["lr"], WD: settings["wd"]},
            check=(
                {"beta": settings["beta"], "blend": settings["blend"]}
                if settings["select_with_blend"]
                else {"beta": 0.0, "blend": "raw"}
            ),
            fixed={LR: settings["lr"][len(settings["lr"]) // 2], WD: 0.0},
            check_every=settings["check_every"],
            criterion=settings["criterion"],
            patience=settings["patience"],
        )

    def prepare(self, task: Task) -> Consts:
        return {"W_KC": task.W_KC, "scale": task.scale, "head": task.head}

    def init(self, task: Task, consts: Consts, values: Values, generator: torch.Generator) -> Params:
        params = {
            name: p
            for name, p in task.head.copy().items()
            if values["tail"] == "all" or task.head.family == "rn" or name.startswith("block.")
        }
        return {**params, "W_KC": task.W_KC.clone()} if values["train_classifier"] else params

    def tuned(self, params: Params, consts: Consts, x_BTD: Tensor) -> Tensor:
        """Raw embeddings (B, C) of the fine-tuned head; untrained tensors come from the frozen one."""
        tuned_BC: Tensor = consts["head"]({**consts["head"].params, **params}, x_BTD)
        return tuned_BC

    def rows(self, params: Params, consts: Consts) -> Tensor:
        """The classifier (K, C): frozen, unless it is trained along (A5)."""
        return params["W_KC"] if "W_KC" in params else consts["W_KC"]

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, Tensor]:
        rows = batch["image"]
        scale = values["train_scale"] * consts["scale"]
        logits_BK = cosine_logits(self.tuned(params, consts, rows.x), self.rows(params, consts), scale)
        return {"loss": cross_entropy(logits_BK, rows.y)}

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        b_BC = blend(
            self.tuned(params, consts, features[DENSE]), features[POOLED], values["beta"], values["blend"]
        )
        return cosine_logits(b_BC, self.rows(params, consts), consts["scale"])
