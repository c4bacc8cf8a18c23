"""The lab: a tiny world in which the checks fit and evaluate a method.

It has random towers and a few noisy images on disk, and it uses the program's own plan, desk and records.
Only two things differ from ``bench run``: recipes are cut to a few steps, and features are kept in memory
instead of the store. A method that passes here runs there.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from PIL import Image

from bench.clip.backbone import BackboneSpec
from bench.contract.snapshot import snapshot
from bench.data.dataset import Dataset
from bench.errors import BenchError
from bench.executors import serial
from bench.features.encode import EncodeReport, stream
from bench.features.wanted import Wanted
from bench.interface import Consts, Facts, Method, Recipe, State, Task, Values
from bench.names import canonical
from bench.paths import as_known
from bench.plan import planner
from bench.plan.cells import Planned
from bench.plan.needs import stored
from bench.plan.request import Request
from bench.plan.todo import recorded, remaining
from bench.records import places, store
from bench.records.types import Failure
from bench.registry import Registry
from bench.run import evaluate
from bench.run import task as tasks
from bench.run.desk import Desk
from bench.run.session import Session, repeatable

STEPS = 3
SIDE = 64  # pixels: the smallest images on which an attention pool has more than one token
_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
_VISION: dict[str, dict[str, Any]] = {
    "rn": {"layers": [1, 1, 1, 1], "width": 8, "image_size": SIDE, "head_width": 64},
    "vit": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "image_size": SIDE},
}
_CLASSES = {"cat": (210, 120, 40), "green_frog": (40, 160, 60), "whale": (50, 80, 200)}
# Number of images of each class by part. In UNEVEN one class has fewer images than the two shots asked for.
UNEVEN = {"train": (3, 1, 2), "val": (2, 2, 2), "test": (3, 3, 3)}
PAIR = {"train": (5, 5), "val": (2, 2), "test": (2, 2)}


@dataclass(frozen=True)
class Lab:
    """The towers and the datasets that methods are checked on.

    ``towers``: the name of a random backbone by family. ``folders``: three datasets. 'uneven' has three
    classes with different numbers of images, 'relabelled' is the same with every test image under the next
    class's label, and 'pair' has two classes.
    """

    root: Path
    session: _Session
    towers: Mapping[str, str]
    folders: Mapping[str, Path]

    def fresh(self) -> Lab:
        """Return the same lab with newly loaded towers and texts, in case a method changed the old ones."""
        return replace(self, session=_Session(self.session.known))


@dataclass(frozen=True)
class Measured:
    """A method that was fitted and evaluated in the lab.

    ``fit``: its planned fit. ``state``: the fitted state. ``states``: those that it builds on. ``results``:
    the folder of the records. ``top1``: the predicted class of each test image.
    """

    lab: Lab
    fit: Planned
    state: State
    states: Mapping[str, State]
    results: Path
    top1: np.ndarray

    @property
    def method(self) -> Method:
        """The method, its recipe cut to a few steps."""
        return self.fit.method

    def task(self) -> Task:
        """Return a new task, equal to the one that the fit had."""
        return tasks.make(self.lab.session, self.fit, dict(self.states))

    def test(self) -> dict[str, torch.Tensor]:
        """Return raw features of the test images at the method's taps."""
        paths, session = self.fit.dataset.test.paths, self.lab.session
        return {
            t: session.features(self.fit.backbone, self.fit.dataset, paths, "eval", t)
            for t in self.method.taps
        }

    def values(self, state: State | None = None) -> dict[str, Any]:
        """Return the values that the evaluation computes logits at."""
        return evaluate.values_of(self.fit, self.fit.evaluations[0], (state or self.state).values)

    def logits(
        self, features: Mapping[str, torch.Tensor], consts: Consts, state: State | None = None
    ) -> torch.Tensor:
        """Return logits (B, K) of the fitted method."""
        state = state or self.state
        with torch.no_grad():
            return self.method.logits(state.params, consts, features, self.values(state))


class _Session(Session):
    """A session that makes features when they are asked for and keeps them in memory, in half precision.

    Like a run, it has only the features that the plan wants encoded; asking for others raises BenchError.
    """

    def __init__(self, known: dict[tuple[Any, ...], torch.Tensor]) -> None:
        super().__init__("cpu", None, lambda line: None, workers=0)
        self.known = known
        self.planned: set[tuple[str, ...]] = set()  # what a run would encode: dataset, path, view, tap

    def encode(self, spec: BackboneSpec, dataset: Dataset, wanted: Sequence[Wanted]) -> EncodeReport:
        for part in wanted:
            for view, taps in part.views.items():
                self.planned |= {(dataset.digest, path, view, tap) for tap in taps for path in part.paths}
        return EncodeReport(0, 0, 0.0)

    def slices(
        self, spec: BackboneSpec, dataset: Dataset, paths: Sequence[str], view: str, tap: str, rows: int = 256
    ) -> Iterator[tuple[int, torch.Tensor]]:
        if stored(tap, view) and not {(dataset.digest, path, view, tap) for path in paths} <= self.planned:
            raise BenchError(
                f"features '{tap}' of view '{view}' are not encoded, because no recipe names them: "
                "name them in Recipe.support or in a Stream"
            )
        key = (spec.digest, dataset.digest, tuple(paths), view, tap)
        if key not in self.known:
            parts = stream(self.backbone(spec), dataset, paths, view, [tap], workers=0)
            self.known[key] = torch.cat([taps[tap] for _, taps in parts])
        for start in range(0, len(paths), rows):
            yield start, self.known[key][start : start + rows].float()


class Failed(Exception):
    """A method did not get through a measurement. The message says where it stopped."""


@contextmanager
def open_lab() -> Iterator[Lab]:
    """Build the lab in a temporary folder, once for all methods that are checked, and yield it."""
    repeatable()
    with tempfile.TemporaryDirectory(prefix="bench-contract-") as folder:
        root = Path(folder)
        towers = {family: f"{family}@{_tower(root, family)}" for family in _VISION}
        folders = {
            "uneven": _images(root / "uneven", UNEVEN),
            "relabelled": _images(root / "relabelled", UNEVEN, shift=1),
        }
        folders["pair"] = _images(root / "pair", PAIR)
        _sentences(root / "prompts", folders)
        yield Lab(root, _Session({}), towers, folders)


def _tower(root: Path, family: str) -> Path:
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    config = {"embed_dim": 16, "vision_cfg": _VISION[family], "text_cfg": _TEXT, "quick_gelu": True}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        model = CLIP(**config)
    file = root / f"{family}.safetensors"
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, file, {"config": json.dumps(config)}
    )
    return file


def _images(folder: Path, counts: Mapping[str, tuple[int, ...]], shift: int = 0) -> Path:
    """Write images as ``part/class/i.png`` and return the folder.

    With ``shift`` the test images of class k lie under class k + shift.
    """
    for part, of_class in counts.items():
        for k, count in enumerate(of_class):
            label = (k + shift) % len(of_class) if part == "test" else k
            place = folder / part / list(_CLASSES)[label]
            place.mkdir(parents=True)
            for i in range(count):
                _image(f"{part}/{k}/{i}", list(_CLASSES.values())[k]).save(place / f"{i}.png")
    return folder


def _image(name: str, colour: tuple[int, int, int]) -> Image.Image:
    draw = random.Random(name)
    noise = np.array([[[draw.randrange(256) for _ in "rgb"] for _ in range(16)] for _ in range(16)])
    mixed = (0.5 * noise + 0.5 * np.array(colour)).astype(np.uint8)
    return Image.fromarray(mixed).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def _sentences(folder: Path, datasets: Mapping[str, Path]) -> None:
    folder.mkdir()
    names = [name.replace("_", " ") for name in _CLASSES]
    content = {name: [f"A {name} is an animal.", f"The {name} is here."] for name in names}
    for name in datasets:
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def cut(method: Method) -> Method:
    """Return the same method with a recipe of a few steps and a check after each."""

    def recipe(self: Method, settings: Values, facts: Facts) -> Recipe:
        # It is called on this instance, so that anything that the recipe keeps on self is noticed.
        whole = type(method).recipe(self, settings, facts)
        if whole.optim is None:
            return whole
        return replace(whole, steps=STEPS, epochs=None, check_every=1)

    cls = type(method)
    short: Method = type(cls.__name__, (cls,), {"recipe": recipe, "__module__": cls.__module__})()
    return short


def in_pieces(method: Method, micro: int | None) -> Method:
    """Return the same method with another ``micro``."""
    cls = type(method)
    other: Method = type(cls.__name__, (cls,), {"micro": micro, "__module__": cls.__module__})()
    return other


def measure(
    lab: Lab, method: Method, registry: Registry, family: str, folder: str, shots: int = 2
) -> Measured:
    """Plan, encode, fit, evaluate and record a method, and the methods whose states it reads.

    All of this is done on one tower and one dataset. Raises Failed if a cell is blocked or fails, BenchError
    if the plan cannot be made.
    """
    fit, desk, problem = _run(lab, shortened(method, registry), method.name, family, folder, shots)
    if problem:
        raise Failed(problem)
    states = desk.states.below(fit)
    evaluation = fit.evaluations[0]
    path = places.evaluation_path(fit.where, fit.key, evaluation.key)
    return Measured(
        lab, fit, desk.states.of(fit), states, desk.recorder.results, store.predictions(path)["top1"]
    )


def shortened(method: Method, registry: Registry) -> Registry:
    """Return a registry of a method and those whose states it reads, with recipes cut to a few steps."""
    short = Registry()
    for name in _chain(method, registry):
        short.methods[canonical(name)] = cut(method if name == method.name else registry.get(name))
    return short


def swept(lab: Lab, short: Registry, name: str, family: str, sweep: Sequence[Values]) -> dict[str, Any]:
    """Fit a method, evaluate it at every point of a sweep, and return a snapshot of the fit.

    The snapshot holds the tensors, the choices and the constants of the fit by dotted name. A point at which
    the method cannot be evaluated is passed over. Raises Failed if the method cannot be fitted.
    """
    fit, desk, problem = _run(lab, short, name, family, "uneven", sweep=sweep)
    stored = recorded(fit)
    if stored is None:
        raise Failed(problem)
    task = tasks.make(lab.session, fit, desk.states.below(fit))
    chosen = {
        part: msgspec.to_builtins(getattr(stored, part))
        for part in ("values", "step", "val_accuracy", "curve", "temperature")
    }
    return snapshot(
        {"params": desk.states.of(fit).params, "chosen": chosen, "constants": fit.method.prepare(task)}
    )


def _run(
    lab: Lab,
    short: Registry,
    name: str,
    family: str,
    folder: str,
    shots: int = 2,
    sweep: Sequence[Values] = (),
) -> tuple[Planned, Desk, str]:
    """Run a method's cells and return its first fit, the desk with its state, and the first failure."""
    results = Path(tempfile.mkdtemp(dir=lab.root))
    request = Request(
        (name,),
        (str(lab.folders[folder]),),
        (shots,),
        (1,),
        (lab.towers[family],),
        preset="quick",
        sweeps={canonical(name): [dict(point) for point in sweep]} if sweep else {},
        prompt_dir=lab.root / "prompts",
        results=results,
    )
    made = planner.make(request, short)
    if not made.fits:
        raise Failed("; ".join(b.reason for b in made.blocked) or "its plan has no cell")
    todo, _ = remaining(made)
    desk = Desk(lab.session, short, results, keep_states="all")
    outcome = serial.run(desk, made, todo, lambda *_: None)
    fit = next(f for f in made.fits if f.asked)
    return fit, desk, f"{outcome.failures[0][1]}{_where(fit)}" if outcome.failures else ""


def _chain(method: Method, registry: Registry) -> Iterator[str]:
    for name in method.after:
        yield from _chain(registry.get(name), registry)
    yield method.name


def _where(fit: Planned) -> str:
    """Return the last line of the method's own file in the traceback of a failed fit."""
    records = (store.read(path) for path in fit.where.glob("*.json"))
    failure = next((r for r in records if isinstance(r, Failure)), None)
    lines = [
        line.strip()
        for line in (failure.traceback if failure else "").splitlines()
        if line.strip().startswith("File ")
    ]
    known = [as_known(line) for line in lines]
    own = [line for line in known if "/bench/" not in line and "site-packages" not in line]
    if not own and not lines:
        raise BenchError(failure.error if failure else "failed without a traceback")
    return f" ({own[-1]})" if own else ""
