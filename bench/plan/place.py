"""Define the place of a fit in a plan, and find the images that a fit there gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench import prompts as prompt_sets
from bench.clip.backbone import BackboneSpec
from bench.data import fewshot, folds
from bench.data.dataset import Dataset, Draw
from bench.interface import Method
from bench.records.keys import ALL, Shots


@dataclass(frozen=True)
class Place:
    """The place of a fit: its coordinates, the name of its prompt set, and the settings that the user set.

    Where ``shots`` is ``ALL``, ``dataset`` is a fold and ``seed`` the number of the fold.
    """

    method: Method
    dataset: Dataset
    shots: Shots
    seed: int
    backbone: BackboneSpec
    prompts: str
    given: Mapping[str, Any]


def labelled(method: Method, prompts: str) -> bool:
    """Return whether a method with the prompt set of this name uses labels."""
    return method.uses_labels or prompt_sets.labelled(prompts)


class Draws:
    """The folds of datasets and the draws from them, each made once."""

    def __init__(self, folds: int) -> None:
        self.count = folds  # 0: few-shot draws
        self.folds: dict[tuple[str, int], Dataset] = {}
        self.draws: dict[tuple[str, Shots, int, bool], Draw] = {}

    def fold(self, dataset: Dataset, number: int) -> Dataset:
        """Return a fold of a dataset, or the dataset itself if there are no folds."""
        key = (dataset.digest, number)
        if not self.count:
            return dataset
        if key not in self.folds:
            self.folds[key] = folds.fold(dataset, number, self.count)
        return self.folds[key]

    def of(self, place: Place) -> Draw:
        """Return the images that a fit gets. On a fold, a method that uses no labels gets none."""
        learns = labelled(place.method, place.prompts)
        key = (place.dataset.digest, place.shots, place.seed, learns)
        if key not in self.draws:
            if place.shots == ALL:
                self.draws[key] = folds.draw(place.dataset) if learns else folds.nothing()
            else:
                self.draws[key] = fewshot.draw(place.dataset, place.shots, place.seed)
        return self.draws[key]

    def shots(self, place: Place) -> int:
        """Return the number of shots that the recipe and the fit are told (``Facts.shots``)."""
        return folds.shots(self.of(place)) if place.shots == ALL else place.shots
