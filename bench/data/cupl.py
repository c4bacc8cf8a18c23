"""Read the sentences that a language model wrote about each class, in CuPL's format (datasets 5.6).

This module also finds the key under which a file has the sentences of a class.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from bench import typed
from bench.data.layout import first_existing
from bench.data.spec import CuplRule, DatasetSpec
from bench.errors import BenchError, MissingData
from bench.names import counted, few, nearest, shown
from bench.paths import datasets_dir

_MOST = 50  # classes without sentences that one line names
_Sentences = Annotated[tuple[Annotated[str, Meta(max_length=100_000)], ...], Meta(min_length=1)]
OWN = "pocket-cupl.json"  # lies beside the mined templates; maps dataset name to class name to sentences


def sentences(
    spec: DatasetSpec, classnames: tuple[str, ...], folder: Path | None
) -> tuple[tuple[str, ...], ...]:
    """Return the sentences of every class in label order, unfiltered, from the first CuPL file in ``folder``.

    A dataset without a rule of its own uses ``<name>.json``, whose keys are the class names. Without a folder
    the embedded datasets use the sentences that come with the program. Raises MissingData if no file is
    there, and BenchError if a class has no key or no sentences.
    """
    rule = spec.cupl or CuplRule(files=(f"{spec.name}.json",))
    shipped = own_sentences(spec) if folder is None else {}
    if shipped:
        return _by_class(rule, classnames, shipped, OWN)
    wanted = " or ".join(rule.files)
    if folder is None:
        raise MissingData(
            f"{spec.name}: the prompt set cupl needs --prompt-dir DIR with {wanted}. {rule.note}".strip()
        )
    file = first_existing(folder / name for name in rule.files)
    if file is None:
        raise MissingData(f"{spec.name}: {folder} holds no {wanted}. {rule.note}".strip())
    content = typed.json(file, dict[str, Any])  # keys that belong to no class may hold anything
    return _by_class(rule, classnames, content, str(file))


def own_sentences(spec: DatasetSpec) -> Mapping[str, Any]:
    """Return the sentences that come with the program, by class name; empty for a dataset that has none."""
    return _read_shipped(datasets_dir() / "prompts" / OWN).get(spec.name, {}) if spec.base is None else {}


@lru_cache
def _read_shipped(file: Path) -> dict[str, dict[str, Any]]:
    return typed.json(file, dict[str, dict[str, Any]]) if file.is_file() else {}


def _by_class(
    rule: CuplRule, classnames: tuple[str, ...], content: Mapping[str, Any], file: str
) -> tuple[tuple[str, ...], ...]:
    """Return the sentences of each class from the content of a file."""
    keys = [find_key(rule, classname, content) for classname in classnames]
    pairs = zip(classnames, keys, strict=True)
    if lacking := [cupl_key(rule, classname) for classname, key in pairs if key is None]:
        which = few((f"'{key}'{nearest(key, content)}" for key in lacking), _MOST)
        raise BenchError(
            f"{shown(file)}: no sentences for {len(lacking)} of {counted(len(keys), 'class', 'classes')}; "
            f"add each as a key with a list of sentences: {which}"
        )
    sentences = []
    for key in (key for key in keys if key is not None):
        try:
            sentences.append(typed.converted(content[key], _Sentences, f"{file}: '{shown(key)}'"))
        except typed.Odd as error:
            raise BenchError(f"{error}; give each class a list of sentences") from error
    return tuple(sentences)


def _name(words: str) -> str:
    return words


def _year_last(words: str) -> str:
    """Move the first word, a year, to the end: ``2012 Audi A5`` becomes ``Audi A5 2012``."""
    first, _, rest = words.partition(" ")
    return f"{rest} {first}"


def _scene_qualifier(classname: str) -> str:
    """Put the first word in brackets behind the rest: ``indoor pool`` becomes ``pool (indoor)``."""
    qualifier, blank, scene = classname.partition(" ")
    return f"{scene} ({qualifier})" if blank else classname


RULES: dict[str, Callable[[str], str]] = {
    "name": _name,
    "year-last": _year_last,
    "scene-qualifier": _scene_qualifier,
}


def cupl_key(rule: CuplRule, classname: str) -> str:
    """Return the key that a class should have.

    It is the entry in the rule's table, or else the rule's form of the name with blanks for underscores.
    """
    if rule.rule not in RULES:
        raise BenchError(f"unknown CuPL key rule '{rule.rule}'{nearest(rule.rule, RULES)}")
    return rule.keys.get(classname) or RULES[rule.rule](classname).replace("_", " ")


def find_key(rule: CuplRule, classname: str, available: Collection[str]) -> str | None:
    """Return the key of ``classname`` among a file's keys, whatever its case; None if the file lacks it."""
    wanted = cupl_key(rule, classname)
    return wanted if wanted in available else {key.lower(): key for key in available}.get(wanted.lower())
