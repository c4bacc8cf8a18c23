"""ProLIP: fine-tune the image tower's last projection, penalising its distance to CLIP's (protocol 18.6)."""

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

# The trained tensor by family of towers. The bias of an attention pool's projection stays frozen.
PROJECTION = {
    "rn": "c_proj.weight",
    "vit": "proj",
}


class ProLip(Method):
    """Fine-tune the projection of image features into CLIP's space, and penalise its distance to CLIP's.

    The loss is CE(s cos) + lambda ||W - W_0||^2, a sum over all entries. Every epoch is one step of Adam on
    all images, with one stored random crop of each. The last epoch is kept. By default this is the published
    recipe without validation: one learning rate, and lambda = 1 / shots.

    Source: Fahes et al. 2024 (protocol 18.6).
    Trains: ``c_proj.weight`` of a ResNet (RN50: 2,097,152 numbers) or ``proj`` of a ViT (ViT-B/16: 393,216).
    Deviates: parameters are fp32, where the released code uses fp16. The published grid with few-shot
        validation is not the default; ``lr`` = 1e-2, 1e-3, ... 1e-8 and ``lam`` = 10, 1, ... 1e-4, 0 give it.
    Settings:
        lr: learning rates of Adam; where there are several, validation chooses
        lam: weights of the penalty to choose from; none: 1 / shots
        epochs: training steps, each over all images
        views: random crops per support image; epoch e uses crop (e + 1) mod ``views``
        crop: smallest area of a random crop, as a share of the image
        eps: constant in Adam's denominator
    """

    name = "prolip"
    title = "ProLIP"
    cite = "Fahes et al. 2024"
    taps = (PREPROJ,)
    towers = ("rn", "vit")
    settings = {"lr": (1e-5,), "lam": None, "epochs": 300, "views": 300, "crop": 0.5, "eps": 1e-4}
    # Quick runs try a part of the published grid. lambda is an absolute weight beside a loss whose gradient
    # grows with s: 1/shots suits s = 100, but holds a tower with s = 12 in place.
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
