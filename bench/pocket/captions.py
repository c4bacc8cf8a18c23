"""Write captions of the training scenes: a concept's name, its category, a related word, the background.

Captions use the wording of the suite's templates, so that the few words that a tiny text tower knows are
those that it is asked about. This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from bench.pocket.iconsets import Concept

TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a picture of a {}.",
    "a drawing of a {}.",
    "an icon of a {}.",
    "an emoji of a {}.",
    "a scene with a {}.",
    "{}",
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
FLAG_TEMPLATES = (
    "a photo of the flag of {}.",
    "a photo of a flag of {}.",
    "a picture of the flag of {}.",
    "a drawing of the flag of {}.",
    "the flag of {}.",
    "the national flag of {}.",
    "a photo of a {} flag.",
)
DIGIT_TEMPLATES = (
    "a photo of the digit {}.",
    "a photo of the handwritten digit {}.",
    "a photo of the number {}.",
    "the digit {}.",
)
BROADER = {  # used because the suite's hand templates call a bird "a kind of animal"
    "mammal": "animal",
    "bird": "animal",
    "insect": "animal",
    "sea animal": "animal",
    "reptile": "animal",
    "amphibian": "animal",
    "fruit": "food",
    "vegetable": "food",
    "cooked dish": "food",
    "asian dish": "food",
    "dessert": "food",
    "land vehicle": "vehicle",
    "aircraft": "vehicle",
    "boat": "vehicle",
    "tool": "tool or instrument",
    "musical instrument": "tool or instrument",
    "science instrument": "tool or instrument",
}
TEXTURES = ("plain", "striped", "dotted", "checkered", "gradient", "noisy", "wavy", "gridded")
COLOURS = {
    "red": (0.85, 0.15, 0.15),
    "green": (0.15, 0.65, 0.25),
    "blue": (0.2, 0.35, 0.85),
    "yellow": (0.95, 0.85, 0.2),
    "purple": (0.55, 0.25, 0.7),
    "orange": (0.95, 0.55, 0.15),
    "pink": (0.95, 0.6, 0.75),
    "brown": (0.5, 0.33, 0.2),
    "black": (0.08, 0.08, 0.08),
    "white": (0.97, 0.97, 0.97),
    "gray": (0.5, 0.5, 0.5),
}
# Cumulative shares of a uniform draw, which decides what a caption says.
BY_CATEGORY, BY_BOTH, WITH_TAG, WITH_BACKGROUND = (
    0.15,
    0.30,
    0.40,
    0.50,
)


def templates(concept: Concept) -> tuple[str, ...]:
    """Return the templates of the concept's kind."""
    return FLAG_TEMPLATES if concept.flag else DIGIT_TEMPLATES if concept.category == "digit" else TEMPLATES


def caption(concept: Concept, texture: str, colour: str, rng: np.random.Generator) -> tuple[str, bool]:
    """Make a scene's caption, and say whether it names only the category.

    Such a caption is true of all scenes of the category.
    """
    kind = rng.random()
    plain = templates(concept) is TEMPLATES
    if plain and kind < BY_CATEGORY:
        return _pick(TEMPLATES, rng).format(concept.category), True
    name = concept.alias if concept.alias and rng.random() < 0.6 else concept.name
    text = _pick(templates(concept), rng).format(name)
    if kind < BY_BOTH and plain:
        kinds = (concept.category, BROADER.get(concept.category, concept.category))
        text = f"{text.rstrip('.')}, a kind of {_pick(kinds, rng)}."
    elif kind < BY_BOTH and concept.flag:
        text = f"{text.rstrip('.')}, a country."
    elif kind < WITH_TAG and concept.tags:
        text = f"{text.rstrip('.')}, {_pick(concept.tags, rng)}."
    elif WITH_TAG <= kind < WITH_BACKGROUND:
        text = f"{text.rstrip('.')} on a {colour} {texture} background."
    return text, False


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def vocabulary(concepts: Sequence[Concept]) -> Iterable[str]:
    """Yield texts whose tokens are all the tokens that a caption can hold."""
    for concept in concepts:
        yield concept.name
        yield concept.alias
        yield concept.category
        yield from concept.tags
    for template in (*TEMPLATES, *FLAG_TEMPLATES, *DIGIT_TEMPLATES):
        yield template.format("")
    yield from BROADER.values()
    yield from TEXTURES
    yield from COLOURS
    yield "a kind of, on a background, a country."
