"""How far SAFE and SAFE-A move when only rounding differs, and which of their choices moves them.

    python -m tests.benchmarks.unsteady [--datasets digits] [--shots 1,4,16] [--seeds 1,2,3,4,5] [--draws 3]

Two machines encode and train with different rounding. A draw imitates that: it multiplies every feature by
1 + 1e-6 z, with z normal, and fits again. Draw 0 leaves the features as they are. The test set measures how
far accuracy moves; nothing here is chosen by it.

Legend: G search points, C checks, R grid points of SAFE.
"""

from __future__ import annotations

import argparse
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from bench.clip.backbone import BackboneSpec
from bench.data.dataset import Dataset
from bench.features.store import default_root
from bench.interface import EVAL, LR, Params, Recipe, fit_values, points, scored_values
from bench.plan import planner, todo
from bench.plan.cells import Plan, Planned
from bench.plan.request import Request
from bench.registry import builtin
from bench.run import fit as fitting
from bench.run.encoder import Encoder
from bench.run.session import Session
from bench.train import hits, loop, rng, score
from bench.train.keep import Labelled
from bench.train.loop import Pool

SIZE = 1e-6  # about what single precision loses in the towers
# How SAFE's checkpoint is chosen: as published (the first of equals), the one of least loss among equals, by
# ``--set safe.criterion=loss``, and by accuracy with the smallest learning rate of the grid alone.
BY_ACCURACY, TIES_BY_LOSS, BY_LOSS, LOW_RATE = CHOICES = (
    "accuracy",
    "accuracy, equals by loss",
    "loss",
    "accuracy, smallest rate",
)
HELD = "accuracy, that of draw 0"  # so noise acts on SAFE-A alone
SAFE = "SAFE"  # without a cache
# How SAFE-A's alpha and gamma are chosen: the first of equals (as published), the nearest to the recommended
# values among equals or among all points within one validation image of the best, and without validation.
RULES = (
    "SAFE-A: first of equals",
    "SAFE-A: nearest of equals",
    "SAFE-A: nearest within one image",
    "SAFE-A: recommended values",
)


class Noisy(Session):
    """A session whose features carry the noise of a draw; those of draw 0 carry none."""

    draw = 0

    def slices(
        self, spec: BackboneSpec, dataset: Dataset, paths: Sequence[str], view: str, tap: str, rows: int = 256
    ) -> Iterator[tuple[int, Tensor]]:
        for start, x in super().slices(spec, dataset, paths, view, tap, rows):
            name = f"{self.draw} {dataset.digest} {view} {tap} {start} {paths[0]} {len(paths)}"
            noise = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            yield start, x * (1 + SIZE * torch.randn(x.shape, generator=noise)) if self.draw else x


@dataclass
class Trained:
    """SAFE after training: parameters, validation accuracy and negative loss, by check and grid point."""

    values: list[dict[str, Any]]
    start: Params
    params: list[Params] = field(default_factory=list)  # C tensors (R, ...)
    accuracy: list[Tensor] = field(default_factory=list)
    gain: list[Tensor] = field(default_factory=list)
    last: Params = field(default_factory=dict)

    def chosen(self, how: str) -> tuple[int, int]:
        """Return the grid point and the check that a rule chooses; the first of equals."""
        gain_RC = torch.stack(self.gain, 1).double().nan_to_num(nan=-math.inf)
        scores_RC = torch.stack(self.accuracy, 1).double()
        if how == BY_LOSS:
            scores_RC = gain_RC
        if how == TIES_BY_LOSS:
            scores_RC = torch.where(scores_RC == scores_RC.max(), gain_RC, -math.inf)
        if how == LOW_RATE:
            least = min(v[LR] for v in self.values)
            scores_RC[[r for r, v in enumerate(self.values) if v[LR] > least]] = -math.inf
        r, c = divmod(int(scores_RC.flatten().numpy().argmax()), scores_RC.shape[1])
        return r, c

    def state(self, how: str) -> Params:
        """Return the parameters of the checkpoint that a rule chooses."""
        r, c = self.chosen(how)
        return {name: p[r] for name, p in self.params[c].items()}

    def ties(self) -> int:
        """Return how many checkpoints have the best validation accuracy."""
        scores = torch.stack(self.accuracy)
        return int((scores == scores.max()).sum())

    def apart(self, other: Trained, lr: float) -> float:
        """Return the distance of the last parameters to those of another draw, over the length of the way."""
        r = next(r for r, v in enumerate(self.values) if v[LR] == lr)
        gap = way = 0.0
        for name, p in self.last.items():
            gap += float((p[r] - other.last[name][r]).square().sum())
            way += float((other.last[name][r] - self.start[name]).square().sum())
        return math.sqrt(gap / way)


def train(session: Session, fit: Planned) -> Trained:
    """Train SAFE and keep every checkpoint."""
    case, _ = fitting.prepared(session, fit, {})
    assert case.val is not None
    pools = {  # in single precision: half precision would round the noise away
        name: Pool(
            torch.cat([case.task.features(s.tap, v) for v in s.views]), case.task.labels_N, len(s.views)
        )
        for name, s in fit.recipe.streams.items()
    }
    settings = fit_values(fit.method, case.task.settings)
    start = fit.method.init(case.task, case.consts, settings, rng.generator(case.task.seed, "init"))
    values = points(fit.recipe.grid)
    out = Trained(values, start)
    judge = score.scorer(fit.method, fit.recipe, case.consts, settings, case.val)

    def watched(params: Params, at: Any) -> tuple[Tensor, Tensor]:
        accuracy_R, gain_R = judge(params, at)
        out.params.append({name: p.detach().clone() for name, p in params.items()})
        out.accuracy.append(accuracy_R)
        out.gain.append(gain_R)
        return accuracy_R, gain_R

    starts = [{name: p.clone() for name, p in start.items()} for _ in values]
    loop.train(fit.method, fit.recipe, case.consts, starts, values, settings, pools, case.task.seed, watched)
    out.last = out.params[-1]
    return out


@dataclass(frozen=True)
class Searched:
    """A search of SAFE-A on one state of SAFE.

    ``right``: how many validation images each search point classifies right (G,). ``images``: of how many.
    ``test``: the share of right test images at the point that each rule chooses.
    """

    right: np.ndarray
    images: int
    chosen: Mapping[str, int]
    test: Mapping[str, float]


def within(right: np.ndarray, images: int) -> np.ndarray:
    """Return which search points are at most so many validation images below the best (G,)."""
    near: np.ndarray = right >= right.max() - images
    return near


def picks(right: np.ndarray, recipe: Recipe) -> dict[str, int]:
    """Return the search point that each rule chooses, and for SAFE itself a point with alpha = 0.

    The distance to the recommended values is taken between logarithms, so alpha = 0 is infinitely far.
    """
    grid, to = points(recipe.search), recipe.fixed

    def far(p: Mapping[str, float]) -> float:
        return math.hypot(*(math.log(p[a] / to[a]) if p[a] else math.inf for a in recipe.search))

    far_G = np.array([far(p) for p in grid])

    def nearest(allowed: np.ndarray) -> int:
        where = np.flatnonzero(allowed)
        return int(where[far_G[where].argmin()])  # the first, if all are infinitely far

    chosen = int(right.argmax()), nearest(within(right, 0)), nearest(within(right, 1)), int(far_G.argmin())
    return {**dict(zip(RULES, chosen, strict=True)), SAFE: [p["alpha"] for p in grid].index(0.0)}


def search(session: Session, fit: Planned, params: Params, test: Labelled) -> Searched:
    """Search SAFE-A's values on a state of SAFE, by all rules."""
    state = fitting.state_of(fit.after["safe"], params, {})
    case, _ = fitting.prepared(session, fit, {"safe": state})
    assert case.val is not None
    values = scored_values(fit.method, fit_values(fit.method, case.task.settings))

    def counted(images: Labelled, grid: Sequence[dict[str, Any]]) -> np.ndarray:
        hits_G = torch.zeros(len(grid), dtype=torch.long)
        with torch.no_grad():
            for at, piece in fit.method.sweep({}, case.consts, images.features, values, grid):
                hits_G[list(at)] += hits.count(piece, images.y)
        return hits_G.numpy()

    grid = points(fit.recipe.search)
    right = counted(case.val, grid)
    chosen = picks(right, fit.recipe)
    share = counted(test, [grid[i] for i in chosen.values()]) / len(test.y)
    return Searched(right, len(case.val.y), chosen, dict(zip(chosen, share.tolist(), strict=True)))


@dataclass
class Cell:
    """What one cell did in all draws. ``searched``: by the rule that chose SAFE's checkpoint."""

    trained: list[Trained] = field(default_factory=list)
    searched: dict[str, list[Searched]] = field(default_factory=dict)


def measure(session: Noisy, fit: Planned, draws: int) -> Cell:
    """Do one cell of SAFE-A in all draws."""
    cell, spec, dataset, held = Cell(), fit.backbone, fit.dataset, {}
    with session.threads(spec):
        for session.draw in range(draws + 1):
            features = {
                tap: session.features(spec, dataset, dataset.test.paths, EVAL, tap) for tap in fit.method.taps
            }
            test = Labelled(features, session.labels(dataset.test))
            trained = train(session, fit.after["safe"])
            held = held or trained.state(BY_ACCURACY)
            found: dict[tuple[int, int], Searched] = {}  # rules often choose the same checkpoint
            for how in CHOICES:
                at = trained.chosen(how)
                found[at] = found.get(at) or search(session, fit, trained.state(how), test)
                cell.searched.setdefault(how, []).append(found[at])
            cell.searched.setdefault(HELD, []).append(search(session, fit, held, test))
            trained.params.clear()  # the memory of all checkpoints
            cell.trained.append(trained)
    return cell


def ready(session: Session, plan: Plan) -> None:
    """Encode what the cells read."""
    cells, _ = todo.remaining(plan)
    encoder = Encoder(session, fresh=True)
    encoder.begin(cells)
    stopped = encoder.encode(cells).stopped
    if stopped:
        raise SystemExit(str(stopped[0][1]))


def spread(cells: Sequence[Cell], how: str, rule: str) -> tuple[float, float, float]:
    """Return standard deviation and largest range of test accuracy over draws, and mean validation accuracy.

    All are in points. The standard deviation is the root of the mean variance of the cells.
    """
    test = 100 * np.array([[s.test[rule] for s in c.searched[how]] for c in cells])
    val = 100 * np.array([[s.right[s.chosen[rule]] / s.images for s in c.searched[how]] for c in cells])
    return float(np.sqrt(test.var(1, ddof=1).mean())), float(np.ptp(test, 1).max()), float(val.mean())


def report(shots: int, cells: Sequence[Cell]) -> Iterator[str]:
    """Yield the tables of the cells of one number of shots."""
    first = [s for c in cells for s in c.searched[BY_ACCURACY]]
    rates = sorted(v[LR] for v in cells[0].trained[0].values)
    checkpoints = len(cells[0].trained[0].values) * len(cells[0].trained[0].accuracy)
    counts = [
        (
            "SAFE: checkpoints with the best validation accuracy",
            checkpoints,
            [t.ties() for c in cells for t in c.trained],
        )
    ]
    counts += [
        (f"SAFE-A: search points {what}", len(first[0].right), [int(within(s.right, k).sum()) for s in first])
        for k, what in ((0, "with the best validation accuracy"), (1, "within one image of it"))
    ]
    size = f"{len(cells)} cells in {len(cells[0].trained)} draws"
    yield f"{shots} shots, {first[0].images} validation images, {size}"
    yield tabulate(
        [(what, of, int(np.median(n)), min(n), max(n)) for what, of, n in counts],
        ("candidates", "of", "median", "least", "most"),
        tablefmt="github",
    )
    gaps = {lr: [t.apart(c.trained[0], lr) for c in cells for t in c.trained[1:]] for lr in rates}
    yield tabulate(
        [(f"{lr:g}", f"{np.median(gap):.1e}", f"{max(gap):.1e}") for lr, gap in gaps.items()],
        ("learning rate of SAFE", "last parameters apart, of their way: median", "most"),
        tablefmt="github",
    )
    rows = [(how, rule, *spread(cells, how, rule)) for rule in (SAFE, *RULES) for how in (*CHOICES, HELD)]
    yield tabulate(
        [(rule, how, f"{sd:.2f}", f"{most:.1f}", f"{val:.1f}") for how, rule, sd, most, val in rows],
        (
            "method and rule of its search",
            "SAFE's checkpoint by",
            "SD of test accuracy",
            "largest range",
            "validation accuracy",
        ),
        tablefmt="github",
        disable_numparse=True,
    )


def main() -> None:
    """Measure what the command line asks for, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--datasets", default="digits")
    parser.add_argument("--shots", default="1,4,16")
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--draws", type=int, default=3, help="draws with noise, beside the one without")
    asked = parser.parse_args()
    if asked.draws < 1:
        parser.error("--draws: write 1 or more, because a spread needs two fits")
    numbers = {name: tuple(int(n) for n in getattr(asked, name).split(",")) for name in ("shots", "seeds")}
    with TemporaryDirectory() as folder:
        for shots in numbers["shots"]:
            plan = planner.make(
                Request(
                    methods=("safe-a",),
                    datasets=tuple(asked.datasets.split(",")),
                    shots=(shots,),
                    seeds=numbers["seeds"],
                    backbones=("pocket-rn",),
                    cache=default_root(),
                    results=Path(folder),
                ),
                builtin(),
            )
            session = Noisy("cpu", default_root(), print)
            ready(session, plan)
            cells = [measure(session, fit, asked.draws) for fit in plan.fits if fit.asked]
            print("\n\n".join(report(shots, cells)), end="\n\n", flush=True)
            session.close()


if __name__ == "__main__":
    main()
