"""A control of SAFE that goes one stage deeper: a ResNet's layer4 trains with the pool (protocol 15.4).

Legend: K classes, C embedding width, N support images, B batch, T tokens, D tower width.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

from bench.interface import (
    EVAL,
    LAYER3,
    POOLED,
    Batch,
    BenchError,
    Consts,
    Facts,
    Features,
    Params,
    Recipe,
    Stream,
    Task,
    Tensor,
    Values,
    cosine_logits,
    cross_entropy,
    nearest,
    torch,
)
from bench.methods.safe import Safe, blend, train_views

STAGE = "layer4."
NORMS = ("frozen", "live")
BATCHES = 20  # batches that statistics are averaged over: a running mean with momentum 0.1 remembers so many


class SafeLayer4(Safe):
    """Fine-tune layer4 of a ResNet together with the attention pool; everything else is as in SAFE.

    This is a control and no method to use: the paper reports that its accuracy collapses. Features one stage
    earlier are large, 401 kB per image for RN50.

    Source: Zhu et al. 2023 (protocol 15.4).
    Trains: layer4's convolutions and normalisation weights, and the attention pool.
    Deviates: no released code was found. The paper does not say what the BatchNorms of layer4 normalise
        with, so ``bn`` offers both readings. Under ``live``, evaluation uses the mean statistics of 20
        batches of support images under the weights that are evaluated, where PyTorch keeps a running mean
        over the last steps.
    Settings:
        bn: statistics of the BatchNorms in layer4: ``frozen`` (CLIP's throughout) or ``live`` (the batch's
            while training and the support images' afterwards, as in a stage in training mode)
    """

    name = "safe-layer4"
    title = "SAFE (layer4 unfrozen)"
    taps = (LAYER3, POOLED)
    towers = ("rn",)
    fuse = False  # stacked replicas would be grouped convolutions, which are no faster (measured)
    note = "a control, not a method to use"
    settings = {
        **{k: v for k, v in Safe.settings.items() if k not in ("tail", "train_classifier")},
        "bn": "frozen",
    }

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        if settings["bn"] not in NORMS:
            raise BenchError(
                f"{self.name}.bn must be frozen or live, "
                f"not '{settings['bn']}'{nearest(settings['bn'], NORMS)}"
            )
        stream = Stream(tap=LAYER3, views=train_views(settings["augment"]), batch=settings["batch"])
        support = {LAYER3: (EVAL,)} if settings["bn"] == "live" else {}
        return replace(super().recipe(settings, facts), streams={"image": stream}, support=support)

    def prepare(self, task: Task) -> Consts:
        stage = deepcopy(task.backbone.model.visual.layer4).float().requires_grad_(False)
        consts: dict[str, Any] = {**super().prepare(task), "stage": stage.eval(), "live": None}
        if task.settings["bn"] == "live":
            consts["live"] = _cumulative(deepcopy(stage).train())
            consts["batches"] = _batches(task.features(LAYER3, EVAL), task.settings["batch"], task.seed)
        return consts

    def init(self, task: Task, consts: Consts, values: Values, generator: torch.Generator) -> Params:
        start = {f"{STAGE}{name}": p.detach().clone() for name, p in consts["stage"].named_parameters()}
        return {**start, **task.head.copy()}

    def embed(self, params: Params, consts: Consts, x_BDHW: Tensor, training: bool) -> Tensor:
        """Return raw embeddings (B, C) of layer3 maps under the trained stage and pool."""
        own = {name.removeprefix(STAGE): p for name, p in params.items() if name.startswith(STAGE)}
        pool = {name: p for name, p in params.items() if not name.startswith(STAGE)}
        x_BDHW = x_BDHW.to(next(iter(own.values())).dtype)
        if consts["live"] is None:
            y_BDHW = torch.func.functional_call(consts["stage"], own, (x_BDHW,))
        elif training:
            y_BDHW = torch.func.functional_call(consts["live"], {**own, **_blank(consts["live"])}, (x_BDHW,))
        else:
            y_BDHW = torch.func.functional_call(
                consts["stage"], {**own, **self.statistics(own, consts)}, (x_BDHW,)
            )
        return self.tuned(pool, consts, y_BDHW.flatten(2).transpose(1, 2))

    def statistics(self, own: Params, consts: Consts) -> dict[str, Tensor]:
        """Return the mean statistics of all BatchNorms over the support batches.

        Each batch is normalised by its own statistics.
        """
        statistics = _blank(consts["live"])
        with torch.no_grad():
            for x_BDHW in consts["batches"]:
                torch.func.functional_call(
                    consts["live"], {**own, **statistics}, (x_BDHW.to(next(iter(own.values())).dtype),)
                )
        return statistics

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, Tensor]:
        rows = batch["image"]
        f_BC = self.embed(params, consts, rows.x, training=True)
        return {
            "loss": cross_entropy(
                cosine_logits(f_BC, consts["W_KC"], values["train_scale"] * consts["scale"]), rows.y
            )
        }

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        tuned_BC = self.embed(params, consts, features[LAYER3], training=False)
        return cosine_logits(
            blend(tuned_BC, features[POOLED], values["beta"], values["blend"]),
            consts["W_KC"],
            consts["scale"],
        )


def _cumulative(stage: Any) -> Any:
    """Make the stage's BatchNorms average their statistics over all batches that they see, and return it."""
    for module in stage.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    return stage


def _blank(stage: Any) -> dict[str, Tensor]:
    """Return statistics of zeros, so that the stage's own are never written to."""
    return {name: torch.zeros_like(b) for name, b in stage.named_buffers()}


def _batches(x_NDHW: Tensor, size: int, seed: int) -> list[Tensor]:
    """Return at most ``BATCHES`` whole batches of support images, shuffled to mix classes.

    Where there are fewer images than a batch holds, they are one batch.
    """
    order = torch.randperm(len(x_NDHW), generator=torch.Generator().manual_seed(seed))
    size = min(size, len(x_NDHW))
    return [
        x_NDHW[order[i * size : (i + 1) * size].to(x_NDHW.device)]
        for i in range(min(BATCHES, len(x_NDHW) // size))
    ]
