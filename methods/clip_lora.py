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
# (tower, tokens, low-rank tensors of one block, number of the block) -> tokens
Step = Callable[["Blocks", "Tensor", Params, int], "Tensor"]


@dataclass(frozen=True)
class Blocks:
    """The frozen residual blocks of a tower, ``<stem>.0`` and so on; text has a causal mask."""

    params: Mapping[str, Tensor]
    stem: str
    layers: int
    heads: int
    activation: Any
    eps: float
    causal: bool = False

    def name(self, i: int) -> str:
        """Block i's prefix in ``params``."""
        return f"{self.stem}.{i}"


def low_rank(params: Params, prefix: str) -> Params:
    """The tensors of one block without their prefix: ``q.A`` (r, D), ``q.B`` (D, r), and so on."""
    return {name.removeprefix(prefix): p for name, p in params.items() if name.startswith(prefix)}


def merged(weight_3DD: Tensor, low: Params, gamma: float) -> Tensor:
    """W + gamma B A for the stacked query, key and value weights (3 D, D)."""
    return weight_3DD + gamma * torch.cat([low[f"{part}.B"] @ low[f"{part}.A"] for part in PARTS])


def thinned(h_NTD: Tensor, keep_NTD: Tensor, grown: float) -> Tensor:
    """Dropout: times ``grown`` where ``keep``, else 0."""
    return keep_NTD.to(h_NTD.dtype).mul_(grown) * h_NTD  # half of the time of a masked fill on a processor


def two_branch(
    blocks: Blocks, x_NTD: Tensor, low: Params, i: int, gamma: float, keep_3NTD: Tensor, grown: float
) -> Tensor:
    """Block i with the update beside the frozen weights, its input thinned by one mask for each part.

    Without dropout the branches stay apart too: merging first would give lower blocks the gradient of W alone
    in the reference (protocol 18.2), and two ways to compute one thing here.
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
    """Block i with the update merged into its weights: what evaluation runs."""
    from bench.clip.blocks import block

    name, T = blocks.name(i), x_NTD.shape[1]
    weight = f"{name}.attn.in_proj_weight"
    params = {**blocks.params, weight: merged(blocks.params[weight], low, gamma)}
    mask_TT = x_NTD.new_full((T, T), float("-inf")).triu(1) if blocks.causal else None
    return block(x_NTD, params, name, blocks.heads, blocks.activation, blocks.eps, mask_TT)


class ClipLora(Method):
    """Trains A (r, D) and B (D, r) for query, key and value of every block of both towers.

    A weight W of the image or the text tower becomes W + gamma B A, with gamma = 1 / sqrt(r) and B zero at
    the start. The loss is cross-entropy on s cos, with dropout on the updates' input; the last step is kept,
    without validation.

    "a photo of a {}." for every dataset: the prompt set is not read. Deviations: fp32, where the released
    code uses mixed precision; crops come from a bank of ``views`` an image, used in turn (published: a fresh
    crop every time).
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
    # a raised rate for few steps, chosen on validation
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
        """Both towers' blocks, embedded prompts (K, L, D), their end positions, functions around them."""
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
                    # Kaiming-uniform with slope sqrt 5
                    params[f"{tower}.{i}.{part}.A"] = uniform((r, D), D, generator, like)
                    params[f"{tower}.{i}.{part}.B"] = like.new_zeros(D, r)
        return params

    def _score(self, params: Params, consts: Consts, x_BCHW: Tensor, step: Step) -> Tensor:
        """(B, K) logits with ``step`` as the blocks' forward pass."""
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
