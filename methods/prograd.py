"""ProGrad: CoOp whose gradient may not turn against zero-shot CLIP (protocol 10).

Legend: K classes, M context vectors, D tower width, C embedding width, B batch.
"""

from __future__ import annotations

from collections.abc import Mapping

from bench.interface import (
    LR,
    POOLED,
    WD,
    Batch,
    Consts,
    Facts,
    LearnedText,
    OptimSpec,
    Params,
    Recipe,
    Task,
    Tensor,
    Values,
    cosine_logits,
    cross_entropy,
    fill,
    torch,
    unit,
)
from bench.methods.coop import CoOp, dassl_recipe, epochs_by_shots, lay_out, word_vectors


class ProGrad(CoOp):
    """Trains a shared context (M, D) by cross-entropy that may not turn against a zero-shot teacher.

    A second loss is the distance to the teacher on the same crop. Where the two gradients point apart, the
    part of the first against the second is taken away.

    Teacher and start use ProGrad's own templates. The context starts at zero but for its last rows, which
    hold the words before the class name, one row a word: a comma is a token of its own, so that the last
    token of "a type of pet, a photo of a" stays frozen behind the context. A ``context`` of fewer vectors
    than words grows to their number. Deviation: fp32, where the released code trains an fp16 context.
    """

    name = "prograd"
    title = "ProGrad"
    cite = "Zhu et al. 2023"
    settings = {
        "context": 16,
        "position": "end",
        "template": "a photo of a {}.",
        "temperature": 1.0,
        "lam": 1.0,  # up to 4 shots
        "lam_many": 1.0,  # from 8 shots on
        "lr": (0.002,),
        "wd": (5e-4,),
        "batch": 32,
        "epochs": None,
        "crop": 0.08,
        "views": None,
        "max_steps": None,
    }
    # as CoOp's: words only, two rates
    presets = {"quick": {"context": 4, "lr": (0.3, 1.0), "views": 4, "max_steps": 200}}
    per_dataset = {
        "imagenet": {"epochs": 50},
        "oxford_pets": {"template": "a type of pet, a photo of a {}."},
        "oxford_flowers": {"template": "a type of flower, a photo of a {}.", "lam_many": 0.8},
        "fgvc_aircraft": {"template": "a type of aircraft, a photo of a {}."},
        "food101": {"template": "a type of food, a photo of {}."},
        "dtd": {"template": "a texture of {}.", "lam_many": 0.8},
        "eurosat": {"template": "a centered satellite photo of {}.", "lam_many": 0.8},
        "ucf101": {"template": "a photo of a person doing {}."},
    }

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        lam = settings["lam"] if facts.shots < 8 else settings["lam_many"]
        return dassl_recipe(
            settings,
            facts,
            settings["epochs"] or epochs_by_shots(facts.shots),
            OptimSpec("sgd"),
            grid={LR: settings["lr"], WD: settings["wd"], "lam": (lam,)},
            fixed={LR: settings["lr"][0], WD: settings["wd"][0], "lam": lam},
        )

    def learned_text(self, settings: Values, facts: Facts) -> LearnedText:
        # At least: where a template has more words, the context grows to their number.
        return LearnedText(shared=int(settings["context"]), own=0)

    def prepare(self, task: Task) -> Consts:
        tower, settings, names = task.backbone.text, task.settings, task.text.classnames
        words = settings["template"].split("{}")[0].strip()
        M = max(settings["context"], len(words.split()))
        prompts = lay_out(tower, names, M, words, settings["position"])
        teacher_KC = unit(task.backbone.encode_text([fill(settings["template"], name) for name in names]))
        return {
            "tower": tower,
            "prompts": prompts,
            "scale": task.scale,
            "teacher_KC": teacher_KC,
            "words": words,
        }

    def init(self, task: Task, consts: Consts, values: Values, generator: torch.Generator) -> Params:
        rows_wD = word_vectors(consts["tower"], consts["words"])
        M = consts["prompts"].place_KLM.shape[-1]
        empty_MD = rows_wD.new_zeros(M - len(rows_wD), rows_wD.shape[1])
        return {"ctx": torch.cat([empty_MD, rows_wD])}

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, Tensor]:
        rows, T = batch["image"], values["temperature"]
        logits_BK = self.logits(params, consts, {POOLED: rows.x}, values)
        teacher_BK = cosine_logits(rows.x, consts["teacher_KC"], consts["scale"])
        shares_BK = torch.log_softmax(logits_BK / T, -1) * torch.softmax(teacher_BK / T, -1)
        return {"loss": cross_entropy(logits_BK, rows.y), "distance": -(T**2) * shares_BK.sum(-1).mean()}

    def combine(self, grads: Mapping[str, Params], values: Values) -> Params:
        """g, or g - lambda (g . h) h / |h|^2 where g . h < 0; products over the whole context."""
        g, h = grads["loss"]["ctx"], grads["distance"]["ctx"]
        dot = (g * h).sum()
        # Where h is 0 the quotient is undefined, but then the product is not negative and g is what remains.
        return {"ctx": torch.where(dot < 0, g - values["lam"] * (dot / (h * h).sum()) * h, g)}
