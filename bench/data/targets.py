"""Match the classes of a shifted test set with the rows of the source's classifier."""

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
    """Return the test set with the row of each of its classes in the classifier, found by the class's name.

    ``source`` is the dataset whose classes the model learnt. A test set may hold fewer of them, in another
    order: a set of class folders, for example, sorts its own. The rows then become part of the digest. The
    reason: until November 2026 such a set was scored by position, which gave wrong numbers, and the new
    digest makes its evaluations anew. If the set's reader has found the rows already, they stay. Raises
    Unmatched for a class that the source does not have, and for a name that two classes of either set share,
    because nothing tells which row is whose.
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
