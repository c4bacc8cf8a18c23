"""Prompt sets: the strings that describe each class, and how their features become one classifier row.

This module makes strings from the class names and templates of a dataset; it may import ``bench.data``. It
never encodes them: the text tower turns strings into the classifier W (bench/clip/text.py). Sources: protocol
1.3, 4, 5; datasets 5.2, 5.5.
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

# Normalise each feature, average them, normalise the mean (Tip-Adapter, CoOp, CuPL, WiSE-FT; protocol 1.4.4).
NORMALISE_THEN_MEAN = "normalise-then-mean"
MINED = 21  # number of templates that mining keeps (datasets 5.5)
DRAWN = 2  # raised when bench/run/tuned_prompts.py makes something else of the same strings
# Sets made with labelled images: they depend on shots and seed.
LABELLED = frozenset({"mined", "mined-val", "linear"})


@dataclass(frozen=True)
class PromptSet:
    """The strings of one prompt set for one dataset.

    ``prompts[k]``: the strings of class k, in the order of the labels. ``reduce``: how their features are
    averaged. ``templates``: the forms with ``{}`` that the strings were made of, empty for sets of sentences.
    ``uses_labels``: whether the set was made with labelled images; tables mark such sets.

    Two kinds are completed for each draw (bench/run/tuned_prompts.py). With ``select`` > 0 that many of the
    templates are kept, by zero-shot accuracy on the few-shot validation images. With ``tuned_by`` the named
    method is fitted, starting from the prompt set ``tuned_from``, and its class rows are W.
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
        """The SHA-256 (hex) of the strings, of how they are averaged, and of what labels do to them."""
        rule = [self.select, self.tuned_by, self.tuned_from]
        return json_digest([self.prompts, self.reduce, *([DRAWN, *rule] if any(rule) else ())])

    @property
    def size(self) -> int:
        """P, the number of prompts of all classes together that a method gets."""
        each = 1 if self.tuned_by else self.select
        return len(self.prompts) * each if each else sum(map(len, self.prompts))


def fill(template: str, classname: str) -> str:
    """Return the template with the class name for ``{}``; its underscores become blanks (datasets 3)."""
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
            f"{spec.name} has no published mined templates: use --prompts mined-val, which mines some for it"
        )
    return _from_templates("mined", spec.templates["mined"], classnames, uses_labels=True)


TUNERS = {"linear": "linear-probe-sgd-zs"}  # prompt sets that a method makes, with the method


@lru_cache
def pool() -> tuple[str, ...]:
    """Return the 180 templates that Cross-Modal Adaptation mines in, in a fixed order (datasets 5.5)."""
    table = typed.toml(datasets_dir() / "prompts" / "pool.toml", dict[str, list[str]])
    return tuple(template for group in table.values() for template in group)


def _mined_val(spec: DatasetSpec, classnames: tuple[str, ...], folder: Path | None) -> PromptSet:
    # The published pool knows the published datasets. Others, such as flags, need templates of their own.
    every = tuple(dict.fromkeys((*spec.templates["hand"], *spec.templates["coop"], *pool())))
    return replace(_from_templates("mined-val", every, classnames, uses_labels=True), select=MINED)


def _linear(spec: DatasetSpec, classnames: tuple[str, ...], folder: Path | None) -> PromptSet:
    """Return the set that starts from the sentences of ``cupl``.

    It starts from the ``hand`` templates if there are no published sentences and the user gave none.
    """
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
    "mined-val": (
        f"{MINED} of 180 published templates and the dataset's own, chosen on the draw's validation images",
        _mined_val,
    ),
    "cupl": ("sentences of a language model (--prompt-dir; the embedded datasets have their own)", _cupl),
    "linear": (
        "text weights from cupl, fine-tuned on the draw's images as a linear head, then frozen",
        _linear,
    ),
}


def same(name: str, spec: DatasetSpec) -> tuple[str, ...]:
    """Return the other template sets that have the templates of set ``name`` on this dataset."""
    own_forms = {set_: spec.templates[set_] for set_ in ("coop", "hand")}
    given = {"class-name": ("{}",), "vanilla": (DEFAULT_TEMPLATE,), **own_forms}
    own = given.pop(canonical(name), None)
    return tuple(other for other, templates in given.items() if templates == own)


def labelled(name: str) -> bool:
    """Return whether a prompt set is made with labelled images.

    If so, methods that use no labels depend on shots and seed too.
    """
    return canonical(name) in LABELLED


def build(name: str, spec: DatasetSpec, classnames: tuple[str, ...], folder: Path | None = None) -> PromptSet:
    """Build the prompt set ``name`` for one dataset.

    ``folder``: a user's folder of sentence files. Raises BenchError for an unknown set and MissingData if the
    file that it needs is absent.
    """
    chosen = SETS.get(canonical(name))
    if chosen is None:
        raise BenchError(f"unknown prompt set '{name}'{nearest(name, SETS)}; one of: {', '.join(SETS)}")
    return chosen[1](spec, classnames, folder)
