"""CALIP and CALIP-FS: attention between an image's tokens and the class texts (protocol 14).

Both add two terms to the zero-shot logits. The first comes from class texts that attended to the image's
tokens, the second from tokens that attended to the class texts.

Legend: B images, S spatial tokens, T tokens (the pooled one and S), C embedding width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.interface import (
    LR,
    TOKENS,
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
    cross_entropy,
    torch,
    unit,
)
from bench.methods.safe import train_views
from bench.methods.tip_adapter import search_axis

SHARPNESS = 2.0  # factor inside both softmaxes, as in the released code
_PIECE = 1 << 24  # logits held in memory at a time while the betas are searched


def over_tokens(affinity_BSK: Tensor, x_BSC: Tensor) -> Tensor:
    """Return T' (B, K, C): for every class the mean of the tokens, weighted by a softmax over the image."""
    return affinity_BSK.softmax(1).transpose(1, 2) @ x_BSC


def pooled(x_BSC: Tensor) -> Tensor:
    """Return (B, C): the mean over all tokens plus the largest value of every channel."""
    return x_BSC.mean(1) + x_BSC.amax(1)


def mixed(parts: tuple[Tensor, Tensor, Tensor], beta2: float | Tensor, beta3: float | Tensor) -> Tensor:
    """Return zero-shot + beta_2 * text side + beta_3 * visual side; all terms are (B, K)."""
    return parts[0] + beta2 * parts[1] + beta3 * parts[2]


class Calip(Method):
    """Let image tokens and class texts attend to each other without weights; add two terms to the logits.

    T' holds texts made of the image's tokens, v' is an image feature made of the texts. The logits are s f_g
    T + beta_2 s f_g T' + beta_3 s v' T, where f_g is the image's global token. T' and v' are not divided by
    their length. Nothing is trained; validation searches the two betas.

    Source: Guo et al. 2023 (protocol 14).
    Deviates: the released code searches the betas on the test set, which ``--protocol test-oracle`` repeats;
        here few-shot validation chooses them. Without validation both lie in the middle of their range,
        because no values are published.
    Settings:
        beta2_top: upper end of the search for ``beta2``, itself excluded; the lower end is 0.001
        beta3_top: upper end of the search for ``beta3``, itself excluded; the lower end is 0.001
        beta_steps: number of values on each of the two search axes
        beta2: weight of the text side; none: searched on validation
        beta3: weight of the visual side; none: searched on validation
    """

    name = "calip"
    title = "CALIP"
    cite = "Guo et al. 2023"
    taps = (TOKENS,)
    towers = ("rn", "vit")
    settings = {"beta2_top": 2.0, "beta3_top": 0.1, "beta_steps": 200, "beta2": None, "beta3": None}
    presets = {"quick": {"beta_steps": 50}}
    inference = ("beta2", "beta3")

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        steps = settings["beta_steps"]
        return Recipe(
            search={
                "beta2": search_axis(0.001, settings["beta2_top"], steps),
                "beta3": search_axis(0.001, settings["beta3_top"], steps),
            },
            fixed={"beta2": settings["beta2_top"] / 2, "beta3": settings["beta3_top"] / 2},
        )

    def parts(self, params: Params, consts: Consts, x_BTC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the three terms (B, K) of raw tokens: zero-shot, text side, visual side."""
        W_KC, scale = consts["W_KC"], consts["scale"]
        tokens_BTC = unit(x_BTC)
        f_BC, S_BSC = tokens_BTC[:, 0], tokens_BTC[:, 1:]
        affinity_BSK = SHARPNESS * S_BSC @ W_KC.T
        text_BKC = over_tokens(affinity_BSK, S_BSC)
        v_BC = pooled(affinity_BSK.softmax(2) @ W_KC)
        # T' and v' are not normalised again: they enter with the length that the mixing gave them.
        return scale * f_BC @ W_KC.T, scale * (text_BKC * f_BC[:, None]).sum(-1), scale * v_BC @ W_KC.T

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        return mixed(self.parts(params, consts, features[TOKENS]), values["beta2"], values["beta3"])

    def sweep(
        self, params: Params, consts: Consts, features: Features, values: Values, grid: Sequence[Values]
    ) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Compute the three terms once and yield the logits of all betas by broadcasting."""
        parts = self.parts(params, consts, features[TOKENS])
        size = max(1, _PIECE // parts[0].numel())
        for start in range(0, len(grid), size):
            points = grid[start : start + size]
            beta2, beta3 = (
                parts[0].new_tensor([p[name] for p in points])[:, None, None] for name in ("beta2", "beta3")
            )
            yield range(start, start + len(points)), mixed(parts, beta2, beta3)


class CalipFs(Calip):
    """Train the attention of CALIP on the support set: linear maps before and after it become learnable.

    At the start every map is the identity, so the method begins as CALIP, and weight decay pulls it back
    there. The betas keep fixed values while the maps train; validation searches them afterwards, as for
    CALIP.

    Source: Guo et al. 2023 (protocol 14).
    Trains: four (C, C) differences to the identity: query, key and value maps, which tokens and texts share,
        and a map of what was attended.
    Deviates: this is our reconstruction, because the authors released no code for it. The optimiser, the
        learning rates, the number of epochs and the start are our choices.
    Settings:
        train_beta2: weight of the text side while training
        train_beta3: weight of the visual side while training
        lr: learning rates of AdamW to choose from
        wd: weight decays to choose from, as a factor of the learning rate
        epochs: passes over the support views
        batch: rows per step
        augment: views of a support image: ``none``, ``flip`` (the image and its mirror image) or ``rrc:V``
            (the image and V random crops)
        max_steps: most training steps, rounded down to whole epochs; none: no limit
    """

    name = "calip-fs"
    title = "CALIP-FS (our reconstruction)"
    note = "our reconstruction: CALIP-FS has no released code"
    settings = {
        **Calip.settings,
        "train_beta2": 1.0,
        "train_beta3": 0.05,
        "lr": (1e-3, 3e-4, 1e-4),
        "wd": (0.01,),
        "epochs": 50,
        "batch": 32,
        "augment": "flip",
        "max_steps": None,
    }
    # Quick runs have few steps, so their learning rates are ten times larger.
    presets = {"quick": {"beta_steps": 50, "max_steps": 200, "lr": (1e-2, 3e-3, 1e-3)}}

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        base = super().recipe(settings, facts)
        views = train_views(settings["augment"])
        per_epoch = -(-facts.n_support * len(views) // settings["batch"])
        epochs = settings["epochs"]
        if settings["max_steps"] is not None:
            epochs = max(1, min(epochs, settings["max_steps"] // per_epoch))
        return Recipe(
            streams={"image": Stream(tap=TOKENS, views=views, order="epoch-keep", batch=settings["batch"])},
            optim=OptimSpec("adamw"),
            schedule=Schedule("cosine"),
            epochs=epochs,
            grid={LR: settings["lr"], WD: settings["wd"]},
            search=base.search,
            check={"beta2": settings["train_beta2"], "beta3": settings["train_beta3"]},
            fixed={
                LR: settings["lr"][len(settings["lr"]) // 2],
                WD: settings["wd"][0],
                "beta2": settings["train_beta2"],
                "beta3": settings["train_beta3"],
            },
        )

    def init(self, task: Task, consts: Consts, values: Values, generator: torch.Generator) -> Params:
        C = task.W_KC.shape[1]
        return {name: task.W_KC.new_zeros(C, C) for name in ("query_CC", "key_CC", "value_CC", "out_CC")}

    def parts(self, params: Params, consts: Consts, x_BTC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        W_KC, scale = consts["W_KC"], consts["scale"]
        tokens_BTC = unit(x_BTC)
        f_BC, S_BSC = tokens_BTC[:, 0], tokens_BTC[:, 1:]

        def through(x: Tensor, name: str) -> Tensor:
            return x + x @ params[name]

        def back(x: Tensor, name: str) -> Tensor:
            return x + x @ params[name].T

        # Texts attend to tokens and tokens to texts, with their own queries and the other's keys and values.
        # No map is applied to the B S tokens: every product of maps is applied to the K texts or the B images
        # instead, which are fewer.
        to_tokens_BSK = SHARPNESS * S_BSC @ back(through(W_KC, "query_CC"), "key_CC").T
        to_texts_BSK = SHARPNESS * S_BSC @ back(through(W_KC, "key_CC"), "query_CC").T
        seen_BC1 = back(back(f_BC, "out_CC"), "value_CC")[..., None]
        text_BK = (to_tokens_BSK.softmax(1) * (S_BSC @ seen_BC1)).sum(1)
        v_BC = pooled(to_texts_BSK.softmax(2) @ through(through(W_KC, "value_CC"), "out_CC"))
        return scale * f_BC @ W_KC.T, scale * text_BK, scale * v_BC @ W_KC.T

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, Tensor]:
        rows = batch["image"]
        logits_BK = mixed(self.parts(params, consts, rows.x), values["train_beta2"], values["train_beta3"])
        return {"loss": cross_entropy(logits_BK, rows.y)}
