"""ProGrad: CoOp without the part of the gradient that points against zero-shot CLIP (protocol 10).

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
    """Learn the context of the prompts as CoOp does, without contradicting a zero-shot teacher.

    A second loss measures the distance to the teacher's probabilities on the same crop. If the gradients of
    the two losses have a negative inner product, the part of the first gradient that points against the
    second is removed. The last epoch is kept, without validation.

    Teacher and start use templates of their own, so the prompt set is not read. The context starts at zero
    except for its last rows, which hold the words before the class name, one row for each word. A comma is a
    token of its own: of "a type of pet, a photo of a", the last token does not fit and stays frozen behind
    the context.

    Source: Zhu et al. 2023 (protocol 10).
    Trains: the context (M, D), shared by all classes.
    Deviates: parameters are fp32, where the released code trains a context in fp16. A ``context`` of fewer
        vectors than the template has words grows to their number.
    Settings:
        context: number of context vectors; at least the number of the template's words
        template: prompt of the teacher and of the start; ``{}`` stands for the class name
        temperature: temperature of both softmaxes in the second loss
        lam: share of the opposing part that is removed up to 4 shots, from 0 to 1
        lam_many: the same from 8 shots on
    """

    name = "prograd"
    title = "ProGrad"
    cite = "Zhu et al. 2023"
    settings = {
        "context": 16,
        "position": "end",
        "template": "a photo of a {}.",
        "temperature": 1.0,
        "lam": 1.0,
        "lam_many": 1.0,
        "lr": (0.002,),
        "wd": (5e-4,),
        "batch": 32,
        "epochs": None,
        "crop": 0.08,
        "views": None,
        "max_steps": None,
    }
    # Quick runs have a context of words alone and try two larger learning rates, as CoOp's do.
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
        # This is a lower bound: a template of more words makes the context grow to their number.
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
        """Return g, or g - lambda (g . h) h / |h|^2 where g . h < 0; products run over the whole context.

        g is the gradient of the cross-entropy, h that of the distance to the teacher.
        """
        g, h = grads["loss"]["ctx"], grads["distance"]["ctx"]
        dot = (g * h).sum()
        # Where h is 0 the quotient is undefined, but the product is then 0, so that g is returned.
        return {"ctx": torch.where(dot < 0, g - values["lam"] * (dot / (h * h).sum()) * h, g)}
