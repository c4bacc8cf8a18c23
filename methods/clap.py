"""ZS-LP and CLAP: linear probes that start at the text rows (protocol 18.4).

ZS-LP lets the rows move freely. CLAP penalises the distance of each row from the class's text feature, the
more strongly the better zero-shot CLIP knows the class.

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
    """Train one prototype per class by cross-entropy; it starts at the class's mean text feature.

    The logits are s times the cosine between image and prototype. The last epoch is kept, without
    validation. An epoch draws max(1, N / batch) batches from all views of all images, so it touches about N
    of the V N rows.

    Source: Silva-Rodríguez et al. 2024 (protocol 18.4).
    Trains: the prototypes (K, C), which are not of length one.
    Deviates: nothing known.
    Settings:
        underscores: whether class names keep their underscores in the prompts, as in the released code
        extra_template: one more template for the text features; empty: none. On ImageNet the released code
            appends an eighth one by accident
        lr: learning rates of SGD; where there are several, validation chooses
        wd: weight decays to choose from
        batch: rows per step
        epochs: number of epochs
        crop: smallest area of a random crop, as a share of the image
        views: random crops per support image
        max_steps: most training steps, rounded down to whole epochs, at least two; none: no limit
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
    # A step turns a row by about lr s / |w|^2, which is 100 times less on the embedded towers. Quick runs
    # therefore try larger learning rates, and validation chooses.
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
    """Return lambda (K,): the mean softmax probability of the true class over the rows of each class.

    It is 0 for a class without rows.
    """
    true_R = torch.softmax(logits_RK, -1).gather(1, y_R[:, None])[:, 0]
    sums_K = true_R.new_zeros(logits_RK.shape[1]).index_add(0, y_R, true_R)
    return sums_K / torch.bincount(y_R, minlength=len(sums_K)).clamp(min=1)


class Clap(ZsLp):
    """Train ZS-LP with a penalty that keeps well-known classes near their text features.

    The penalty is the mean over classes of lambda_k |w_k - t_k|^2. lambda_k is the probability that
    zero-shot CLIP gives to the true class, averaged over all views of the class's support images. It is
    fixed before training.

    Source: Silva-Rodríguez et al. 2024 (protocol 18.4).
    Trains: the prototypes (K, C), as ZS-LP.
    Deviates: nothing known. It is the published configuration ``l2``, in which the outer update of lambda is
        off.
    """

    name = "clap"
    title = "CLAP"
    # With few classes a learning rate of 10 can diverge because of the penalty.
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
