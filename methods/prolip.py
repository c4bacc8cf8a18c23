"""ProLIP: fine-tune the last projection of the image tower, anchored at CLIP's (protocol 18.6)."""

from __future__ import annotations

from bench.interface import (
    LR,
    PREPROJ,
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
    torch,
)

# the bias of the attention pool's projection stays frozen
PROJECTION = {
    "rn": "c_proj.weight",
    "vit": "proj",
}


class ProLip(Method):
    """Full-batch Adam on the image tower's last projection; loss = CE(s cos) + lambda ||W - W_0||^2 (a sum).

    Trained: ``c_proj.weight`` (RN50 2,097,152) or ``proj`` (ViT-B/16 393,216). Epoch e uses stored crop e + 1
    of the bank. The default is the published recipe without validation: fixed rate, lambda = 1/shots (``lam``
    left out), last epoch. The published one with few-shot validation is ``lr`` = 1e-2 ... 1e-8 and ``lam`` =
    10, 1, ... 1e-4, 0. Parameters are fp32 (published: fp16).
    """

    name = "prolip"
    title = "ProLIP"
    cite = "Fahes et al. 2024"
    taps = (PREPROJ,)
    towers = ("rn", "vit")
    settings = {"lr": (1e-5,), "lam": None, "epochs": 300, "views": 300, "crop": 0.5, "eps": 1e-4}
    # Part of the published grid. The anchor is an absolute weight against a loss whose gradient grows with s:
    # 1/shots suits s = 100 and holds a tower with s = 12 in place.
    presets = {"quick": {"views": 4, "epochs": 100, "lr": (1e-2, 1e-3), "lam": (0.1, 0.01, 0.0)}}

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        anchor = 1.0 / max(facts.shots, 1)
        lam = (anchor,) if settings["lam"] is None else settings["lam"]
        views = tuple(f"rrc({settings['crop']:g})#{i}" for i in range(settings["views"]))
        return Recipe(
            streams={"image": Stream(tap=PREPROJ, views=views, rows="per-epoch", order="full", first=1)},
            optim=OptimSpec("adam", eps=settings["eps"]),
            schedule=Schedule("cosine"),
            epochs=settings["epochs"],
            grid={LR: settings["lr"], "lam": lam},
            fixed={LR: settings["lr"][len(settings["lr"]) // 2], "lam": anchor},
            select="last",
        )

    def prepare(self, task: Task) -> Consts:
        name = PROJECTION[task.head.family]
        return {
            "W_KC": task.W_KC,
            "scale": task.scale,
            "head": task.head,
            "name": name,
            "start": task.head.params[name],
        }

    def init(self, task: Task, consts: Consts, values: Values, generator: torch.Generator) -> Params:
        return {consts["name"]: consts["start"].clone()}

    def _score(self, params: Params, consts: Consts, v_BD: Tensor) -> Tensor:
        head = consts["head"]
        return cosine_logits(head.project({**head.params, **params}, v_BD), consts["W_KC"], consts["scale"])

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, Tensor]:
        rows = batch["image"]
        anchor = (params[consts["name"]] - consts["start"]).square().sum()
        return {"loss": cross_entropy(self._score(params, consts, rows.x), rows.y) + values["lam"] * anchor}

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        return self._score(params, consts, features[PREPROJ])
