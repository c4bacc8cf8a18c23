"""Whole fits: the engine with fused replicas, one replica after the other, and the plain online loop.

The images are noise: they do not change how long anything takes. All three make the same steps on the same
batches at the same rates and validate at the same steps; how far their validation accuracies lie apart is
part of the row.

Legend: N images, K classes, V views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from bench.interface import DENSE, EVAL, POOLED, TEXT, WD, Method, Recipe, Task, points, steps_of
from bench.plan import cost
from bench.registry import builtin
from bench.run import session
from bench.train import loop, rng, select
from bench.train.loop import Pool
from tests.benchmarks import ratios_device
from tests.benchmarks import ratios_online as online
from tests.benchmarks.ratios_online import Images, Run
from tests.benchmarks.ratios_timing import Row, interleaved, row
from tests.methods.support import make_task


@contextmanager
def threads(model: Any) -> Iterator[None]:
    """One thread while a small model's methods train, as in a session."""
    before = torch.get_num_threads()
    if (
        sum(p.numel() for name, p in model.named_parameters() if not name.startswith("token_embedding"))
        < session.SMALL
    ):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Case:
    """A method with its settings, and the plain loop that does the same."""

    title: str
    method: str
    tap: str
    overrides: Mapping[str, Any]
    plain: Callable[[Fit, Iterator[Run]], list[list[float]]]
    preset: str = "quick"


@dataclass
class Fit:
    """A case on given images: everything that its three variants read."""

    backbone: Any
    method: Method
    recipe: Recipe
    task: Task
    train: Images
    val: Images
    tap: str

    def encoded(
        self, views: Sequence[str], taps: Sequence[str], images: Images
    ) -> dict[tuple[str, str], Tensor]:
        """Stored features of some views: (tap, view) -> (N, ...) in half precision."""
        features: dict[tuple[str, str], list[Tensor]] = {}
        for view in views:
            for part in images.views[view].split(32):
                for tap, x in self.backbone.encode_images(part, taps).items():
                    features.setdefault((tap, view), []).append(x.half())
        return {key: torch.cat(parts) for key, parts in features.items()}

    def features(self) -> tuple[dict[tuple[str, str], Tensor], dict[str, Tensor]]:
        """Everything that the engine reads of the support and of the validation images, encoded once."""
        streams = {v for s in self.recipe.streams.values() if s.source != TEXT for v in s.views}
        support = self.encoded(sorted(streams), [self.tap], self.train)
        keys = sorted(set(self.recipe.support.get(POOLED, ())) - streams)
        support |= self.encoded(keys, [POOLED], self.train)
        val = self.encoded([EVAL], self.method.taps, self.val)
        return support, {tap: x.float() for (tap, _), x in val.items()}

    def pools(
        self, recipe: Recipe, support: Mapping[tuple[str, str], Tensor]
    ) -> tuple[Task, dict[str, Pool]]:
        """The task over encoded features, and the rows of every stream."""
        task = replace(self.task, features=lambda tap, view: support[tap, view].float())
        return task, {
            name: Pool(task.text.raw_PC, task.text.class_of_P)
            if s.source == TEXT
            else Pool(torch.cat([support[s.tap, v] for v in s.views]), task.labels_N, len(s.views))
            for name, s in recipe.streams.items()
        }

    def run(self, recipe: Recipe, features: Any) -> select.Fitted:
        """The engine on encoded features."""
        support, val = features
        task, pools = self.pools(recipe, support)
        with threads(self.backbone.model):
            consts = self.method.prepare(task)
            return select.fit(self.method, recipe, task, consts, pools, select.Labelled(val, self.val.y_N))

    def one_by_one(self, features: Any) -> list[select.Fitted]:
        """Every grid point as a run of its own."""
        axes = {**self.recipe.grid, **self.recipe.static}
        return [
            self.run(
                replace(
                    self.recipe,
                    grid={a: (point[a],) for a in self.recipe.grid},
                    static={a: (point[a],) for a in self.recipe.static},
                ),
                features,
            )
            for point in points(axes)
        ]

    def runs(self) -> Iterator[Run]:
        """The same steps for a plain loop, one grid point after the other."""
        assert not any(len(v) > 1 for v in self.recipe.static.values()), "plain loops have one batch size"
        settings = self.task.settings
        sizes = {
            name: Pool(self.task.text.class_of_P, self.task.text.class_of_P)
            if s.source == TEXT
            else Pool(self.train.y_N, self.train.y_N, len(s.views))
            for name, s in self.recipe.streams.items()
        }
        per_epoch = loop.epoch_length(self.recipe.streams, sizes)
        steps = steps_of(self.recipe, per_epoch)
        values = points(self.recipe.grid)
        rates = loop.rate_table(self.recipe, values, settings, steps, per_epoch)
        every = self.recipe.check_every
        for r, point in enumerate(values):
            positions = list(loop.orders(self.recipe.streams, sizes, self.task.seed, steps)[1])
            if self.recipe.select == "best":
                check = (lambda s: (s + 1) % per_epoch == 0) if every is None else (lambda s: s % every == 0)
            else:
                check = lambda s: s == steps - 1  # noqa: E731
            yield Run(rates[:, r].tolist(), float(point.get(WD, settings.get(WD, 0.0))), positions, check)


def make(case: Case, backbone: Any, K: int, shots: int, shrink: Mapping[str, Any]) -> Fit:
    """The case on noise images: K classes, ``shots`` support and at most four validation images of each."""
    names = [f"{'abcdefghijklmnopqrstuvwxyz'[k % 26]} thing {k}" for k in range(K)]
    method = builtin().get(case.method)
    device = backbone.device
    y_N, y_n = (torch.arange(K, device=device).repeat_interleave(n) for n in (shots, min(shots, 4)))
    raw_PC = torch.randn(K, backbone.width, generator=rng.generator(0, "texts")).to(device)
    task = make_task(
        method,
        y_N,
        raw_PC,
        classnames=names,
        scale=backbone.scale,
        backbone=backbone,
        preset=case.preset,
        overrides={**case.overrides, **shrink},
    )
    text = replace(task.text, class_of_P=task.text.class_of_P.to(device))
    task = replace(task, text=text, device=str(device))
    recipe = replace(method.recipe(task.settings, task.facts), search={})
    if method.recipe(task.settings, task.facts).search:
        start = {"alpha": task.settings["init_alpha"], "beta": task.settings["init_beta"]}
        task = replace(task, settings={**task.settings, **start})
    views = (
        {v for s in recipe.streams.values() for v in s.views} | set(recipe.support.get(POOLED, ())) | {EVAL}
    )

    def noise(n: int, part: str, view: str) -> Tensor:
        size = backbone.image_size
        made = torch.randn(n, 3, size, size, generator=rng.generator(0, part, view))
        return made.to(memory_format=torch.channels_last) if device.type == "cpu" else made.to(device)

    train = Images({view: noise(len(y_N), "train", view) for view in sorted(views)}, y_N)
    val = Images({EVAL: noise(len(y_n), "val", EVAL)}, y_n)
    return Fit(backbone, method, recipe, task, train, val, case.tap)


def _views(fit: Fit) -> tuple[str, ...]:
    return fit.recipe.streams["image"].views


def plain_safe(fit: Fit, runs: Iterator[Run]) -> list[list[float]]:
    t = fit.task
    return online.safe(
        fit.backbone.model, fit.train, _views(fit), fit.val, runs, t.W_KC, t.scale, t.settings["train_scale"]
    )


def plain_cross_modal(fit: Fit, runs: Iterator[Run]) -> list[list[float]]:
    t, partial = fit.task, fit.tap == DENSE
    rows = fit.method.prepare(t)["zeroshot_KC"]
    factor = t.settings["train_scale"] if partial else 1.0
    return online.cross_modal(
        fit.backbone.model,
        fit.train,
        _views(fit),
        fit.val,
        runs,
        rows,
        t.scale,
        t.text.raw_PC,
        t.text.class_of_P,
        partial,
        factor,
    )


def plain_tip(fit: Fit, runs: Iterator[Run]) -> list[list[float]]:
    t, s = fit.task, fit.task.settings
    return online.tip_adapter_f(
        fit.backbone.model,
        fit.train,
        _views(fit),
        fit.val,
        runs,
        t.W_KC,
        t.scale,
        fit.recipe.support[POOLED],
        s["alpha"],
        s["beta"],
        s["eps"],
    )


def plain_coop(fit: Fit, runs: Iterator[Run]) -> list[list[float]]:
    t, tower = fit.task, fit.backbone.text
    return online.coop(
        fit.backbone.model,
        fit.train,
        _views(fit),
        fit.val,
        runs,
        t.scale,
        t.text.classnames,
        t.settings["init"],
        lambda texts: tower.tokenize(texts),
    )


CASES = (
    Case("SAFE", "safe", DENSE, {}, plain_safe),
    Case(
        "SAFE, published grid",
        "safe",
        DENSE,
        {"lr": (1e-4, 1e-5, 1e-6, 1e-7), "wd": (0.0, 1e-3, 1e-5)},
        plain_safe,
    ),
    Case("Tip-Adapter-F", "tip-adapter-f", POOLED, {}, plain_tip),
    Case("Cross-Modal, linear", "cross-modal-linear", POOLED, {}, plain_cross_modal),
    Case("Cross-Modal, partial", "cross-modal", DENSE, {}, plain_cross_modal),
    Case("CoOp", "coop", POOLED, {}, plain_coop),
)


def shrink(case: Case, steps: int) -> dict[str, Any]:
    """The case's budget cut to ``steps`` steps (Tip-Adapter-F: epochs of one step)."""
    if case.method == "tip-adapter-f":
        return {}
    if case.method == "coop":
        return {"max_steps": steps}
    return {"steps": steps, "check_every": max(1, steps // 6), "warmup": max(1, steps // 10)}


def planned(fit: Fit) -> Any:
    """What the cost model reads of a planned fit."""
    return SimpleNamespace(
        recipe=fit.recipe,
        facts=fit.task.facts,
        backbone=fit.backbone.spec,
        method=fit.method,
        settings=fit.task.settings,
        draw=SimpleNamespace(val=SimpleNamespace(paths=fit.val.y_N)),
    )


def rows(
    backbone: Any,
    case: Case,
    steps: int,
    repeats: int,
    roof: cost.Device,
    K: int = 10,
    shots: int = 16,
    plain: bool = True,
) -> list[Row]:
    """One case's ratios: to the sequential cached path, and to the plain online loop (ours then encodes)."""
    fit = make(case, backbone, K, shots, shrink(case, steps))
    features = fit.features()
    n = len(points({**fit.recipe.grid, **fit.recipe.static}))
    kept: dict[str, Any] = {}

    def fused() -> None:
        kept["fused"] = fit.run(fit.recipe, features)

    def sequential() -> None:
        kept["sequential"] = fit.one_by_one(features)

    def whole() -> None:
        fit.run(fit.recipe, fit.features())

    def unfused() -> None:
        kept["online"] = case.plain(fit, fit.runs())

    times = interleaved({"fused": fused, "sequential": sequential}, 2 * repeats + 1)
    if plain:
        times |= interleaved({"whole": whole, "online": unfused}, repeats, warm=False)
    made = kept["fused"].budget["steps"] // n
    size = f"{n} grid point{'s' if n > 1 else ''}, {made} steps each, K={K}, {shots} shots"
    floor = roof.seconds(cost.whole(planned(fit)))
    together, online_goal = ratios_device.goals(backbone.device, n)
    sequence = "sequential, one replica at a time"
    rows = [
        row(
            case.title,
            sequence,
            times["fused"],
            times["sequential"],
            True,
            True,
            size,
            floor=floor,
            least=together,
        )
    ]
    if plain:
        ours = [[a for _, a in entry["checks"]] for entry in kept["fused"].curve]
        apart = max(
            abs(a - b) for p, q in zip(ours, kept["online"], strict=True) for a, b in zip(p, q, strict=True)
        )
        more = {"largest_validation_difference": apart, "validation_images": len(fit.val.y_N)}
        size += "; ours with encoding"
        rows.append(
            row(
                case.title,
                "plain online loop",
                times["whole"],
                times["online"],
                False,
                False,
                size,
                least=online_goal,
                more=more,
            )
        )
    return rows
