"""Check in the plan that the texts of a dataset's classes differ and that each class has an image.

The checks open no image, encode no text and import no torch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

from bench.clip.cleaning import cleaned, is_byte_pair, pieces
from bench.clip.spec import BackboneSpec
from bench.data.dataset import Dataset, Draw
from bench.names import quoted, short, shown
from bench.prompts import PromptSet

_MEND = "rename a folder, or the class by [classnames] rename in the dataset's TOML file"


def alike(prompts: PromptSet, dataset: Dataset, spec: BackboneSpec) -> str:
    """Return why a prompt set cannot tell the classes apart on a backbone, in one line, or "" if it can.

    Classes of equal names may have equal texts, as in ``bench.clip.text.classifier``.
    """
    names = dataset.classnames
    if len(names) < 2:
        return (
            f"there is {'one class' if names else 'no class'}, so there is nothing to tell apart: add another"
        )
    if prompts.templates and (empty := [name for name in names if not pieces(name.replace("_", " "))]):
        return f"class {quoted(empty)} has no text in its name: {_MEND}"
    read: Callable[[str], Hashable] = pieces if is_byte_pair(spec.config) else str
    groups = [g for g in _equal(prompts.prompts, read) if len({names[k] for k in g}) > 1]
    if not groups:
        return ""
    same = list(dict.fromkeys(names[k] for k in groups[0]))
    more = f" (and {len(groups) - 1} more such groups)" if groups[1:] else ""
    text = short(shown(cleaned(prompts.prompts[groups[0][0]][0])))
    return (
        f"classes {quoted(same)}{more} have the same text for {spec.name}, '{text}', "
        f"so they cannot be told apart: {_MEND}"
    )


def note(prompts: PromptSet, dataset: Dataset) -> str:
    """Return one line about class names without a letter, whose texts say little, or "" if there are none."""
    if not prompts.templates:
        return ""
    bare = [name for name in dataset.classnames if not any(map(str.isalpha, cleaned(name)))]
    if not bare:
        return ""
    return (
        f"{len(bare)} of {len(dataset.classnames)} class names have no letter ({quoted(bare)}): "
        "their texts say little; [classnames] rename in its TOML file gives names"
    )


def unseen(dataset: Dataset, draw: Draw) -> str:
    """Return which classes have no training image, in one line, or "" if none lacks one or none is learnt."""
    there = set(draw.train.labels)
    if not there:
        return ""
    lacking = [name for k, name in enumerate(dataset.classnames) if k not in there]
    if not lacking:
        return ""
    return f"there is no training image of class {quoted(lacking)}: add some, or leave the class out"


def _equal(prompts: Sequence[Sequence[str]], read: Callable[[str], Hashable]) -> list[list[int]]:
    """Return the groups of classes with equal prompts, where ``read`` says what counts as equal.

    The first prompts alone are compared first, because they already separate most classes.
    """
    groups = [list(range(len(prompts)))]
    for whole in (False, True):
        sifted = []
        for group in groups:
            buckets: dict[Hashable, list[int]] = defaultdict(list)
            for k in group:
                buckets[tuple(read(text) for text in (prompts[k] if whole else prompts[k][:1]))].append(k)
            sifted += [bucket for bucket in buckets.values() if len(bucket) > 1]
        groups = sifted
    return groups
