"""Starters for new methods: what ``bench new method`` writes.

Each kind of method has one starter, a whole file that works as it is and passes ``bench check-method``, and
a test beside it. This module writes text files; it imports no torch and runs no method.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from pathlib import Path

from bench.errors import BenchError
from bench.files import write_bytes
from bench.names import canonical, nearest
from bench.paths import methods_dir
from bench.registry import builtin

SOLVED = '''"""@TITLE@: say in one sentence what it does, and where it was published.

Legend: K classes, C embedding width, N support images, V views, B images of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.interface import (
    POOLED,
    Consts,
    Facts,
    Features,
    Lines,
    Method,
    Params,
    Recipe,
    Task,
    Tensor,
    Values,
    cosine_logits,
    torch,
    unit,
)


class @CLASS@(Method):
    """Add the similarity to the mean support image of each class to the zero-shot logits.

    Nothing is trained. Few-shot validation chooses the weight ``alpha`` of the added term.

    Source: ours (for a published method its authors, year and section: Zhang et al. 2022 (protocol 12)).
    Deviates: nothing known.
    Settings:
        views: preprocessed copies of each support image that the class means use
        alphas: weights that are tried on validation
        alpha: weight of the added term; None leaves it to validation
    """

    name = "@NAME@"
    title = "@TITLE@"
    cite = ""
    settings = {
        "views": ("eval", "flip"),
        "alphas": (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
        "alpha": None,
    }
    inference = ("alpha",)

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        # ``support`` says what solve reads of the support images, ``search`` what validation chooses, and
        # ``fixed`` what protocols without validation take instead.
        return Recipe(
            support={POOLED: settings["views"]}, search={"alpha": settings["alphas"]}, fixed={"alpha": 1.0}
        )

    def solve(self, task: Task, consts: Consts, values: Values) -> Params:
        x_VNC = torch.stack([unit(task.features(POOLED, view)) for view in values["views"]])
        x_NC, y_N, K = x_VNC.mean(0), task.labels_N, task.facts.n_classes
        # Classes may have different numbers of images.
        sums_KC = x_NC.new_zeros(K, x_NC.shape[1]).index_add(0, y_N, x_NC)
        return {"means_KC": unit(sums_KC / torch.bincount(y_N, minlength=K)[:, None])}

    def _terms(self, params: Params, consts: Consts, features: Features) -> tuple[Tensor, Tensor]:
        f_BC, scale = features[POOLED], consts["scale"]
        return cosine_logits(f_BC, consts["W_KC"], scale), cosine_logits(f_BC, params["means_KC"], scale)

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        text_BK, image_BK = self._terms(params, consts, features)
        alpha: float = values["alpha"]
        return text_BK + alpha * image_BK

    def sweep(
        self, params: Params, consts: Consts, features: Features, values: Values, grid: Sequence[Values]
    ) -> Iterator[tuple[Sequence[int], Lines]]:
        # Optional: the default asks ``logits`` at every point. Here the points share both terms.
        text_BK, image_BK = self._terms(params, consts, features)
        alphas = text_BK.new_tensor([point["alpha"] for point in grid])
        yield range(len(grid)), Lines(text_BK, image_BK, alphas)
'''
TRAINED = '''"""@TITLE@: say in one sentence what it does, and where it was published.

Legend: K classes, C embedding width, B images of a batch.
"""

from __future__ import annotations

from bench.interface import (
    LR,
    POOLED,
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


class @CLASS@(Method):
    """Train a copy of the zero-shot classifier (K, C) by cross-entropy on the support images.

    Few-shot validation chooses the learning rate and the checkpoint.

    Source: ours (for a published method its authors, year and section: Zhang et al. 2022 (protocol 12)).
    Deviates: nothing known.
    Settings:
        lr: learning rates that are tried on validation
        steps: optimiser steps
        batch: images in a batch
        check_every: steps between two checks on validation
    """

    name = "@NAME@"
    title = "@TITLE@"
    cite = ""
    settings = {"lr": (1e-3, 1e-4), "steps": 1000, "batch": 32, "check_every": 100}
    presets = {"quick": {"steps": 300, "check_every": 25}}

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        # ``fixed`` says what protocols without validation take of the grid.
        return Recipe(
            streams={
                "image": Stream(
                    tap=POOLED, views=("eval", "flip"), order="epoch-keep", batch=settings["batch"]
                )
            },
            optim=OptimSpec("adamw"),
            schedule=Schedule("cosine"),
            steps=settings["steps"],
            grid={LR: settings["lr"]},
            fixed={LR: settings["lr"][0]},
            check_every=settings["check_every"],
        )

    def init(self, task: Task, consts: Consts, values: Values, generator: torch.Generator) -> Params:
        # ``consts`` is what ``prepare`` returns; its default holds the classifier W_KC and the scale.
        return {"W_KC": task.W_KC.clone()}

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, Tensor]:
        # A batch too large for memory: ``micro = 64`` in the class passes it in pieces of 64 rows.
        # Dropout: ``batch.bytes(*shape)`` gives random bytes and keeps steps fit for CUDA graphs.
        rows = batch["image"]
        return {"loss": cross_entropy(cosine_logits(rows.x, params["W_KC"], consts["scale"]), rows.y)}

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        return cosine_logits(features[POOLED], params["W_KC"], consts["scale"])
'''
PROMPT = '''"""@TITLE@: say in one sentence what it does, and where it was published.

Legend: K classes, M context vectors, D width of the text tower, C embedding width, B images of a batch.
"""

from __future__ import annotations

from bench.interface import (
    LR,
    POOLED,
    Batch,
    Consts,
    Facts,
    Features,
    LearnedText,
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
from bench.methods.coop import lay_out, word_vectors


class @CLASS@(Method):
    """Train M vectors (M, D) that stand before every class name, through the frozen text tower.

    The vectors start as the embeddings of ``words``. Few-shot validation chooses the learning rate and the
    checkpoint.

    Source: ours (for a published method its authors, year and section: Zhang et al. 2022 (protocol 12)).
    Deviates: nothing known.
    Settings:
        words: words that the vectors start from, one vector for each
        lr: learning rates that are tried on validation
        steps: optimiser steps
        batch: images in a batch
        check_every: steps between two checks on validation
    """

    name = "@NAME@"
    title = "@TITLE@"
    cite = ""
    uses_prompts = False  # the class names and the vectors make the classifier
    settings = {"words": "a photo of a", "lr": (0.02, 0.002), "steps": 400, "batch": 32, "check_every": 50}
    presets = {"quick": {"lr": (0.3, 0.03), "steps": 100, "check_every": 25}}

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        # ``fixed`` says what protocols without validation take of the grid.
        return Recipe(
            streams={
                "image": Stream(
                    tap=POOLED, views=("eval", "flip"), order="epoch-keep", batch=settings["batch"]
                )
            },
            optim=OptimSpec("sgd"),
            schedule=Schedule("cosine"),
            steps=settings["steps"],
            grid={LR: settings["lr"]},
            fixed={LR: settings["lr"][0]},
            check_every=settings["check_every"],
        )

    def learned_text(self, settings: Values, facts: Facts) -> LearnedText:
        # The estimate of a run's time counts these vectors.
        return LearnedText(shared=len(settings["words"].split()), own=0)

    def prepare(self, task: Task) -> Consts:
        # The layout holds the frozen parts of all K prompts and the places of the vectors in them.
        tower, words = task.backbone.text, task.settings["words"]
        prompts = lay_out(tower, task.text.classnames, len(words.split()), words)
        return {"tower": tower, "prompts": prompts, "scale": task.scale}

    def init(self, task: Task, consts: Consts, values: Values, generator: torch.Generator) -> Params:
        return {"context_MD": word_vectors(consts["tower"], values["words"]).clone()}

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, Tensor]:
        rows = batch["image"]
        return {"loss": cross_entropy(self.logits(params, consts, {POOLED: rows.x}, values), rows.y)}

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        W_KC = unit(consts["prompts"].encode(consts["tower"], params["context_MD"]))
        return cosine_logits(features[POOLED], W_KC, consts["scale"])
'''
TEST = '''"""@TITLE@ keeps the contract of methods."""

from __future__ import annotations

from pathlib import Path

from bench.contract.checks import problems

METHOD = @TARGET@


def test_the_contract() -> None:
    assert problems(METHOD) == []
'''


KINDS = {"solved": SOLVED, "trained": TRAINED, "prompt": PROMPT}


# The names that the registry takes, without those that begin with a digit, which no module's name does.
_NAME = re.compile("(?=.{1,64}$)[a-z][a-z0-9+]*(-[a-z0-9+]+)*")


def _unsuitable(stem: str) -> str:
    """Return what a file of this name would do to imports or to its own test; empty if nothing."""
    if keyword.iskeyword(stem):
        return "have the name of a word of Python's, so that nothing could import it"
    if stem.startswith("test_") or stem.endswith("_test") or stem == "conftest":
        return "be taken for a test by pytest"
    if stem in sys.stdlib_module_names or importlib.util.find_spec(stem) is not None:
        return f"hide the module {stem} from every import beside it"
    return ""


def write(name: str, folder: Path, kind: str = "trained") -> list[Path]:
    """Write a method of the given kind and its test, and return their two paths.

    If ``folder`` is a checkout of this program, they go to its ``methods/`` and ``tests/methods/``, else side
    by side into ``folder``. Raises BenchError if the kind is unknown, if the name is taken or cannot name a
    method, or if one of the files exists; then nothing is written.
    """
    if "," in kind:
        raise BenchError(f"--kind {kind}: one kind at a time, as in --kind {kind.split(',')[0].strip()}")
    if kind not in KINDS:
        raise BenchError(f"unknown kind '{kind}'{nearest(kind, KINDS)}; one of: {', '.join(KINDS)}")
    name = canonical(name)
    if not _NAME.fullmatch(name):
        raise BenchError(
            f"'{name}' cannot name a method: use letters and digits, with single hyphens between words, "
            "as in my-probe"
        )
    stem = "_".join(name.replace("-", " ").replace("+", " plus ").split())
    if name in builtin().methods:
        raise BenchError(f"there is a method '{name}' already; choose another name")
    inside = (folder / "methods").resolve() == methods_dir().resolve() and (folder / "tests").is_dir()
    method = folder / "methods" / f"{stem}.py" if inside else folder / f"{stem}.py"
    test = folder / "tests" / "methods" / f"test_{stem}.py" if inside else folder / f"test_{stem}.py"
    target = f'"{name}"' if inside else f'Path(__file__).with_name("{stem}.py")'
    words = {"@NAME@": name, "@TITLE@": name.replace("-", " ").capitalize(), "@TARGET@": target}
    words["@CLASS@"] = "".join(part.capitalize() for part in stem.split("_"))
    for path in (method, test):
        if path.exists():
            raise BenchError(f"{path} exists; move it away, or choose another name")
    if why := _unsuitable(stem):
        raise BenchError(f"'{name}': its file {stem}.py would {why}; choose another name, as in my-probe")
    for path, text in ((test, TEST), (method, KINDS[kind])):
        for word, value in words.items():
            text = text.replace(word, value)
        if path is test and inside:
            text = text.replace("from pathlib import Path\n\n", "")
        try:
            write_bytes(path, text.encode())
        except OSError:
            test.unlink(missing_ok=True)  # write both files or none
            raise
    return [method, test]
