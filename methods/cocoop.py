"""CoCoOp: learned prompts whose context a small network shifts for every image (protocol 9).

Legend: K classes, M context vectors, L tokens, D tower width, C embedding width, H hidden units, B batch.
"""

from __future__ import annotations

import math
from dataclasses import replace

from bench.interface import (
    POOLED,
    Consts,
    Facts,
    Features,
    LearnedText,
    OptimSpec,
    Params,
    Recipe,
    Schedule,
    Task,
    Tensor,
    Values,
    torch,
    unit,
)
from bench.methods.coop import CoOp, context_vectors, dassl_recipe

PROMPTS = 512  # about so many prompts pass the text tower at once when images are scored


class CoCoOp(CoOp):
    """Learn the context of the prompts, as CoOp does, and a network that shifts it for every image.

    The network maps an image's feature, C -> C/16 -> D with biases and ReLU, to one vector, which is added
    to every context vector. Each image therefore has K prompts of its own, in training and at test time.
    The context starts at the words "a photo of a".

    Source: Zhou et al. 2022, CVPR (protocol 9).
    Trains: the context (M, D) and the network.
    Deviates: parameters are fp32, where the released code trains in fp16. With ``max_steps`` the run is cut
        by steps instead of epochs and the cosine falls with every step, because one epoch of single images
        is longer than a short run.
    Settings:
        context: number of context vectors where ``init`` is empty
        init: words that the context starts from; their number replaces ``context``
        reduction: how many times narrower the hidden layer of the network is than the embedding
        batch: images per step
        epochs: number of epochs
        max_steps: most training steps; none: no limit
    """

    name = "cocoop"
    title = "CoCoOp"
    cite = "Zhou et al. 2022"
    note = (
        "costly, so run it by name: "
        "every image needs its own K prompts through the text tower, also at test time"
    )
    settings = {
        "context": 4,
        "init": "a photo of a",
        "position": "end",
        "reduction": 16,
        "lr": (0.002,),
        "wd": (5e-4,),
        "batch": 1,
        "epochs": 10,
        "crop": 0.08,
        "views": None,
        "max_steps": None,
    }
    presets = {"quick": {"lr": (0.05, 0.002), "views": 4, "max_steps": 200}}
    per_dataset = {}

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        full = dassl_recipe({**settings, "max_steps": None}, facts, settings["epochs"], OptimSpec("sgd"))
        steps = settings["epochs"] * max(1, facts.n_support // settings["batch"])
        if settings["max_steps"] is None or settings["max_steps"] >= steps:
            return full
        return replace(full, epochs=None, steps=settings["max_steps"], schedule=Schedule("cosine"))

    def learned_text(self, settings: Values, facts: Facts) -> LearnedText:
        return LearnedText(shared=context_vectors(settings), own=0)

    def init(self, task: Task, consts: Consts, values: Values, generator: torch.Generator) -> Params:
        start = super().init(task, consts, {**values, "class_specific": False}, generator)
        ctx_MD, C = start["ctx"], task.W_KC.shape[1]
        H = max(1, C // values["reduction"])

        def uniform(fan_in: int, *shape: int) -> Tensor:
            bound = 1 / math.sqrt(fan_in)  # PyTorch's default for weights and biases of linear layers
            made = torch.empty(shape, dtype=ctx_MD.dtype).uniform_(-bound, bound, generator=generator)
            return made.to(ctx_MD.device)

        D = ctx_MD.shape[1]
        w1_HC, b1_H, w2_DH, b2_D = uniform(C, H, C), uniform(C, H), uniform(H, D, H), uniform(H, D)
        return {"ctx": ctx_MD, "w1_HC": w1_HC, "b1_H": b1_H, "w2_DH": w2_DH, "b2_D": b2_D}

    def _logits(self, params: Params, consts: Consts, unit_BC: Tensor) -> Tensor:
        """Return logits (B, K) of unit features; all prompts pass the text tower at once."""
        hidden_BH = torch.relu(unit_BC @ params["w1_HC"].T + params["b1_H"])
        shift_BD = hidden_BH @ params["w2_DH"].T + params["b2_D"]
        ctx_B1MD = (params["ctx"] + shift_BD[:, None])[:, None]
        raw_BKC = consts["prompts"].encode(consts["tower"], ctx_B1MD)
        scale: float | Tensor = consts["scale"]
        return scale * (unit(raw_BKC) @ unit_BC[..., None])[..., 0]

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        images = max(1, PROMPTS // len(consts["prompts"].eot_K))
        pieces = torch.split(unit(features[POOLED]), images)
        return torch.cat([self._logits(params, consts, unit_BC) for unit_BC in pieces])
