"""Prompt sets: which strings describe each class, and how their text features become one classifier row.

Strings only; the text tower turns them into W (bench/clip/text.py). Sources: protocol 1.3, 4, 5; datasets
5.2, 5.5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from bench import typed
from bench.data.spec import DEFAULT_TEMPLATE, DatasetSpec
from bench.errors import BenchError, MissingData
from bench.files import digest as json_digest
from bench.names import canonical, nearest
from bench.paths import datasets_dir

# Unit-normalise each feature, average, normalise again (Tip-Adapter, CoOp, CuPL, WiSE-FT; protocol 1.4.4).
NORMALISE_THEN_MEAN = "normalise-then-mean"
MINED = 21  # templates that mining keeps (datasets 5.5)
DRAWN = 2  # counts up when bench/run/tuned_prompts.py makes something else of the same strings
# Sets made with labelled images carry shots and seed.
LABELLED = frozenset({"mined", "mined-val", "linear"})


@dataclass(frozen=True)
class PromptSet:
    """``prompts[k]``: the strings of class k, in label order. ``reduce``: the ensembling order of the set.

    ``templates`` are the ``{}`` forms the strings came from, empty for sentence sets. ``uses_labels`` marks
    sets that were chosen with labelled images: tables mark them too. Two kinds are finished only for a draw
    (bench/run/tuned_prompts.py): ``select`` > 0 keeps that many of the templates, by zero-shot accuracy on
    the few-shot validation images; ``tuned_by`` names the method whose fitted class rows, started at the
    prompt set ``tuned_from``, are W.
    """

    name: str
    prompts: tuple[tuple[str, ...], ...]
    templates: tuple[str, ...] = ()
    reduce: str = NORMALISE_THEN_MEAN
    uses_labels: bool = False
    select: int = 0
    tuned_by: str = ""
    tuned_from: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the strings, of how they are reduced, and of what labels do to them."""
        rule = [self.select, self.tuned_by, self.tuned_from]
        return json_digest([self.prompts, self.reduce, *([DRAWN, *rule] if any(rule) else ())])

    @property
    def size(self) -> int:
        """P, the number of text rows of all classes together that a method gets to see."""
        each = 1 if self.tuned_by else self.select
        return len(self.prompts) * each if each else sum(map(len, self.prompts))


def fill(template: str, classname: str) -> str:
    """The template with the class name for ``{}``; underscores become blanks, case stays (datasets 3)."""
    return template.replace("{}", classname.replace("_", " "))


def _from_templates(
    name: str, templates: tuple[str, ...], classnames: tuple[str, ...], uses_labels: bool = False
) -> PromptSet:
    filled = tuple(tuple(fill(template, c) for template in templates) for c in classnames)
    return PromptSet(name, filled, templates, uses_labels=uses_labels)


def _cupl(spec: DatasetSpec, classnames: tuple[str, ...], folder: Path | None) -> PromptSet:
    from bench.data.cupl import sentences

    return PromptSet("cupl", sentences(spec, classnames, folder))


def _mined(spec: DatasetSpec, classnames: tuple[str, ...], folder: Path | None) -> PromptSet:
    if "mined" not in spec.templates:
        raise MissingData(
            f"{spec.name} has no published mined templates: --prompts mined-val mines some for it"
        )
    return _from_templates("mined", spec.templates["mined"], classnames, uses_labels=True)


TUNERS = {"linear": "linear-probe-sgd-zs"}  # prompt sets that a method makes, and the method


@lru_cache
def _pool() -> tuple[str, ...]:
    table = typed.toml(datasets_dir() / "prompts" / "pool.toml", dict[str, list[str]])
    return tuple(template for group in table.values() for template in group)


def _mined_val(spec: DatasetSpec, classnames: tuple[str, ...], folder: Path | None) -> PromptSet:
    pool = tuple(dict.fromkeys((*spec.templates["hand"], *spec.templates["coop"], *_pool())))
    return replace(_from_templates("mined-val", pool, classnames, uses_labels=True), select=MINED)


def _linear(spec: DatasetSpec, classnames: tuple[str, ...], folder: Path | None) -> PromptSet:
    """Starts at the sentences, or the hand templates of a dataset for which nobody published or gave any."""
    try:
        base = _cupl(spec, classnames, folder)
    except MissingData:
        if spec.cupl or folder:
            raise
        base = build("hand", spec, classnames)
    return replace(base, name="linear", uses_labels=True, tuned_by=TUNERS["linear"], tuned_from=base.name)


Builder = Callable[[DatasetSpec, tuple[str, ...], "Path | None"], PromptSet]
SETS: dict[str, tuple[str, Builder]] = {
    "class-name": ("the class name alone", lambda s, c, f: _from_templates("class-name", ("{}",), c)),
    "vanilla": (DEFAULT_TEMPLATE, lambda s, c, f: _from_templates("vanilla", (DEFAULT_TEMPLATE,), c)),
    "coop": (
        "CoOp's single template per dataset",
        lambda s, c, f: _from_templates("coop", s.templates["coop"], c),
    ),
    "hand": (
        "Tip-Adapter's templates per dataset",
        lambda s, c, f: _from_templates("hand", s.templates["hand"], c),
    ),
    "mined": ("21 published templates per dataset, chosen with labels", _mined),
    "mined-val": (f"{MINED} templates of a pool, chosen on the draw's validation images", _mined_val),
    "cupl": ("sentences of a language model (--prompt-dir; the embedded datasets have their own)", _cupl),
    "linear": (
        "text weights from cupl, fine-tuned on the draw's images as a linear head, then frozen",
        _linear,
    ),
}


def same(name: str, spec: DatasetSpec) -> tuple[str, ...]:
    """Other template sets that say the same as set ``name`` on this dataset, whatever its class names."""
    own_forms = {set_: spec.templates[set_] for set_ in ("coop", "hand")}
    given = {"class-name": ("{}",), "vanilla": (DEFAULT_TEMPLATE,), **own_forms}
    own = given.pop(canonical(name), None)
    return tuple(other for other, templates in given.items() if templates == own)


def labelled(name: str) -> bool:
    """Whether labelled images make the prompt set: then label-free methods too depend on shots and seed."""
    return canonical(name) in LABELLED


def build(name: str, spec: DatasetSpec, classnames: tuple[str, ...], folder: Path | None = None) -> PromptSet:
    """The prompt set ``name`` for one dataset.

    ``folder`` holds a user's sentence files. Raises BenchError for an unknown set and MissingData when its
    file is absent.
    """
    chosen = SETS.get(canonical(name))
    if chosen is None:
        raise BenchError(f"unknown prompt set '{name}'{nearest(name, SETS)}; one of: {', '.join(SETS)}")
    return chosen[1](spec, classnames, folder)
