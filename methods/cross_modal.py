"""Cross-Modal adaptation: prompts are training samples beside images, and one head serves both (protocol 13).

Of the SAFE paper's rows "Cross-Modal", the one in Table I is ``cross-modal`` (it fine-tunes the pooling head
too) and the one in Table III is ``cross-modal-linear``. The WiSE forms of all variants are here as well.
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
    """The part that all variants share: half of each batch are prompts, and one head takes both halves.

    There is one cross-entropy over images and texts together. The rows of W are never normalised, s is not
    learned, and AdamW decays every trained tensor. A batch size is legal only if each half is strictly
    smaller than its set (protocol 13.1).

    Settings:
        init: the head's start: ``zeroshot`` (the text rows) or ``random``
        lr: learning rates of AdamW to choose from
        wd: weight decays to choose from, as a factor of the learning rate
        batch: sizes of a batch to choose from, in rows; half of them are prompts
        steps: training steps
        check_every: steps between two checks on validation
        warmup: steps over which the learning rate rises
        augment: views of a support image: ``none``, ``flip`` (the image and its mirror image) or ``rrc:V``
            (the image and V random crops)
    """

    cite = "Lin et al. 2023"

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        return head_recipe(settings, facts, self.taps[0], texts=True)

    def prepare(self, task: Task) -> Consts:
        return {"zeroshot_KC": zero_shot_rows(task), "scale": task.scale}

    def init(self, task: Task, consts: Consts, values: Values, generator: torch.Generator) -> Params:
        return {"W_KC": head_rows(values["init"], consts["zeroshot_KC"], generator)}

    def embed(self, params: Params, consts: Consts, x: Tensor) -> Tensor:
        """Return raw embeddings (B, C) of images from the features at this variant's tap."""
        return x

    def head(self, params: Params, consts: Consts, z_BC: Tensor, values: Values) -> Tensor:
        """Return logits (B, K) of raw embeddings of images or of texts."""
        return cosine_logits(z_BC, params["W_KC"], consts["scale"])

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, Tensor]:
        image, text = batch["image"], batch["text"]
        z_BC = torch.cat([self.embed(params, consts, image.x), text.x])
        return {"loss": cross_entropy(self.head(params, consts, z_BC, values), torch.cat([image.y, text.y]))}

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        return self.head(params, consts, self.embed(params, consts, features[self.taps[0]]), values)


class CrossModal(CrossModalHead):
    """Fine-tune the pooling head and a linear head on images and prompts together.

    The pooling head is a ResNet's attention pool, or a ViT's last block with ``ln_post`` and ``proj``. The
    logits are 0.546 s W norm(z) in training and at test time; for OpenAI's weights the factor is exp(4). It
    is the row "Cross-Modal" of Table I. Validation chooses the checkpoint, learning rate and weight decay.

    Source: Lin et al. 2023 (protocol 13).
    Trains: all tensors of the pooling head, and W (K, C).
    Deviates: where no published batch size is legal (two classes, one shot), the largest that can be drawn
        takes its place.
    Settings:
        train_scale: factor of s in the logits, in training and at test time
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
    # Quick runs have 300 steps and the small towers larger weights, so the learning rates are larger.
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
    """Train a linear head on image features and prompt features together.

    It is the row "Cross-Modal" of Table III. On ImageNet there is no mirrored view, as in that table's
    recipe. Validation chooses the checkpoint and the hyper-parameters.

    Source: Lin et al. 2023 (protocol 13.2).
    Trains: W (K, C), without bias.
    Deviates: the head starts at the text rows, as in the published recipe; the script that the source has
        now starts at random. Where no published batch size is legal (two classes, one shot), the largest that
        can be drawn takes its place.
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
    """Train a bottleneck on unit features and a linear head behind it, on images and prompts together.

    The bottleneck gives x + r (A(x) - x), with A = relu W2 relu W1 and r = 0.2; its output is not normalised
    again. Validation chooses the checkpoint and the hyper-parameters.

    Source: Lin et al. 2023 (protocol 13.2).
    Trains: W1 (H, C), W2 (C, H) and W (K, C), with H = C / ``reduction``.
    Deviates: where no published batch size is legal (two classes, one shot), the largest that can be drawn
        takes its place.
    Settings:
        residual: share r of the bottleneck in its output, from 0 to 1
        reduction: how many times narrower the hidden layer is than the embedding
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
    """Mix the linear head of a fitted ``cross-modal`` half and half with the zero-shot rows.

    The pooling head keeps its fine-tuned weights.

    Source: Lin et al. 2023 (protocol 7.2, 13.2).
    Deviates: nothing known.
    """

    name = "cross-modal-wise"
    title = "Cross-Modal + WiSE-FT"
    cite = "Lin et al. 2023"
    taps, towers = CrossModal.taps, CrossModal.towers
    base = CrossModal
    after = (CrossModal.name,)


class CrossModalLinearWise(HeadEnsemble):
    """Mix the head of a fitted ``cross-modal-linear`` half and half with the zero-shot rows.

    It is the row "Cross-Modal + WiSE-FT" of Table III.

    Source: Lin et al. 2023 (protocol 7.2, 13.3).
    Deviates: nothing known.
    """

    name = "cross-modal-linear-wise"
    title = "Cross-Modal (linear) + WiSE-FT"
    cite = "Lin et al. 2023"
    base = CrossModalLinear
    after = (CrossModalLinear.name,)


class CrossModalAdapterWise(HeadEnsemble):
    """Mix the last linear layer of a fitted ``cross-modal-adapter`` half and half with the zero-shot rows.

    The bottleneck keeps its trained weights.

    Source: Lin et al. 2023 (protocol 7.2).
    Deviates: nothing known.
    """

    name = "cross-modal-adapter-wise"
    title = "Cross-Modal (adapter) + WiSE-FT"
    cite = "Lin et al. 2023"
    base = CrossModalAdapter
    after = (CrossModalAdapter.name,)
