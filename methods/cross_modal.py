"""Cross-Modal adaptation: prompts are training samples beside images, one head for both (protocol 13).

``cross-modal`` is Table I's row (partial fine-tuning of the pooling head), ``cross-modal-linear`` Table
III's. The WiSE forms of all variants are here too.
"""

from __future__ import annotations

from typing import ClassVar

from bench.interface import (
    DENSE,
    Batch,
    Consts,
    Facts,
    Features,
    Method,
    Params,
    Recipe,
    Task,
    Tensor,
    Values,
    cosine_logits,
    cross_entropy,
    torch,
    unit,
)
from bench.methods.linear_probe_sgd import COMMON, QUICK, head_recipe, head_rows, uniform, zero_shot_rows
from bench.methods.wise_ft import HeadEnsemble


class CrossModalHead(Method):
    """What the variants share: half of each batch are single prompts, one head takes raw features of both.

    One cross-entropy over images and texts together. Rows of W are free (never renormalised), s is not
    learned, AdamW decays every trained tensor. A batch size is legal only if each half is strictly smaller
    than its set (13.1).
    """

    cite = "Lin et al. 2023"

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        return head_recipe(settings, facts, self.taps[0], texts=True)

    def prepare(self, task: Task) -> Consts:
        return {"zeroshot_KC": zero_shot_rows(task), "scale": task.scale}

    def init(self, task: Task, consts: Consts, values: Values, generator: torch.Generator) -> Params:
        return {"W_KC": head_rows(values["init"], consts["zeroshot_KC"], generator)}

    def embed(self, params: Params, consts: Consts, x: Tensor) -> Tensor:
        """Raw embeddings (B, C) of images at this variant's tap."""
        return x

    def head(self, params: Params, consts: Consts, z_BC: Tensor, values: Values) -> Tensor:
        """Logits (B, K) of raw embeddings of either modality."""
        return cosine_logits(z_BC, params["W_KC"], consts["scale"])

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, Tensor]:
        image, text = batch["image"], batch["text"]
        z_BC = torch.cat([self.embed(params, consts, image.x), text.x])
        return {"loss": cross_entropy(self.head(params, consts, z_BC, values), torch.cat([image.y, text.y]))}

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        return self.head(params, consts, self.embed(params, consts, features[self.taps[0]]), values)


class CrossModal(CrossModalHead):
    """Partial fine-tuning of the pooling head and W: Table I's "Cross-Modal".

    The pooling head is the attention pool, or the last block, ln_post and proj. logits = 0.546 s W norm(z),
    exp(4) for OpenAI's weights, in training and at test.
    """

    name = "cross-modal"
    title = "Cross-Modal"
    taps = (DENSE,)
    towers = ("rn", "vit")
    settings: ClassVar[Values] = {
        "init": "zeroshot",
        "lr": (1e-5, 1e-6, 1e-7),
        "wd": (0.0, 1e-3, 1e-5),
        "batch": (8,),
        "train_scale": 0.546,
        **COMMON,
    }
    # raised: 300 steps, and a small tower's larger weights
    presets = {"quick": {**QUICK, "lr": (1e-2, 3e-3, 1e-3)}}

    def prepare(self, task: Task) -> Consts:
        return {**super().prepare(task), "pool": task.head}

    def init(self, task: Task, consts: Consts, values: Values, generator: torch.Generator) -> Params:
        rows_KC = consts["zeroshot_KC"]
        return {**task.head.copy(rows_KC.dtype), "W_KC": head_rows(values["init"], rows_KC, generator)}

    def embed(self, params: Params, consts: Consts, x: Tensor) -> Tensor:
        z_BC: Tensor = consts["pool"]({name: p for name, p in params.items() if name != "W_KC"}, x)
        return z_BC

    def head(self, params: Params, consts: Consts, z_BC: Tensor, values: Values) -> Tensor:
        factor: float | Tensor = values["train_scale"]
        return factor * super().head(params, consts, z_BC, values)


class CrossModalLinear(CrossModalHead):
    """Linear probe on images and texts: Table III's "Cross-Modal".

    On ImageNet there is no flip view, as in that table's recipe.
    """

    name = "cross-modal-linear"
    title = "Cross-Modal (linear)"
    settings: ClassVar[Values] = {
        "init": "zeroshot",
        "lr": (1e-3, 1e-4),
        "wd": (0.0, 0.01, 1e-4),
        "batch": (8, 32),
        **COMMON,
    }
    per_dataset = {"imagenet": {"augment": "none"}}
    presets = {"quick": {**QUICK, "lr": (1e-2, 3e-3, 1e-3), "batch": (32,)}}


class CrossModalAdapter(CrossModalHead):
    """A bottleneck on unit features, then W.

    Its output x + r (A(x) - x), with A = relu W2 relu W1 and r = 0.2, is not renormalised.
    """

    name = "cross-modal-adapter"
    title = "Cross-Modal (adapter)"
    settings: ClassVar[Values] = {
        "init": "zeroshot",
        "lr": (1e-4, 1e-5, 1e-6, 1e-7),
        "wd": (0.0, 1e-3, 1e-5),
        "batch": (8,),
        "residual": 0.2,
        "reduction": 4,
        **COMMON,
    }
    presets = {"quick": {**QUICK, "lr": (1e-2, 3e-3, 1e-3)}}

    def init(self, task: Task, consts: Consts, values: Values, generator: torch.Generator) -> Params:
        rows_KC = consts["zeroshot_KC"]
        C = rows_KC.shape[1]
        H = max(1, C // values["reduction"])
        return {
            "down_HC": uniform((H, C), C, generator, rows_KC),
            "up_CH": uniform((C, H), H, generator, rows_KC),
            "W_KC": head_rows(values["init"], rows_KC, generator),
        }

    def head(self, params: Params, consts: Consts, z_BC: Tensor, values: Values) -> Tensor:
        x_BC = unit(z_BC)
        a_BC = torch.relu(torch.relu(x_BC @ params["down_HC"].T) @ params["up_CH"].T)
        mixed_BC: Tensor = x_BC + values["residual"] * (a_BC - x_BC)
        logits_BK: Tensor = consts["scale"] * mixed_BC @ params["W_KC"].T
        return logits_BK


class CrossModalWise(HeadEnsemble):
    """Cross-Modal (partial), head mixed half and half with zero-shot rows; the pooling head stays tuned."""

    name = "cross-modal-wise"
    title = "Cross-Modal + WiSE-FT"
    cite = "Lin et al. 2023"
    taps, towers = CrossModal.taps, CrossModal.towers
    base = CrossModal
    after = (CrossModal.name,)


class CrossModalLinearWise(HeadEnsemble):
    """Table III's "Cross-Modal + WiSE-FT": the cross-modal linear probe, mixed half and half."""

    name = "cross-modal-linear-wise"
    title = "Cross-Modal (linear) + WiSE-FT"
    cite = "Lin et al. 2023"
    base = CrossModalLinear
    after = (CrossModalLinear.name,)


class CrossModalAdapterWise(HeadEnsemble):
    """The cross-modal adapter with its last linear layer mixed; the bottleneck stays."""

    name = "cross-modal-adapter-wise"
    title = "Cross-Modal (adapter) + WiSE-FT"
    cite = "Lin et al. 2023"
    base = CrossModalAdapter
    after = (CrossModalAdapter.name,)
