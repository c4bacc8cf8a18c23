"""CLIP-Adapter: a small network on the image embedding, mixed with the embedding itself (protocol 11).

Legend: K classes, C embedding width, H hidden units, B batch.
"""

from __future__ import annotations

import math

from bench.interface import (
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
    Task,
    Tensor,
    Values,
    cosine_logits,
    cross_entropy,
    torch,
)
from bench.methods.coop import dassl_recipe, epochs_by_shots


class ClipAdapter(Method):
    """Train a bottleneck of two layers on the image embedding and mix its output with the embedding.

    The bottleneck is A(f) = ReLU(W2 ReLU(W1 f)), without biases. The logits are s times the cosine between
    rho A(f) + (1 - rho) f and the text features. The last epoch is kept; few-shot validation chooses the
    learning rate and rho.

    Source: Gao et al. 2024 (protocol 11).
    Trains: W1 (H, C) and W2 (C, H), with H = C / ``reduction``.
    Deviates: the released code covers ImageNet alone and fixes a learning rate of 0.002 and rho 0.2; the
        paper names a rate of 1e-5 and a search of rho for each dataset. Here validation chooses among both
        rates and four rho: the grid is ours. Protocols without validation use 0.002 and 0.2.
    Settings:
        rho: shares of the bottleneck's output in the mixture to choose from, from 0 to 1
        reduction: how many times narrower the hidden layer is than the embedding
        lr: learning rates of SGD to choose from
        wd: weight decays to choose from
        batch: images per step
        epochs: number of epochs; none: 50 at 1 shot, 100 at 2 to 4, 200 from 8 on
        crop: smallest area of a random crop, as a share of the image
        views: random crops per image that the epochs use in turn; none: a fresh one for every epoch
        max_steps: most training steps, rounded down to whole epochs, at least two; none: no limit
    """

    name = "clip-adapter"
    title = "CLIP-Adapter"
    cite = "Gao et al. 2024"
    prompts = ("coop",)
    settings = {
        "rho": (0.2, 0.4, 0.6, 0.8),
        "reduction": 4,
        "lr": (0.002, 1e-5),
        "wd": (5e-4,),
        "batch": 32,
        "epochs": None,
        "crop": 0.08,
        "views": None,
        "max_steps": None,
    }
    # The embedded towers' logits are eight times flatter than OpenAI's, so quick runs try larger learning
    # rates.
    presets = {"quick": {"lr": (0.2, 0.02, 0.002), "views": 4, "max_steps": 300}}
    per_dataset = {"imagenet": {"epochs": 50}}

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        return dassl_recipe(
            settings,
            facts,
            settings["epochs"] or epochs_by_shots(facts.shots),
            OptimSpec("sgd"),
            grid={LR: settings["lr"], WD: settings["wd"], "rho": settings["rho"]},
            fixed={LR: settings["lr"][0], WD: settings["wd"][0], "rho": settings["rho"][0]},
        )

    def init(self, task: Task, consts: Consts, values: Values, generator: torch.Generator) -> Params:
        W_KC = task.W_KC
        C = W_KC.shape[1]
        H = max(1, C // values["reduction"])

        def uniform(out: int, fan_in: int) -> Tensor:
            bound = 1 / math.sqrt(fan_in)  # torch's default for linear layers
            return (
                torch.empty(out, fan_in, dtype=W_KC.dtype)
                .uniform_(-bound, bound, generator=generator)
                .to(W_KC.device)
            )

        return {"w1_HC": uniform(H, C), "w2_CH": uniform(C, H)}

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, Tensor]:
        rows = batch["image"]
        return {"loss": cross_entropy(self.logits(params, consts, {POOLED: rows.x}, values), rows.y)}

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        f_BC = features[POOLED]
        adapted_BC = torch.relu(torch.relu(f_BC @ params["w1_HC"].T) @ params["w2_CH"].T)
        mixed_BC = values["rho"] * adapted_BC + (1 - values["rho"]) * f_BC
        return cosine_logits(mixed_BC, consts["W_KC"], consts["scale"])
