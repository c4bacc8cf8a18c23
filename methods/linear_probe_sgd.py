"""Linear probe by mini-batches: Cross-Modal adaptation's uni-modal baseline (protocol 6.2).

Its class heads, recipe and zero-shot rows are also what the cross-modal methods and WiSE-FT are made of.
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
    """The batch sizes that can be drawn: strictly fewer rows than each modality has (protocol 6.2, 13.1).

    A batch of b holds b // 2 texts where ``text_rows`` is given. Where no size is legal (two classes, one
    shot), the largest that is takes their place: the published recipes have no answer for so small a task.
    """
    if text_rows is None:
        return tuple(b for b in sizes if legal("restart", image_rows, b)) or (image_rows - 1,)
    kept = (
        b for b in sizes if legal("restart", image_rows, b - b // 2) and legal("restart", text_rows, b // 2)
    )
    return tuple(kept) or (2 * min(image_rows - 1, text_rows - 1),)


def head_recipe(settings: Values, facts: Facts, tap: str = POOLED, texts: bool = False) -> Recipe:
    """The recipe that all heads of [Cross-Modal] share (protocol 3.2, 6.2, 13.2).

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
        # Without validation a random start needs the larger rate to get away, a zero-shot one the smaller.
        fixed={
            LR: settings["lr"][0 if init == "random" else len(settings["lr"]) // 2],
            WD: 0.0,
            "batch": sizes[0],
        },
        check_every=settings["check_every"],
    )


def zero_shot_rows(task: Task) -> Tensor:
    """(K, C): raw prompt features averaged per class, then normalised once (protocol 1.4.4, 13.2)."""
    from bench.clip.text import classifier

    text = task.text
    return classifier(
        text.raw_PC, text.class_of_P.tolist(), task.facts.n_classes, "raw-mean", text.classnames
    )


def uniform(shape: tuple[int, ...], fan_in: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)), a linear layer's usual start; device and precision of ``like``."""
    bound: float = fan_in**-0.5
    return ((2.0 * torch.rand(shape, generator=generator) - 1.0) * bound).to(like)


def head_rows(init: str, rows_KC: Tensor, generator: torch.Generator) -> Tensor:
    """The head's first rows (K, C): ``random``, or a copy of the zero-shot rows."""
    return (
        rows_KC.clone()
        if init == "zeroshot"
        else uniform(tuple(rows_KC.shape), rows_KC.shape[1], generator, rows_KC)
    )


class LinearProbeSgd(Method):
    """A bias-free linear head on unit image features, trained by AdamW (protocol 6.2).

    Validation chooses grid point and checkpoint. Trained: W (K, C), K*C numbers. logits = s W norm(f); W is
    never renormalised. ``init``: ``random`` is true uni-modal probing, ``zeroshot`` starts at the text rows.
    It is no row of Table III (that one is ``linear-probe``); WiSE-FT's rows there are this head mixed with
    the zero-shot head.
    """

    name = "linear-probe-sgd"
    title = "Linear probe (mini-batch)"
    cite = "Lin et al. 2023"
    settings = {"init": "random", "lr": (1e-3, 1e-4), "wd": (0.0, 0.01, 1e-4), "batch": (8, 32), **COMMON}
    # 300 steps at the published rates leave a random head near its start: rates are raised about tenfold.
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
    """``linear-probe-sgd`` with ``init = zeroshot``: the head that ``wise-ft-zs`` mixes (protocol 7.2)."""

    name = "linear-probe-sgd-zs"
    title = "Linear probe (mini-batch, zero-shot init)"
    settings = {**LinearProbeSgd.settings, "init": "zeroshot"}
