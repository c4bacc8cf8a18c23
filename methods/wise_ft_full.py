"""WiSE-FT proper: fine-tune the whole image tower and a head, interpolate all with CLIP's (protocol 7.1)."""

from __future__ import annotations

from bench.interface import (
    LR,
    PIXELS,
    WD,
    Batch,
    BenchError,
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
    cross_entropy,
    nearest,
    torch,
    unit,
)

TOWER = "visual."
HEADS = ("openai-80", "prompts")


def zero_shot_head(task: Task) -> Tensor:
    """Unit rows (K, C) of the head: from OpenAI's 80 ImageNet templates, or the task's own prompt set."""
    if task.settings["head"] == "prompts":
        return task.W_KC
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES as templates

    from bench.clip.text import classifier

    names = [name.replace("_", " ") for name in task.text.classnames]
    raw_PC = task.backbone.encode_text([fill(name) for name in names for fill in templates])
    class_of = [k for k in range(len(names)) for _ in templates]
    return classifier(raw_PC, class_of, len(names), "normalise-then-mean", task.text.classnames).to(task.W_KC)


class WiseFtFull(Method):
    """Weight-space ensemble of encoder and head: each tensor becomes (1 - alpha) CLIP + alpha fine-tuned.

    Trained: the whole image tower and a head with bias whose rows start at s t_k (the scale is folded in).
    AdamW with gradient clipping, warm-up and cosine; crops rrc(0.9), never mirrored, a fresh one per epoch;
    last step; ``alpha`` multiplies the fine-tuned side and needs no refit. ``head``: ``openai-80`` or
    ``prompts``.

    The published epochs and warm-up are meant for a full training set: with few shots the run ends inside the
    warm-up. The tower stays in evaluation mode, so normalisation statistics remain CLIP's (published: they
    are updated by the training batches); they are interpolated like everything else, to the same values.
    """

    name = "wise-ft-full"
    title = "WiSE-FT"
    cite = "Wortsman et al. 2022"
    taps = (PIXELS,)
    towers = ("rn", "vit")
    fuse = False
    # By count, a ViT-B/16 keeps 16 activations of 0.3 GB for 512 images in each of its 12 layers.
    micro = 64
    settings = {
        "lr": (3e-5,),
        "wd": (0.1,),
        "epochs": 10,
        "batch": 512,
        "warmup": 500,
        "clip": 1.0,
        "crop": 0.9,
        "views": 10,
        "head": "openai-80",
        "alpha": 0.5,
    }
    # About 10 epochs of small batches, a warm-up that ends, a rate for few steps and small towers; the
    # prompt set's own head takes the place of the 80 templates' one.
    presets = {"quick": {"lr": (3e-4,), "batch": 32, "warmup": 5, "views": 4, "head": "prompts"}}
    inference = ("alpha",)

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        if settings["head"] not in HEADS:
            hint = nearest(settings["head"], HEADS)
            raise BenchError(
                f"{self.name}.head must be one of {', '.join(HEADS)}, not '{settings['head']}'{hint}"
            )
        views = tuple(f"rrc({settings['crop']:g},noflip)#{i}" for i in range(settings["views"]))
        image = Stream(tap=PIXELS, views=views, rows="per-epoch", order="epoch-keep", batch=settings["batch"])
        return Recipe(
            streams={"image": image},
            optim=OptimSpec("adamw", clip_norm=settings["clip"]),
            schedule=Schedule("linear-warmup-cosine", {"warmup_steps": settings["warmup"]}),
            epochs=settings["epochs"],
            grid={LR: settings["lr"], WD: settings["wd"]},
            fixed={LR: settings["lr"][0], WD: settings["wd"][0]},
            select="last",
        )

    def prepare(self, task: Task) -> Consts:
        """The frozen tower and the zero-shot state: every floating entry of it, and the head."""
        visual = task.backbone.model.visual
        head_KC = task.scale * zero_shot_head(task)
        weights = {name: p.detach() for name, p in visual.named_parameters()}
        buffers = {name: b for name, b in visual.named_buffers() if b.is_floating_point()}
        start = {
            TOWER + name: x.to(torch.promote_types(x.dtype, torch.float32))
            for name, x in (weights | buffers).items()
        }
        start |= {"head.weight": head_KC, "head.bias": torch.zeros_like(head_KC[:, 0])}
        return {"visual": visual, "start": start, "buffers": frozenset(TOWER + name for name in buffers)}

    def init(self, task: Task, consts: Consts, values: Values, generator: torch.Generator) -> Params:
        return {name: x.clone() for name, x in consts["start"].items() if name not in consts["buffers"]}

    def _score(self, state: Params, consts: Consts, x_BCHW: Tensor) -> Tensor:
        tower = {name.removeprefix(TOWER): x for name, x in state.items() if name.startswith(TOWER)}
        f_BC = torch.func.functional_call(consts["visual"], tower, (x_BCHW,))
        return unit(f_BC) @ state["head.weight"].T + state["head.bias"]

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, Tensor]:
        rows = batch["image"]
        return {"loss": cross_entropy(self._score({**consts["start"], **params}, consts, rows.x), rows.y)}

    def merged(self, params: Params, consts: Consts, alpha: float | Tensor) -> Params:
        """Every state entry interpolated, ``alpha`` on the fine-tuned side."""
        tuned = {**consts["start"], **params}
        return {name: (1.0 - alpha) * x + alpha * tuned[name] for name, x in consts["start"].items()}

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        return self._score(self.merged(params, consts, values["alpha"]), consts, features[PIXELS])
