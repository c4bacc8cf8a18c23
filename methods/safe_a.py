"""SAFE-A: Tip-Adapter's cache on the blended embeddings of SAFE (protocol 16)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.interface import (
    DENSE,
    EVAL,
    FLIP,
    LR,
    POOLED,
    PREPARED,
    WD,
    Batch,
    Consts,
    Facts,
    Features,
    Lines,
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
from bench.methods.safe import blend
from bench.methods.tip_adapter import TipAdapterF, affinity_logits, broadcast_sweep, search_axis


class SafeA(Method):
    """Add Tip-Adapter's cache to a fitted ``safe``: keys and queries are SAFE's blended embeddings.

    Nothing is trained by default. Validation searches alpha and gamma. alpha = 0, which is SAFE itself, is
    searched first, so that ties fall back to SAFE.

    Source: Zhu et al. 2023 (protocol 16, 17).
    Trains: nothing; with ``train_keys`` the keys (N, C), by the recipe of Tip-Adapter-F.
    Deviates: no released code was found. The paper leaves details open, which protocol 17 lists as A1, A2,
        ...; a code in brackets names its item. The paper's results suggest that its search saw the test set
        (A21).
    Settings:
        key_views: views that a key is averaged over: ``rrc:V`` (V random crops) or ``flip`` (the image and
            its mirror image) (A22)
        gamma_top: upper end of the search for ``gamma``, itself excluded; the lower end is 0.1 (A21)
        alpha_top: upper end of the search for ``alpha``, itself excluded; the lower end is 0.1, after 0 (A21)
        gamma_steps: number of values on the search axis of ``gamma``
        alpha_steps: number of values on the search axis of ``alpha``, beside 0
        init_gamma: ``gamma`` while keys are trained, and without validation
        init_alpha: ``alpha`` while keys are trained, and without validation
        train_keys: whether the keys are trained (A19)
        lr: learning rates of AdamW to choose from, with ``train_keys`` (A23)
        wd: weight decays to choose from, with ``train_keys`` (A23)
        eps: constant in AdamW's denominator, with ``train_keys`` (A23)
        epochs: number of epochs, with ``train_keys`` (A23)
        batch: images per step, with ``train_keys`` (A23)
        beta: weight of the frozen embedding in the blend
        blend: what is blended: ``raw`` outputs or ``unit`` vectors
        gamma: sharpness of the comparison with the keys; none: searched on validation
        alpha: weight of the cache beside the logits of SAFE; none: searched on validation
    """

    name = "safe-a"
    title = "SAFE-A"
    cite = "Zhu et al. 2023"
    taps = (DENSE, POOLED)
    towers = ("rn", "vit")
    after = ("safe",)
    settings = {
        "key_views": "rrc:10",
        "gamma_top": 7.0,
        "alpha_top": 3.0,
        "gamma_steps": 200,
        "alpha_steps": 20,
        "init_gamma": 1.0,
        "init_alpha": 1.17,
        "train_keys": False,
        "lr": (1e-3,),
        "wd": (0.01,),
        "eps": 1e-4,
        "epochs": 20,
        "batch": 256,
        "beta": 0.5,
        "blend": "raw",
        "gamma": None,
        "alpha": None,
    }
    presets = {"quick": {"key_views": "flip"}}
    per_dataset = {
        name: {"gamma_top": row["beta_top"], "alpha_top": row["alpha_top"], "init_alpha": row["init_alpha"]}
        for name, row in TipAdapterF.per_dataset.items()
    }
    inference = ("gamma", "alpha")

    def _views(self, settings: Values) -> tuple[str, ...]:
        how = settings["key_views"]
        return (
            (EVAL, FLIP)
            if how == "flip"
            else tuple(f"rrc(0.5)#{i}" for i in range(int(how.removeprefix("rrc:"))))
        )

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        views = self._views(settings)
        shared = Recipe(
            support={DENSE: views, POOLED: views},
            search={
                "alpha": (0.0, *search_axis(0.1, settings["alpha_top"], settings["alpha_steps"])),
                "gamma": search_axis(0.1, settings["gamma_top"], settings["gamma_steps"]),
            },
            check={"alpha": settings["init_alpha"], "gamma": settings["init_gamma"]},
            fixed={"alpha": settings["init_alpha"], "gamma": settings["init_gamma"], LR: 1e-3, WD: 0.01},
        )
        if not settings["train_keys"]:
            return shared
        keys = Stream(
            PREPARED, "blended_VNC", views, rows="per-epoch", order="epoch-keep", batch=settings["batch"]
        )
        return Recipe(
            support=shared.support,
            search=shared.search,
            check=shared.check,
            fixed=shared.fixed,
            streams={"image": keys},
            optim=OptimSpec("adamw", eps=settings["eps"]),
            schedule=Schedule("cosine"),
            epochs=settings["epochs"],
            grid={LR: settings["lr"], WD: settings["wd"]},
        )

    def prepare(self, task: Task) -> Consts:
        """Return the raw embeddings (V, N, C) of the support views under the tuned and the frozen head.

        They are kept apart, and are blended and averaged when keys are needed.
        """
        head, state = task.head, task.states["safe"]
        tuned_params = {**head.params, **state.params}
        views = self._views(task.settings)
        tuned, frozen = [], []
        for view in views:
            tuned.append(torch.cat([head(tuned_params, x) for _, x in task.slices(DENSE, view)]))
            frozen.append(task.features(POOLED, view))
        tuned_VNC, frozen_VNC = torch.stack(tuned), torch.stack(frozen)
        onehot_NK = torch.nn.functional.one_hot(task.labels_N, task.facts.n_classes).to(tuned_VNC.dtype)
        settings = task.settings
        return {
            "blended_VNC": blend(tuned_VNC, frozen_VNC, settings["beta"], settings["blend"]),
            "W_KC": state.params.get("W_KC", task.W_KC),
            "scale": task.scale,
            "head": head,
            "tuned_params": tuned_params,
            "tuned_VNC": tuned_VNC,
            "frozen_VNC": frozen_VNC,
            "onehot_NK": onehot_NK,
        }

    def _keys(self, params: Params, consts: Consts, values: Values) -> Tensor:
        if "keys_NC" in params:
            return params["keys_NC"]
        return unit(blend(consts["tuned_VNC"], consts["frozen_VNC"], values["beta"], values["blend"]).mean(0))

    def _queries(self, consts: Consts, features: Features, values: Values) -> Tensor:
        tuned_BC = consts["head"](consts["tuned_params"], features[DENSE])
        return unit(blend(tuned_BC, features[POOLED], values["beta"], values["blend"]))

    def init(self, task: Task, consts: Consts, values: Values, generator: torch.Generator) -> Params:
        return {"keys_NC": self._keys({}, consts, values).clone()}

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, Tensor]:
        rows = batch["image"]
        logits_BK = self._score(
            unit(rows.x), params["keys_NC"], consts, values["init_alpha"], values["init_gamma"]
        )
        return {"loss": cross_entropy(logits_BK, rows.y)}

    def _score(self, q_BC: Tensor, keys_NC: Tensor, consts: Consts, alpha: float, gamma: float) -> Tensor:
        cache_BK = affinity_logits(q_BC @ keys_NC.T, consts["onehot_NK"], gamma)
        return cosine_logits(q_BC, consts["W_KC"], consts["scale"]) + alpha * cache_BK

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        q_BC = self._queries(consts, features, values)
        return self._score(q_BC, self._keys(params, consts, values), consts, values["alpha"], values["gamma"])

    def sweep(
        self, params: Params, consts: Consts, features: Features, values: Values, grid: Sequence[Values]
    ) -> Iterator[tuple[Sequence[int], Lines]]:
        """Compute the affinities once, their class sums once per gamma; alpha is a factor."""
        q_BC = self._queries(consts, features, values)
        a_BN = q_BC @ self._keys(params, consts, values).T
        text_BK = cosine_logits(q_BC, consts["W_KC"], consts["scale"])
        yield from broadcast_sweep(text_BK, a_BN, consts["onehot_NK"], grid, sharpness="gamma", ratio="alpha")
