"""WiSE-FT as in its paper: interpolate the fine-tuned image tower with CLIP's (protocol 7.1)."""

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
    """Return the head's unit rows (K, C), of OpenAI's 80 ImageNet templates or of the task's prompt set."""
    if task.settings["head"] == "prompts":
        return task.W_KC
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES as templates

    from bench.clip.text import classifier

    names = [name.replace("_", " ") for name in task.text.classnames]
    raw_PC = task.backbone.encode_text([fill(name) for name in names for fill in templates])
    class_of = [k for k in range(len(names)) for _ in templates]
    return classifier(raw_PC, class_of, len(names), "normalise-then-mean", task.text.classnames).to(task.W_KC)


class WiseFtFull(Method):
    """Fine-tune the whole image tower with a linear head, then interpolate all weights with CLIP's.

    Every tensor becomes (1 - alpha) CLIP + alpha fine-tuned; another alpha needs no refit. The head has a
    bias, and its rows start at s t_k, so that the scale is part of them. The last step is kept, without
    validation. The published epochs and warm-up are meant for a full training set: with few shots the run
    ends inside the warm-up.

    Source: Wortsman et al. 2022 (protocol 7.1).
    Trains: the image tower, the head (K, C) and its bias (K,).
    Deviates: the tower stays in evaluation mode, so the statistics of its BatchNorms remain CLIP's, where the
        released code updates them by the training batches. Crops come from a bank of ``views`` per image,
        one for each of the published epochs.
    Settings:
        lr: learning rates of AdamW; where there are several, validation chooses
        wd: weight decays to choose from, as a factor of the learning rate
        epochs: number of epochs
        batch: images per step
        warmup: steps over which the learning rate rises
        clip: largest norm of the gradient; a longer one is shortened to it
        crop: smallest area of a random crop, as a share of the image; crops are never mirrored
        views: random crops per image that the epochs use in turn
        head: templates of the head's start: ``openai-80`` (OpenAI's for ImageNet) or ``prompts`` (the prompt
            set)
        alpha: share of the fine-tuned weights, from 0 to 1
    """

    name = "wise-ft-full"
    title = "WiSE-FT"
    cite = "Wortsman et al. 2022"
    taps = (PIXELS,)
    towers = ("rn", "vit")
    fuse = False
    # Counted, not measured: a ViT-B/16 keeps 16 activations of 0.3 GB per layer for 512 images, 12 layers.
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
    # Quick runs have about 10 epochs of small batches, a warm-up that ends, and a learning rate for few steps
    # and small towers. Their head starts at the prompt set, not at the 80 templates.
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
        """Return the frozen tower and the zero-shot state: its floating-point tensors, and the head."""
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
        """Return every tensor of the state interpolated, with weight ``alpha`` on the fine-tuned side."""
        tuned = {**consts["start"], **params}
        return {name: (1.0 - alpha) * x + alpha * tuned[name] for name, x in consts["start"].items()}

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        return self._score(self.merged(params, consts, values["alpha"]), consts, features[PIXELS])
