"""CLIP-LoRA: low-rank updates of queries, keys and values in every block of both towers (protocol 18.2).

Legend: N sequences, T tokens, D tower width, r rank, B images, K classes, L text tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.interface import (
    LR,
    PIXELS,
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
    fill,
    torch,
    unit,
)
from bench.methods.linear_probe_sgd import uniform

PARTS = ("q", "k", "v")
# A forward pass of one block: (tower, tokens, low-rank tensors of the block, its number) -> tokens.
Step = Callable[["Blocks", "Tensor", Params, int], "Tensor"]


@dataclass(frozen=True)
class Blocks:
    """The frozen residual blocks of a tower, whose tensors are named ``<stem>.0.ln_1.weight`` and so on.

    ``causal``: tokens attend to earlier tokens only, as in the text tower.
    """

    params: Mapping[str, Tensor]
    stem: str
    layers: int
    heads: int
    activation: Any
    eps: float
    causal: bool = False

    def name(self, i: int) -> str:
        """Return the prefix that the tensors of block i have in ``params``."""
        return f"{self.stem}.{i}"


def low_rank(params: Params, prefix: str) -> Params:
    """Return the tensors of one block without their prefix: ``q.A`` (r, D), ``q.B`` (D, r), and so on."""
    return {name.removeprefix(prefix): p for name, p in params.items() if name.startswith(prefix)}


def merged(weight_3DD: Tensor, low: Params, gamma: float) -> Tensor:
    """Return W + gamma B A for the stacked query, key and value weights (3 D, D)."""
    return weight_3DD + gamma * torch.cat([low[f"{part}.B"] @ low[f"{part}.A"] for part in PARTS])


def thinned(h_NTD: Tensor, keep_NTD: Tensor, grown: float) -> Tensor:
    """Apply dropout: return ``h_NTD`` times ``grown`` where ``keep_NTD`` is set, and 0 elsewhere."""
    return keep_NTD.to(h_NTD.dtype).mul_(grown) * h_NTD  # takes half the time of a masked fill on a processor


def two_branch(
    blocks: Blocks, x_NTD: Tensor, low: Params, i: int, gamma: float, keep_3NTD: Tensor, grown: float
) -> Tensor:
    """Run block i with the update as a branch of its own beside the frozen weights: the form for training.

    Dropout acts on the input of the branch, with one mask for each of query, key and value. The branches
    stay apart also where dropout is 0: the reference merges them there, which gives lower blocks the
    gradient of W alone (protocol 18.2).
    """
    from bench.clip.blocks import attend, linear, mlp, norm

    (N, T, D), params, name = x_NTD.shape, blocks.params, blocks.name(i)
    h_NTD = norm(x_NTD, params, f"{name}.ln_1", blocks.eps)
    frozen = h_NTD @ params[f"{name}.attn.in_proj_weight"].T + params[f"{name}.attn.in_proj_bias"]
    update = [
        thinned(h_NTD, keep, grown) @ low[f"{part}.A"].T @ low[f"{part}.B"].T
        for part, keep in zip(PARTS, keep_3NTD, strict=True)
    ]
    whole = frozen + gamma * torch.cat(update, -1)
    q, k, v = (part.view(N, T, blocks.heads, -1).transpose(1, 2) for part in whole.chunk(3, -1))
    mask_TT = x_NTD.new_full((T, T), float("-inf")).triu(1) if blocks.causal else None
    o_NTD = attend(q, k, v, mask_TT).transpose(1, 2).reshape(N, T, D)
    x_NTD = x_NTD + linear(o_NTD, params, f"{name}.attn.out_proj")
    return x_NTD + mlp(
        norm(x_NTD, params, f"{name}.ln_2", blocks.eps), params, f"{name}.mlp", blocks.activation
    )


def merged_block(blocks: Blocks, x_NTD: Tensor, low: Params, i: int, gamma: float) -> Tensor:
    """Run block i with the update merged into its weights: the form for evaluation."""
    from bench.clip.blocks import block

    name, T = blocks.name(i), x_NTD.shape[1]
    weight = f"{name}.attn.in_proj_weight"
    params = {**blocks.params, weight: merged(blocks.params[weight], low, gamma)}
    mask_TT = x_NTD.new_full((T, T), float("-inf")).triu(1) if blocks.causal else None
    return block(x_NTD, params, name, blocks.heads, blocks.activation, blocks.eps, mask_TT)


class ClipLora(Method):
    """Fine-tune both towers by low-rank updates of the query, key and value weights of every block.

    A weight W becomes W + gamma B A, with gamma = 1 / sqrt(r) and B zero at the start. The loss is
    cross-entropy on s times the cosine, with dropout on the input of the updates. The last step is kept,
    without validation. Every dataset has the same template; the prompt set is not read.

    Source: Zanella and Ben Ayed 2024 (protocol 18.2).
    Trains: A (r, D) and B (D, r) for query, key and value of every block of the image and the text tower.
    Deviates: parameters are fp32, where the released code uses mixed precision. Crops come from a bank of
        ``views`` per image, used in turn; the released code makes a fresh crop every time.
    Settings:
        rank: rank r of the updates
        dropout: probability that an input of an update is set to zero, in steps of 1/256
        template: the prompt of every class; ``{}`` stands for its name
        lr: learning rates of AdamW; where there are several, validation chooses
        wd: weight decays to choose from, as a factor of the learning rate
        floor: the learning rate at which the cosine schedule ends
        batch: images per step
        steps_per_shot: training steps for each shot
        max_steps: most training steps; none: no limit
        crop: smallest area of a random crop, as a share of the image
        views: random crops per image, used in turn
    """

    name = "clip-lora"
    title = "CLIP-LoRA"
    cite = "Zanella and Ben Ayed 2024"
    note = "costly: trains both towers from pixels"
    prompts = ("vanilla",)
    uses_prompts = False
    taps = (PIXELS,)
    towers = ("vit",)
    fuse = False
    settings = {
        "rank": 2,
        "dropout": 0.25,
        "template": "a photo of a {}.",
        "lr": (2e-4,),
        "wd": (0.01,),
        "floor": 1e-6,
        "batch": 32,
        "steps_per_shot": 500,
        "max_steps": None,
        "crop": 0.08,
        "views": 8,
    }
    # Quick runs have few steps, so their learning rate is larger.
    presets = {"quick": {"lr": (1e-3,), "max_steps": 100, "views": 4}}

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        steps = settings["steps_per_shot"] * facts.shots
        steps = min(steps, settings["max_steps"] or steps)
        views = tuple(f"rrc({settings['crop']:g})#{i}" for i in range(settings["views"]))
        return Recipe(
            streams={
                "image": Stream(
                    tap=PIXELS, views=views, rows="per-epoch", order="epoch-keep", batch=settings["batch"]
                )
            },
            optim=OptimSpec("adamw"),
            schedule=Schedule("cosine", {"floor": settings["floor"]}),
            steps=steps,
            grid={LR: settings["lr"], WD: settings["wd"]},
            fixed={LR: settings["lr"][0], WD: settings["wd"][0]},
            select="last",
        )

    def prepare(self, task: Task) -> Consts:
        """Return both towers' blocks, the embedded prompts (K, L, D), their end positions and the scale."""
        text, visual = task.backbone.text, task.backbone.model.visual
        ids_KL = text.tokenize([fill(task.settings["template"], name) for name in task.text.classnames])
        eot_K = ids_KL.argmax(-1)
        L = int(eot_K.max()) + 1
        stem, first = "transformer.resblocks", visual.transformer.resblocks[0]
        weights = {
            n: p.detach().to(torch.promote_types(p.dtype, torch.float32))
            for n, p in visual.named_parameters()
        }
        vision = Blocks(
            weights,
            stem,
            len(visual.transformer.resblocks),
            first.attn.num_heads,
            first.mlp.gelu,
            first.ln_1.eps,
        )
        words = Blocks(text.params, stem, text.layers, text.heads, text.activation, text.eps, causal=True)
        prompts_KLD = text.embed(ids_KL[:, :L]) + text.params["positional_embedding"][:L]
        return {
            "visual": visual,
            "towers": {"vision": vision, "text": words},
            "prompts_KLD": prompts_KLD,
            "eot_K": eot_K.to(prompts_KLD.device),
            "scale": task.scale,
        }

    def init(self, task: Task, consts: Consts, values: Values, generator: torch.Generator) -> Params:
        params, r = {}, values["rank"]
        for tower, blocks in consts["towers"].items():
            for i in range(blocks.layers):
                like = blocks.params[f"{blocks.name(i)}.attn.in_proj_weight"]
                D = like.shape[1]
                for part in PARTS:
                    # the same distribution as Kaiming-uniform with slope sqrt 5, the published start
                    params[f"{tower}.{i}.{part}.A"] = uniform((r, D), D, generator, like)
                    params[f"{tower}.{i}.{part}.B"] = like.new_zeros(D, r)
        return params

    def _score(self, params: Params, consts: Consts, x_BCHW: Tensor, step: Step) -> Tensor:
        """Return logits (B, K), with ``step`` as the forward pass of every block."""
        from bench.clip.blocks import norm

        def through(tower: str, x_NTD: Tensor) -> Tensor:
            blocks = consts["towers"][tower]
            for i in range(blocks.layers):
                x_NTD = step(blocks, x_NTD, low_rank(params, f"{tower}.{i}."), i)
            return x_NTD

        visual, vision, text = consts["visual"], consts["towers"]["vision"], consts["towers"]["text"]
        tokens_BTD = visual._embeds(x_BCHW.to(visual.conv1.weight.dtype)).to(vision.params["proj"].dtype)
        f_BC = (
            norm(through("vision", tokens_BTD)[:, 0], vision.params, "ln_post", vision.eps)
            @ vision.params["proj"]
        )
        words_KLD, eot_K = through("text", consts["prompts_KLD"]), consts["eot_K"]
        last_KD = words_KLD[torch.arange(len(eot_K), device=eot_K.device), eot_K]
        W_KC = unit(norm(last_KD, text.params, "ln_final", text.eps) @ text.params["text_projection"])
        return cosine_logits(f_BC, W_KC, consts["scale"])

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, Tensor]:
        gamma, p = values["rank"] ** -0.5, values["dropout"]
        grown = float(torch.ones(()) / (1.0 - p))  # of single precision, as what it multiplies

        def step(blocks: Blocks, x_NTD: Tensor, low: Params, i: int) -> Tensor:
            # a byte of noise decides: p counts in steps of 1/256
            keep_3NTD = batch.bytes(len(PARTS), *x_NTD.shape) >= round(256 * p)
            return two_branch(blocks, x_NTD, low, i, gamma, keep_3NTD, grown)

        return {"loss": cross_entropy(self._score(params, consts, batch["image"].x, step), batch["image"].y)}

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        gamma = values["rank"] ** -0.5
        return self._score(
            params, consts, features[PIXELS], lambda blocks, x, low, i: merged_block(blocks, x, low, i, gamma)
        )
