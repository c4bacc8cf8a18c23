"""Prompt sets: which strings describe each class, and how their text features become one classifier row.

Strings only; the text tower turns them into W (bench/clip/text.py). Sources: protocol 1.3, 4, 5; datasets 5.2, 5.5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.data.spec import DEFAULT_TEMPLATE, DatasetSpec
from bench.errors import BenchError
from bench.files import digest as json_digest
from bench.names import canonical, nearest

# Unit-normalise each prompt's feature, average, normalise again (Tip-Adapter, CoOp, CuPL, WiSE-FT; protocol 1.4.4).
NORMALISE_THEN_MEAN = "normalise-then-mean"


@dataclass(frozen=True)
class PromptSet:
    """``prompts[k]``: the strings of class k, in label order. ``reduce``: the ensembling order of the set.

    ``templates`` are the ``{}`` forms the strings came from, empty for sentence sets. ``uses_labels`` marks sets that were
    chosen with labelled images: tables mark them too.
    """

    name: str
    prompts: tuple[tuple[str, ...], ...]
    templates: tuple[str, ...] = ()
    reduce: str = NORMALISE_THEN_MEAN
    uses_labels: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the strings and of how they are reduced."""
        return json_digest([self.prompts, self.reduce])

    @property
    def size(self) -> int:
        """P, the number of prompts of all classes together."""
        return sum(map(len, self.prompts))


def fill(template: str, classname: str) -> str:
    """The template with the class name in place of ``{}``; underscores become blanks, case is kept (datasets 3)."""
    return template.replace("{}", classname.replace("_", " "))


def _from_templates(name: str, templates: tuple[str, ...], classnames: tuple[str, ...], uses_labels: bool = False) -> PromptSet:
    filled = tuple(tuple(fill(template, c) for template in templates) for c in classnames)
    return PromptSet(name, filled, templates, uses_labels=uses_labels)


def _cupl(spec: DatasetSpec, classnames: tuple[str, ...], folder: Path | None) -> PromptSet:
    from bench.data.cupl import sentences

    return PromptSet("cupl", sentences(spec, classnames, folder))


def _mined(spec: DatasetSpec, classnames: tuple[str, ...], folder: Path | None) -> PromptSet:
    if "mined" not in spec.templates:
        raise BenchError(f"{spec.name} has no published mined templates; leave 'mined' out of --prompts for it")
    return _from_templates("mined", spec.templates["mined"], classnames, uses_labels=True)


Builder = Callable[[DatasetSpec, tuple[str, ...], "Path | None"], PromptSet]
SETS: dict[str, tuple[str, Builder]] = {
    "class-name": ("the class name alone", lambda s, c, f: _from_templates("class-name", ("{}",), c)),
    "vanilla": (DEFAULT_TEMPLATE, lambda s, c, f: _from_templates("vanilla", (DEFAULT_TEMPLATE,), c)),
    "coop": ("CoOp's single template per dataset", lambda s, c, f: _from_templates("coop", s.templates["coop"], c)),
    "hand": ("Tip-Adapter's templates per dataset", lambda s, c, f: _from_templates("hand", s.templates["hand"], c)),
    "mined": ("21 published templates per dataset, chosen with labels", _mined),
    "cupl": ("sentences of a language model (--prompt-dir)", _cupl),
}


def build(name: str, spec: DatasetSpec, classnames: tuple[str, ...], folder: Path | None = None) -> PromptSet:
    """The prompt set ``name`` for one dataset.

    ``folder`` holds a user's sentence files. Raises BenchError for an unknown set and MissingData when its file is absent.
    """
    chosen = SETS.get(canonical(name))
    if chosen is None:
        raise BenchError(f"unknown prompt set '{name}'{nearest(name, SETS)}; one of: {', '.join(SETS)}")
    return chosen[1](spec, classnames, folder)
