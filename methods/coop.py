"""CoOp: prompts of learned context vectors in front of, around or behind the class name (protocol 8).

CoCoOp and ProGrad build on it; CLIP-Adapter, TaskRes, ZS-LP and CLAP share its recipe.

Legend: K classes, M context vectors, L tokens, D tower width, C embedding width, B batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.interface import (
    LR,
    POOLED,
    WD,
    Batch,
    BenchError,
    Consts,
    Facts,
    Features,
    LearnedText,
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

if TYPE_CHECKING:
    from bench.clip.packing import Pack
    from bench.clip.text import TextTower

POSITIONS = ("end", "middle", "front")


@dataclass(frozen=True)
class Prompts:
    """The frozen part of K learned prompts.

    ``base_KLD``: token embeddings, zero where context goes. ``place_KLM``: 1 where context vector m stands at
    position l. ``eot_K``: position of each end token; ``L`` ends at the last of them. ``eot_K`` and ``L``
    depend on the names alone: another position of the name does not change them. ``alike``: how tokens are
    packed where all classes share one context. ``apart``: how they are packed where each class has its own.
    """

    base_KLD: Tensor
    place_KLM: Tensor
    eot_K: Tensor
    alike: Pack
    apart: Pack

    def fill(self, ctx: Tensor) -> Tensor:
        """Return embedded prompts (K, L, D) with one context (M, D) for all classes or one each (K, M, D)."""
        # This is a product and no assignment, so that it maps over replicas and its gradient is summed in the
        # same order everywhere.
        return self.base_KLD + self.place_KLM @ ctx

    def encode(self, tower: TextTower, ctx: Tensor) -> Tensor:
        """Return raw text features (..., K, C) of the prompts with a context.

        The context is (M, D), one per class (K, M, D), or one per image (B, 1, M, D).
        """
        from bench.clip.packed_text import encode

        each = ctx.dim() > 2 and ctx.shape[-3] > 1
        return encode(tower, self.fill(ctx), self.apart if each else self.alike)


def lay_out(
    tower: TextTower, classnames: Sequence[str], M: int, words: str = "", position: str = "end"
) -> Prompts:
    """Return the prompts of M context slots, the class name and a full stop.

    The last slots stand for the words of ``words``, one slot for each word. Tokens beyond the number of
    words (a comma is a token of its own) stay frozen right behind the slots, as in the reference (protocol
    10). Raises BenchError if there are more words than slots or a prompt exceeds the tower's context length.
    """
    if position not in POSITIONS:
        raise BenchError(f"position '{position}' of the class name: choose {', '.join(POSITIONS)}")
    encode, n_words = tower.tokenize.encode, len(words.split())
    if n_words > M:
        raise BenchError(
            f"context {M} has no room for the {n_words} words of '{words}': choose at least {n_words}"
        )
    names = [name.replace("_", " ") for name in classnames]
    prefix = " ".join(["X"] * (M - n_words) + words.split())
    n_tail = len(encode(words)) - n_words
    lengths = [2 + M + n_tail + len(encode(f"{name}.")) for name in names]
    if max(lengths) > tower.context_length:
        longest = classnames[lengths.index(max(lengths))]
        raise BenchError(
            f"{M} context vectors and '{longest}' make {max(lengths)} tokens, "
            f"more than {tower.context_length}: choose fewer context vectors or a shorter class name"
        )
    from bench.clip.packing import common, pack_of

    ids_KL = tower.tokenize([f"{prefix} {name}." for name in names])
    eot_K = ids_KL.argmax(-1)
    order_KL = torch.stack(
        [_order(M, n_tail, len(encode(name)), ids_KL.shape[1], position) for name in names]
    )
    order_KL = order_KL[:, : int(eot_K.max()) + 1]
    place_KLM = order_KL[..., None] == torch.arange(1, M + 1)
    ids_KL = ids_KL.gather(1, order_KL)
    slot_KL = place_KLM.any(-1)
    alike = common(torch.where(slot_KL, -order_KL, ids_KL), eot_K)
    apart = common(torch.where(slot_KL, -torch.arange(1, 1 + len(names))[:, None], ids_KL), eot_K)
    embedded_KLD = tower.embed(ids_KL)
    place_KLM = place_KLM.to(embedded_KLD)
    packs = [pack_of(eot_K, ids_KL.shape[1], shared, embedded_KLD) for shared in (alike, apart)]
    return Prompts(embedded_KLD * (1 - place_KLM.sum(-1, keepdim=True)), place_KLM, eot_K, *packs)


def _order(M: int, n_tail: int, n_name: int, L: int, position: str) -> Tensor:
    """Return (L,): for each position, which token of (start, slots, tail, name, rest) stands there."""
    slots, tail = list(range(1, 1 + M)), list(range(1 + M, 1 + M + n_tail))
    name = list(range(1 + M + n_tail, 1 + M + n_tail + n_name))
    rest = list(range(1 + M + n_tail + n_name, L))
    half = {"end": M, "middle": M // 2, "front": 0}[position]
    context = [*slots, *tail] if position == "end" else slots[:half]
    after = [] if position == "end" else [*slots[half:], *tail]
    return torch.tensor([0, *context, *name, *after, *rest])


def word_vectors(tower: TextTower, words: str) -> Tensor:
    """Return the embeddings (w, D) of the first w tokens, where w is the number of words."""
    return tower.embed(tower.tokenize([words]))[0, 1 : 1 + len(words.split())]


def context_vectors(settings: Values) -> int:
    """Return M: the number of words in ``init``, or ``context`` where ``init`` is empty."""
    return len(str(settings["init"] or "").split()) or int(settings["context"])


def epochs_by_shots(shots: int) -> int:
    """Return CoOp's number of epochs: 50 at one shot, 100 up to four, 200 from there on."""
    return 50 if shots <= 1 else 100 if shots <= 4 else 200


def dassl_recipe(settings: Values, facts: Facts, epochs: int, optim: OptimSpec, **more: object) -> Recipe:
    """Return the recipe that CoOp, ProGrad, CLIP-Adapter and TaskRes share (protocol 3.1, 8).

    Every epoch takes a fresh random crop of every image. The learning rate is constant in the first epoch
    and follows a cosine after it; the last epoch is kept. Setting ``max_steps`` shortens the run to whole
    epochs, at least two. Setting ``views`` bounds the number of crops per image, which epochs then use in
    turn; None makes one crop for every epoch, as published. Among several learning rates validation chooses
    after the last epoch; protocols without validation take the first. ``more`` replaces fields of the recipe.
    """
    if settings["max_steps"] is not None:
        per_epoch = max(1, facts.n_support // settings["batch"])
        epochs = min(epochs, max(2, settings["max_steps"] // per_epoch))
    n_views = min(epochs, settings["views"] or epochs)
    views = tuple(f"rrc({settings['crop']:g})#{i}" for i in range(n_views))
    stream = Stream(views=views, rows="per-epoch", order="epoch-drop", batch=settings["batch"])
    shared = {
        "streams": {"image": stream},
        "optim": optim,
        "schedule": Schedule("dassl"),
        "epochs": epochs,
        "select": "last",
        "grid": {LR: settings["lr"], WD: settings["wd"]},
        "fixed": {LR: settings["lr"][0], WD: settings["wd"][0]},
    }
    return Recipe(**{**shared, **more})  # type: ignore[arg-type]


class CoOp(Method):
    """Learn the words of the prompt: trained vectors take the place of "a photo of a" before the class name.

    The vectors pass the frozen text tower at every step; its output for each class is the classifier. The
    prompt set is not read. The vectors start at random (normal, standard deviation 0.02) or at the words of
    ``init``. The last epoch is kept, without validation.

    Source: Zhou et al. 2022, IJCV (protocol 8).
    Trains: the context (M, D), or (K, M, D) with ``class_specific``.
    Deviates: parameters are fp32, where the released code trains a context in fp16.
    Settings:
        context: number of context vectors where ``init`` is empty
        position: where the class name stands: ``end``, ``middle`` or ``front``
        class_specific: whether every class has a context of its own
        init: words that the context starts from; their number replaces ``context``; empty: a random start
        lr: learning rates of SGD; where there are several, validation chooses
        wd: weight decays to choose from
        batch: images per step
        epochs: number of epochs; none: 50 at 1 shot, 100 at 2 to 4, 200 from 8 on
        crop: smallest area of a random crop, as a share of the image
        views: random crops per image that the epochs use in turn; none: a fresh one for every epoch
        max_steps: most training steps, rounded down to whole epochs, at least two; none: no limit
    """

    name = "coop"
    title = "CoOp"
    cite = "Zhou et al. 2022"
    uses_prompts = False
    settings = {
        "context": 16,
        "position": "end",
        "class_specific": False,
        "init": "",
        "lr": (0.002,),
        "wd": (5e-4,),
        "batch": 32,
        "epochs": None,
        "crop": 0.08,
        "views": None,
        "max_steps": None,
    }
    # Quick runs start from words (the paper's M = 4), because 200 steps from noise do not get back to
    # zero-shot. The embedded towers' logits are eight times flatter than OpenAI's, so they also try larger
    # learning rates, among which validation chooses.
    presets = {"quick": {"init": "a photo of a", "lr": (0.03, 0.3), "views": 4, "max_steps": 200}}
    per_dataset = {"imagenet": {"epochs": 50}}

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        return dassl_recipe(
            settings, facts, settings["epochs"] or epochs_by_shots(facts.shots), OptimSpec("sgd")
        )

    def learned_text(self, settings: Values, facts: Facts) -> LearnedText:
        M = context_vectors(settings)
        return LearnedText(shared=0, own=M) if settings["class_specific"] else LearnedText(shared=M, own=0)

    def prepare(self, task: Task) -> Consts:
        tower, settings = task.backbone.text, task.settings
        M = context_vectors(settings)
        prompts = lay_out(tower, task.text.classnames, M, settings["init"], settings["position"])
        return {"tower": tower, "prompts": prompts, "scale": task.scale}

    def init(self, task: Task, consts: Consts, values: Values, generator: torch.Generator) -> Params:
        K, _, M = consts["prompts"].place_KLM.shape
        like = consts["prompts"].base_KLD
        leading = (K,) if values["class_specific"] else ()
        if values["init"]:
            return {"ctx": word_vectors(consts["tower"], values["init"]).expand(*leading, M, -1).clone()}
        ctx = 0.02 * torch.randn(*leading, M, like.shape[-1], generator=generator, dtype=like.dtype)
        return {"ctx": ctx.to(like.device)}

    def classifier(self, params: Params, consts: Consts) -> Tensor:
        """Return the classifier (K, C) of the learned prompts, rows of length one."""
        return unit(consts["prompts"].encode(consts["tower"], params["ctx"]))

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, Tensor]:
        rows = batch["image"]
        return {"loss": cross_entropy(self.logits(params, consts, {POOLED: rows.x}, values), rows.y)}

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        return cosine_logits(features[POOLED], self.classifier(params, consts), consts["scale"])
