"""What ``bench new method`` writes: a method that works as it is, and its test. (no torch)"""

from __future__ import annotations

from pathlib import Path

from bench.errors import BenchError
from bench.files import write_bytes
from bench.names import canonical
from bench.paths import methods_dir
from bench.registry import builtin

METHOD = '''"""@TITLE@: say in one line what it does, and where it was published."""

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
    """Trains a copy of the classifier rows (K, C) from zero-shot on, by cross-entropy on the support images.

    Replace this by your own method: the functions below are all that it needs, and they must be pure.
    """

    name = "@NAME@"
    title = "@TITLE@"
    cite = ""
    settings = {"lr": (1e-3, 1e-4), "steps": 1000, "batch": 32, "check_every": 100}
    presets = {"quick": {"steps": 300, "check_every": 25}}

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        """How it is trained, as data: validation chooses the best checkpoint and learning rate for you."""
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
        """What is trained; ``prepare`` (here the default) puts the classifier and the scale into ``consts``.
        """
        return {"W_KC": task.W_KC.clone()}

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, Tensor]:
        # Batches too large for memory: ``micro = 64`` in the class takes them in pieces of 64 rows, if losses
        # are means over rows. Dropout asks ``batch.bytes(*shape)``, which keeps CUDA graphs (Batch.bytes).
        rows = batch["image"]
        return {"loss": cross_entropy(cosine_logits(rows.x, params["W_KC"], consts["scale"]), rows.y)}

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        """(B, K) scores of raw test features."""
        return cosine_logits(features[POOLED], params["W_KC"], consts["scale"])
'''
TEST = '''"""@TITLE@ keeps the contract of methods."""

from __future__ import annotations

from pathlib import Path

from bench.contract.checks import problems

METHOD = @TARGET@


def test_the_contract() -> None:
    assert problems(METHOD) == []
'''


def write(name: str, folder: Path) -> list[Path]:
    """Write a method and its test, and return their paths.

    Inside a checkout of this program they go to ``methods/`` and ``tests/methods/``, elsewhere side by side
    into ``folder``. Raises BenchError for a name that cannot be one, is taken, or whose file exists.
    """
    name = canonical(name)
    stem = name.replace("-", "_")
    if not stem.isidentifier():
        raise BenchError(f"'{name}' cannot name a method: use letters, digits and hyphens, as in my-probe")
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
    for path, text in ((test, TEST), (method, METHOD)):
        for word, value in words.items():
            text = text.replace(word, value)
        if path is test and inside:
            text = text.replace("from pathlib import Path\n\n", "")
        try:
            write_bytes(path, text.encode())
        except OSError:
            test.unlink(missing_ok=True)  # both or none
            raise
    return [method, test]
