"""Linear probe by mini-batches: the uni-modal baseline of Cross-Modal adaptation (protocol 6.2).

The cross-modal methods and WiSE-FT build on its heads, its recipe and its zero-shot rows.
"""

from __future__ import annotations

from bench.interface import (
    LR,
    POOLED,
    TEXT,
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
    cosine_logits,
    cross_entropy,
    legal,
    nearest,
    torch,
)
from bench.methods.safe import train_views

INITS = ("random", "zeroshot")
COMMON = {"steps": 12800, "check_every": 100, "warmup": 50, "augment": "flip"}
QUICK = {"wd": (0.0,), "steps": 300, "check_every": 25, "warmup": 15}


def legal_batches(sizes: tuple[int, ...], image_rows: int, text_rows: int | None = None) -> tuple[int, ...]:
    """Return the batch sizes that can be drawn (protocol 6.2, 13.1).

    A size is legal if the batch holds strictly fewer rows of each modality than there are. Where
    ``text_rows`` is given, a batch of b rows holds b // 2 texts. Where no size is legal (two classes, one
    shot), the largest that can be drawn takes their place, because the published recipes have no answer for
    so small a task.
    """
    if text_rows is None:
        return tuple(b for b in sizes if legal("restart", image_rows, b)) or (image_rows - 1,)
    kept = (
        b for b in sizes if legal("restart", image_rows, b - b // 2) and legal("restart", text_rows, b // 2)
    )
    return tuple(kept) or (2 * min(image_rows - 1, text_rows - 1),)


def head_recipe(settings: Values, facts: Facts, tap: str = POOLED, texts: bool = False) -> Recipe:
    """Return the recipe that all heads of Cross-Modal adaptation share (protocol 3.2, 6.2, 13.2).

    With ``texts`` half of each batch are prompts. Raises BenchError for an unknown ``init``.
    """
    init = settings["init"]
    if init not in INITS:
        raise BenchError(f"init must be one of {', '.join(INITS)}, not '{init}'{nearest(init, INITS)}")
    views = train_views(settings["augment"])
    sizes = legal_batches(settings["batch"], facts.n_support * len(views), facts.n_prompts if texts else None)
    half = sizes[0] // 2 if texts else 0
    streams = {"image": Stream(tap=tap, views=views, batch=sizes[0] - half)}
    if texts:
        streams["text"] = Stream(TEXT, batch=half)
    return Recipe(
        streams=streams,
        optim=OptimSpec("adamw"),
        schedule=Schedule("warmup-cosine-cm", {"warmup_steps": settings["warmup"]}),
        steps=settings["steps"],
        grid={LR: settings["lr"], WD: settings["wd"]},
        static={"batch": sizes},
        # Without validation a random start needs the larger learning rate to get away from noise, and a
        # zero-shot start the smaller one.
        fixed={
            LR: settings["lr"][0 if init == "random" else len(settings["lr"]) // 2],
            WD: 0.0,
            "batch": sizes[0],
        },
        check_every=settings["check_every"],
    )


def zero_shot_rows(task: Task) -> Tensor:
    """Return (K, C): raw prompt features averaged per class, then normalised once (protocol 1.4.4, 13.2)."""
    from bench.clip.text import classifier

    text = task.text
    return classifier(
        text.raw_PC, text.class_of_P.tolist(), task.facts.n_classes, "raw-mean", text.classnames
    )


def uniform(shape: tuple[int, ...], fan_in: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Draw from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's start of a linear layer.

    The tensor has the device and precision of ``like``.
    """
    bound: float = fan_in**-0.5
    return ((2.0 * torch.rand(shape, generator=generator) - 1.0) * bound).to(like)


def head_rows(init: str, rows_KC: Tensor, generator: torch.Generator) -> Tensor:
    """Return the head's first rows (K, C): ``random``, or a copy of the zero-shot rows."""
    return (
        rows_KC.clone()
        if init == "zeroshot"
        else uniform(tuple(rows_KC.shape), rows_KC.shape[1], generator, rows_KC)
    )


class LinearProbeSgd(Method):
    """Train a linear head without bias on unit image features by AdamW.

    The logits are s W norm(f); W is never normalised. Validation chooses the checkpoint and the
    hyper-parameters. This is no row of Table III (that one is ``linear-probe``), but the rows "WiSE-FT"
    there mix this head with the zero-shot head.

    Source: Lin et al. 2023 (protocol 6.2).
    Trains: W (K, C).
    Deviates: where no published batch size is legal (two classes, one shot), the largest that can be drawn
        takes its place.
    Settings:
        init: the head's start: ``random`` (true uni-modal probing) or ``zeroshot`` (the text rows)
        lr: learning rates of AdamW to choose from
        wd: weight decays to choose from, as a factor of the learning rate
        batch: sizes of a batch to choose from, in images
        steps: training steps
        check_every: steps between two checks on validation
        warmup: steps over which the learning rate rises
        augment: views of a support image: ``none``, ``flip`` (the image and its mirror image) or ``rrc:V``
            (the image and V random crops)
    """

    name = "linear-probe-sgd"
    title = "Linear probe (mini-batch)"
    cite = "Lin et al. 2023"
    settings = {"init": "random", "lr": (1e-3, 1e-4), "wd": (0.0, 0.01, 1e-4), "batch": (8, 32), **COMMON}
    # 300 steps at the published learning rates leave a random head near its start, so quick runs try
    # learning rates about ten times larger.
    presets = {"quick": {**QUICK, "lr": (1e-2, 3e-3, 1e-3), "batch": (32,)}}

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        return head_recipe(settings, facts)

    def prepare(self, task: Task) -> Consts:
        return {"zeroshot_KC": zero_shot_rows(task), "scale": task.scale}

    def init(self, task: Task, consts: Consts, values: Values, generator: torch.Generator) -> Params:
        return {"W_KC": head_rows(values["init"], consts["zeroshot_KC"], generator)}

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, Tensor]:
        rows = batch["image"]
        return {"loss": cross_entropy(cosine_logits(rows.x, params["W_KC"], consts["scale"]), rows.y)}

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        return cosine_logits(features[POOLED], params["W_KC"], consts["scale"])


class LinearProbeSgdZeroShot(LinearProbeSgd):
    """Train ``linear-probe-sgd`` from the text rows in place of a random start (``init = zeroshot``).

    ``wise-ft-zs`` mixes this head with the zero-shot head.

    Source: Lin et al. 2023 (protocol 6.2, 7.2).
    Trains: W (K, C).
    Deviates: as ``linear-probe-sgd``, in batch sizes for the smallest tasks.
    """

    name = "linear-probe-sgd-zs"
    title = "Linear probe (mini-batch, zero-shot init)"
    settings = {**LinearProbeSgd.settings, "init": "zeroshot"}
