"""Shifted test sets: which row of a model's classifier each class of such a set is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from bench.data.dataset import Dataset
from bench.errors import BenchError
from bench.files import digest
from bench.names import few


class Unmatched(BenchError):
    """A test set whose classes cannot be found among those of its source. The message names the mend."""


def matched(target: Dataset, source: Dataset) -> Dataset:
    """Return the test set with its classes found by name among those of ``source``, which the model learnt.

    A test set may hold fewer classes, in another order: a set of class folders sorts its own. The rows then
    become part of the digest, because until November 2026 such a set was scored by position, which gave wrong
    numbers: its evaluations are made anew. A reader that has found the rows itself keeps them. Raises
    Unmatched for a class that the source does not have, and for a name that two classes of either set share:
    which row each of them is cannot be told.
    """
    if target is source or target.classes is not None or target.classnames == source.classnames:
        return target
    rows = {name: row for row, name in enumerate(source.classnames)}
    if unknown := [name for name in target.classnames if name not in rows]:
        raise Unmatched(
            f"{target.name}: {source.name} has no class {few(unknown)}; call the classes as there, for "
            "example by [classnames] rename in the TOML file"
        )
    names = Counter(target.classnames), Counter(source.classnames)
    if shared := [name for name in names[0] if max(names[0][name], names[1][name]) > 1]:
        where = target.name if names[0][shared[0]] > 1 else source.name
        raise Unmatched(
            f"{target.name}: several classes of {where} are called {few(shared)}, so they "
            "cannot be matched by name; give each class a name of its own in both sets, for example by "
            "[classnames] rename in the TOML file"
        )
    classes = tuple(rows[name] for name in target.classnames)
    return replace(target, classes=classes, digest=digest([target.digest, classes]))
