"""ZS-LP and CLAP: a linear probe from the text rows, free or held near them class by class (protocol 18.4).

Legend: K classes, C embedding width, V views, N support images, B batch.
"""

from __future__ import annotations

from dataclasses import replace

from bench.interface import (
    POOLED,
    Batch,
    Consts,
    Facts,
    Features,
    Method,
    OptimSpec,
    Params,
    Recipe,
    Stream,
    Task,
    Tensor,
    Values,
    cosine_logits,
    cross_entropy,
    torch,
    unit,
)
from bench.methods.coop import dassl_recipe
from bench.methods.taskres import raw_means


class ZsLp(Method):
    """Trains prototypes w (K, C) from the raw text means t; logits are s times the cosines.

    There is no validation, and the last epoch is kept. An epoch draws max(1, N / batch) batches from all
    views of all images, so that it touches about N of the V N rows.
    """

    name = "zs-lp"
    title = "ZS-LP"
    cite = "Silva-Rodríguez et al. 2024"
    settings = {
        "underscores": True,
        "extra_template": "",
        "lr": (0.1,),
        "wd": (0.0,),
        "batch": 256,
        "epochs": 300,
        "crop": 0.08,
        "views": 20,
        "max_steps": None,
    }
    # Rates are raised (chosen on validation): lr s / |w|^2 turns a row, 100 times less on embedded towers.
    presets = {"quick": {"lr": (10.0, 1.0), "views": 4, "max_steps": 300}}
    per_dataset = {"imagenet": {"extra_template": "a photo of a {}."}}

    def _views(self, settings: Values) -> tuple[str, ...]:
        return tuple(f"rrc({settings['crop']:g})#{i}" for i in range(settings["views"]))

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        rows = Stream(views=self._views(settings), order="images", batch=settings["batch"])
        return dassl_recipe(settings, facts, settings["epochs"], OptimSpec("sgd"), streams={"image": rows})

    def prepare(self, task: Task) -> Consts:
        return {"text_KC": raw_means(task), "scale": task.scale}

    def init(self, task: Task, consts: Consts, values: Values, generator: torch.Generator) -> Params:
        return {"prototypes_KC": consts["text_KC"].clone()}

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, Tensor]:
        rows = batch["image"]
        return {"loss": cross_entropy(self.logits(params, consts, {POOLED: rows.x}, values), rows.y)}

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        return cosine_logits(features[POOLED], unit(params["prototypes_KC"]), consts["scale"])


def class_weights(logits_RK: Tensor, y_R: Tensor) -> Tensor:
    """lambda (K,): mean softmax probability of the true class over a class's rows, 0 for one without rows."""
    true_R = torch.softmax(logits_RK, -1).gather(1, y_R[:, None])[:, 0]
    sums_K = true_R.new_zeros(logits_RK.shape[1]).index_add(0, y_R, true_R)
    return sums_K / torch.bincount(y_R, minlength=len(sums_K)).clamp(min=1)


class Clap(ZsLp):
    """ZS-LP plus the mean over classes of lambda_k |w_k - t_k|^2: what zero-shot CLIP knows well stays close.

    lambda is fixed before training from the zero-shot probabilities on all views of the support set
    (constraint ``l2``, the published configuration; its outer update of lambda is off there).
    """

    name = "clap"
    title = "CLAP"
    # 10 can diverge on the penalty with few classes
    presets = {"quick": {**ZsLp.presets["quick"], "lr": (3.0, 10.0)}}

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        return replace(super().recipe(settings, facts), support={POOLED: self._views(settings)})

    def prepare(self, task: Task) -> Consts:
        consts = super().prepare(task)
        views = self._views(task.settings)
        x_RC = torch.cat([task.features(POOLED, view) for view in views])
        logits_RK = cosine_logits(x_RC, unit(consts["text_KC"]), task.scale)
        return {**consts, "lam_K": class_weights(logits_RK, task.labels_N.repeat(len(views)))}

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, Tensor]:
        apart_K = (params["prototypes_KC"] - consts["text_KC"]).square().sum(-1)
        return {
            "loss": super().losses(params, consts, batch, values)["loss"] + (consts["lam_K"] * apart_K).mean()
        }
