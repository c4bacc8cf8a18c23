"""SAFE: fine-tune the pooling head on the support set and blend it with the frozen one (protocol 15).

The paper leaves details open, which protocol 17 lists as A1, A2, ... with a reading of each. These readings
are the defaults here. The code in brackets after a setting names its item in that list.
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
    """Return the views that the setting ``augment`` (A7) names.

    ``none`` is the centre crop, ``flip`` adds its mirror image, ``rrc:V`` adds V random resized crops.
    """
    if augment.startswith("rrc:"):
        return (EVAL, *(f"rrc(0.5)#{i}" for i in range(int(augment[4:]))))
    return {"none": (EVAL,), "flip": (EVAL, FLIP)}[augment]


def blend(tuned_BC: Tensor, frozen_BC: Tensor, beta: float | Tensor, how: str) -> Tensor:
    """Return beta * frozen + tuned (B, C), of raw outputs (Eq. 3) or, with ``unit``, of unit vectors (A3)."""
    return beta * unit(frozen_BC) + unit(tuned_BC) if how == "unit" else beta * frozen_BC + tuned_BC


class Safe(Method):
    """Fine-tune the last pooling of the image tower, and blend its output with that of the frozen pooling.

    The pooling head is a ResNet's attention pool, or a ViT's last block with ``ln_post`` and projection. It
    trains by cross-entropy against the text classifier, which stays frozen. At test time an image's
    embedding is beta * frozen + tuned. Validation chooses the checkpoint, learning rate and weight decay;
    beta acts at inference only.

    Source: Zhu et al. 2023 (protocol 15, 17).
    Trains: all tensors of the pooling head (RN50: 14,789,632 numbers; ViT-B/16: 7,482,624).
    Deviates: no released code was found. The paper leaves details open, which protocol 17 lists as A1, A2,
        ...; a code in brackets names its item. For example, the factor of the cosines in training is 0.546 s
        (A2).
    Settings:
        lr: learning rates of AdamW to choose from
        wd: weight decays to choose from, as a factor of the learning rate (A25)
        steps: training steps
        batch: rows per step
        check_every: steps between two checks on validation
        warmup: steps over which the learning rate rises (A8)
        train_scale: factor of s in the logits of training; with OpenAI's weights 0.546 s is exp(4) (A2)
        augment: views of a support image: ``none``, ``flip`` (the image and its mirror image) or ``rrc:V``
            (the image and V random crops) (A7)
        tail: what trains of a ViT: ``all`` (last block, ``ln_post`` and projection) or ``block`` (A9)
        train_classifier: whether the text classifier is trained as well (A5)
        select_with_blend: whether checks on validation blend with ``beta`` (A11)
        criterion: what checks compare: ``accuracy`` or ``loss`` (A29)
        patience: checks without improvement after which a run may stop; none: it never stops early (A13)
        blend: what is blended: ``raw`` outputs or ``unit`` vectors (A3)
        beta: weight of the frozen embedding; the tuned one has weight 1 (A17)
    """

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
        "warmup": 50,
        "train_scale": 0.546,
        "augment": "flip",
        "tail": "all",
        "train_classifier": False,
        "select_with_blend": False,
        "criterion": "accuracy",
        "patience": None,
        "blend": "raw",
        "beta": 0.5,
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
        """Return raw embeddings (B, C) of the fine-tuned head; untrained tensors are the frozen ones."""
        tuned_BC: Tensor = consts["head"]({**consts["head"].params, **params}, x_BTD)
        return tuned_BC

    def rows(self, params: Params, consts: Consts) -> Tensor:
        """Return the classifier (K, C): the frozen one, unless it trains as well (A5)."""
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
