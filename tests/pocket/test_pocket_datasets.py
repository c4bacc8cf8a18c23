"""The embedded datasets have equal lists on all machines, disjoint splits, and drawings by the stated
artists.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from bench.data import catalog
from bench.data.dataset import Dataset
from bench.data.spec import parse
from bench.errors import BenchError
from bench.pocket import glyphs
from bench.pocket.readers import SPLITS, DigitSource, read_scenes
from bench.pocket.scenes import Scene, SceneSource

DIGESTS = Path(__file__).resolve().parent / "digests.json"
CONCEPTS = (
    "mammals",
    "birds-and-sea",
    "fruit-and-vegetables",
    "dishes",
    "vehicles",
    "tools-and-instruments",
    "flags",
)
CATEGORIES = ("animal-kinds", "things-by-kind")
SHIFTS = ("emoji-v2", "emoji-sketch", "emoji-a", "emoji-r")
SUITE = (*CONCEPTS, *CATEGORIES, "emoji", "digits")
SCENES = (*CONCEPTS, *CATEGORIES, "emoji", *SHIFTS)


@lru_cache
def dataset_of(name: str) -> Dataset:
    return catalog.find(name, None)


def source(name: str) -> SceneSource:
    scenes = dataset_of(name).source
    assert isinstance(scenes, SceneSource)
    return scenes


def scenes(name: str, split: str) -> list[Scene]:
    """A dataset's scenes in a split: all of val and test, every seventh of train."""
    paths = getattr(dataset_of(name), split).paths
    return [source(name).scene(path) for path in (paths[::7] if split == "train" else paths)]


def drawn(scene: Scene) -> set[int]:
    return {scene.main.glyph, *(other.glyph for other in scene.others)}


def test_digests_are_the_same_on_every_machine() -> None:
    assert {name: dataset_of(name).digest for name in (*SUITE, *SHIFTS)} == json.loads(DIGESTS.read_text())


def test_the_digest_follows_every_part_of_the_scenes() -> None:
    table = {
        "name": "own",
        "reader": "scenes",
        "counts": {"classes": 2, "train": 4, "test": 4},
        "options": {"glyphs": {"lion": "1f981", "car": "1f697"}, "artists": ["openmoji"]},
    }
    place = catalog.Place(None)
    digest = read_scenes(parse(table, "own"), place).digest
    others = [
        table | {"name": "mine"},
        table | {"counts": {"classes": 2, "train": 6, "test": 4}},
        table | {"options": table["options"] | {"artists": ["twemoji"]}},  # type: ignore[operator]
        table | {"options": table["options"] | {"style": "hard"}},  # type: ignore[operator]
        table | {"options": table["options"] | {"glyphs": {"lion": "1f405", "car": "1f697"}}},  # type: ignore[operator]
        table | {"options": table["options"] | {"glyphs": {"cat": "1f981", "car": "1f697"}}},  # type: ignore[operator]
    ]
    assert len({digest, *(read_scenes(parse(other, "own"), place).digest for other in others)}) == 1 + len(
        others
    )
    assert read_scenes(parse(table | {"title": "Another title"}, "own"), place).digest == digest


@pytest.mark.parametrize("name", SUITE)
def test_counts(name: str) -> None:
    dataset = dataset_of(name)
    classes = len(dataset.classnames)
    assert dataset.spec.counts == {"classes": classes} | {s: len(getattr(dataset, s)) for s in SPLITS}
    each = {split: np.bincount(getattr(dataset, split).labels, minlength=classes) for split in SPLITS}
    assert (each["train"] == 100).all() and each["val"].min() >= 4 and each["test"].min() >= 25
    if name in CONCEPTS:
        assert 20 <= classes <= 60
    assert classes >= 60 or name != "emoji"
    for split in SPLITS:
        assert len(set(getattr(dataset, split).paths)) == len(getattr(dataset, split))


@pytest.mark.parametrize("name", [*SUITE, *SHIFTS])
def test_descriptions(name: str) -> None:
    spec = dataset_of(name).spec
    kinds = (
        dict.fromkeys(CATEGORIES, "categories")
        | dict.fromkeys(SHIFTS, "shifted test set")
        | {"digits": "scans"}
    )
    assert spec.kind == kinds.get(name, "concepts")
    assert spec.recipe_as == ("imagenet" if name.startswith("emoji") else "default")
    assert len(spec.templates["coop"]) == 1 and spec.templates["hand"] and spec.licence and spec.get


@pytest.mark.parametrize("name", (*CONCEPTS, *CATEGORIES, "emoji"))
def test_splits_share_no_scene(name: str) -> None:
    parts = [scenes(name, split) for split in SPLITS]
    assert len(set().union(*parts)) == sum(map(len, parts))


def test_emoji_and_its_shifts_share_no_scene() -> None:
    parts = [scenes("emoji", split) for split in SPLITS] + [scenes(name, "test") for name in SHIFTS]
    assert len(set().union(*parts)) == sum(map(len, parts))


@pytest.mark.parametrize("name", CATEGORIES)
def test_categories_share_no_drawing_between_splits_nor_classes(name: str) -> None:
    parts = [set().union(*map(drawn, scenes(name, split))) for split in SPLITS]
    codes = [{glyphs.describe(glyph)[0] for glyph in part} for part in parts]
    assert len(set().union(*codes)) == sum(map(len, codes)), (
        "not even another artist's drawing of the same thing"
    )
    every = [glyph for rows in source(name).drawings.values() for row in rows for glyph in row]
    assert len(set(every)) == len(every)
    for split in SPLITS:
        for row in source(name).drawings[split]:
            assert len(row) >= 2


@pytest.mark.parametrize("name", SCENES)
def test_every_class_is_drawn_by_every_artist_in_every_split(name: str) -> None:
    dataset = dataset_of(name)
    artists = set(dataset.spec.extra["artists"])
    for split, rows in source(name).drawings.items():
        seen: dict[int, set[str]] = {}
        for label in range(len(rows)):
            for index in range(4):
                glyph = source(name).draw(split, label, index).main.glyph
                assert glyphs.svg_path(glyph).is_file()
                seen.setdefault(label, set()).add(glyphs.describe(glyph)[1])
        assert all(found_by == artists for found_by in seen.values()) and len(seen) == len(dataset.classnames)
    used = {glyph for rows in source(name).drawings.values() for row in rows for glyph in row}
    assert all(glyphs.svg_path(glyph).is_file() for glyph in used)


def test_shifts_belong_to_emoji() -> None:
    emoji = dataset_of("emoji")
    assert emoji.spec.targets == SHIFTS and len(emoji.spec.templates["hand"]) == 7
    for name in SHIFTS:
        shift = dataset_of(name)
        assert shift.spec.source == "emoji" and shift.spec.templates == emoji.spec.templates
        assert not len(shift.train) and not len(shift.val)
        rows = shift.classes if shift.classes is not None else range(len(emoji.classnames))
        assert shift.classnames == tuple(emoji.classnames[row] for row in rows)
        assert min(np.bincount(shift.test.labels, minlength=len(shift.classnames))) >= 25
    assert all(dataset_of(name).classes is not None for name in ("emoji-a", "emoji-r"))


def test_class_names_differ() -> None:
    for name in (*SUITE, *SHIFTS):
        assert len(set(dataset_of(name).classnames)) == len(dataset_of(name).classnames)


def test_digits_are_scikit_learns_scans() -> None:
    from sklearn.datasets import load_digits

    dataset, scans = dataset_of("digits"), load_digits()
    assert isinstance(dataset.source, DigitSource)
    rows = []
    for split in SPLITS:
        items = getattr(dataset, split)
        mine = [dataset.source.rows[path] for path in items.paths]
        assert tuple(scans.target[mine]) == items.labels
        rows += mine
    assert sorted(rows) == list(range(len(scans.target)))
    path = dataset.test.paths[0]
    image = np.asarray(dataset.source.open(path)).astype(float)
    assert image.shape == (128, 128, 3)
    ink = scans.images[dataset.source.rows[path]]
    coarse = 255 - image[..., 0].reshape(8, 16, 8, 16).mean(axis=(1, 3))
    assert np.corrcoef(coarse.ravel(), ink.ravel())[0, 1] > 0.95, "dark where the pen was, and not transposed"
    with pytest.raises(BenchError, match="no image"):
        dataset.source.open("test/ten/0000.png")


@pytest.mark.parametrize(
    ("options", "counts", "message"),
    [
        (
            {"glyphs": {"lion": "1f981"}, "artist": ["openmoji"]},
            {"classes": 1, "train": 1},
            "did you mean 'artists'",
        ),
        ({"glyphs": {"lion": "1f981"}}, {"classes": 2, "train": 2}, "classes must be 1"),
        (
            {"glyphs": {"lion": "1f981"}, "classes": ["lyon"]},
            {"classes": 1, "train": 1},
            "did you mean 'lion'",
        ),
        ({"glyphs": {"cat": ["1f408", "1f981"]}}, {"classes": 1, "train": 1}, "at least 3"),
    ],
)
def test_a_wrong_description_says_what_to_mend(options: dict, counts: dict, message: str) -> None:
    table = {"name": "own", "reader": "scenes", "options": options, "counts": counts}
    with pytest.raises(BenchError, match=message):
        read_scenes(parse(table, "own"), catalog.Place(None))


if __name__ == "__main__":
    DIGESTS.write_text(
        json.dumps({name: dataset_of(name).digest for name in (*SUITE, *SHIFTS)}, indent=1) + "\n"
    )
