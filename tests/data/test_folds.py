"""Folds of all labelled images: each is tested once, by a fit that can learn every class (datasets 4.7)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.data import catalog, folds
from bench.data.dataset import Dataset, Draw, Items, dataset_digest
from bench.data.imagefile import FolderSource
from bench.errors import BenchError


def of_sizes(*sizes: int, same: tuple[tuple[str, ...], ...] = ()) -> Dataset:
    """A dataset with so many images of each class, scattered over its three lists."""
    rows = [(f"{label}/{i}", label) for label, size in enumerate(sizes) for i in range(size)]
    names = tuple(f"class {label}" for label in range(len(sizes)))

    def part(k: int) -> Items:
        mine = rows[k::3]
        return Items(tuple(path for path, _ in mine), tuple(label for _, label in mine))

    train, val, test = part(0), part(1), part(2)
    digest = dataset_digest(names, train, val, test)
    source = FolderSource(Path("nowhere"))
    return Dataset("own", catalog.spec("dtd"), names, train, val, test, digest, source, same=same)


def all_folds(dataset: Dataset, of: int = 5) -> list[Dataset]:
    return [folds.fold(dataset, number, of) for number in range(1, of + 1)]


def test_every_image_is_tested_once_and_each_class_is_spread_evenly() -> None:
    dataset = of_sizes(3, 12, 40, 7)
    cut = all_folds(dataset)
    tested = [path for one in cut for path in one.test.paths]
    assert sorted(tested) == sorted(dataset.listed())
    for label, size in enumerate((3, 12, 40, 7)):
        counts = [Counter(one.test.labels)[label] for one in cut]
        assert sum(counts) == size and max(counts) - min(counts) <= 1
    sizes = [len(one.test) for one in cut]
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 24), min_size=2, max_size=6), st.integers(2, 6))
def test_a_fold_learns_every_class_from_images_that_it_neither_tests_nor_validates(
    sizes: list[int], of: int
) -> None:
    dataset = of_sizes(*sizes)
    if sum(size for size in sizes if size > 1) < of:
        return
    for one in all_folds(dataset, of):
        lists = [set(items.paths) for items in (one.train, one.val, one.test)]
        assert not (lists[0] & lists[1] or lists[0] & lists[2] or lists[1] & lists[2])
        assert set().union(*lists) == set(dataset.listed())
        support, val, test = (Counter(items.labels) for items in (one.train, one.val, one.test))
        for label, size in enumerate(sizes):
            others = size - test[label]
            assert support[label] >= 1
            assert val[label] == (0 if others == 1 else min(4, max(1, others // 5)))


def test_a_class_of_one_image_is_learnt_everywhere_tested_nowhere_and_named() -> None:
    for one in all_folds(of_sizes(1, 9, 9)):
        assert Counter(one.train.labels)[0] == 1 and 0 not in one.test.labels
        assert any("class 0" in note and "none tests it" in note for note in one.notes)
    assert not any("none tests it" in note for note in folds.fold(of_sizes(2, 9, 9), 1).notes)


def test_equal_images_are_in_one_fold_and_never_on_both_sides() -> None:
    twins = ("0/0", "0/3", "0/4")
    places = set()
    for one in all_folds(of_sizes(9, 9, same=(twins, ("0/7", "1/7")))):
        for items in (one.train, one.val, one.test):
            assert len({path in items.paths for path in twins}) == 1
            assert ("0/7" in items.paths) == ("1/7" in items.paths)
        places |= {one.digest} if twins[0] in one.test.paths else set()
    assert len(places) == 1


def test_a_class_whose_every_image_has_its_equal_elsewhere_is_learnt_all_the_same() -> None:
    for one in all_folds(of_sizes(6, 1, 6, same=(("0/2", "1/0"),))):
        assert set(one.train.labels) == {0, 1, 2}
        assert "0/2" in one.train.paths  # whoever tests it would know the answer, and class 1 needs its equal


def test_the_folds_of_equal_lists_are_equal_and_another_seed_gives_others() -> None:
    dataset = of_sizes(5, 8)
    again, other = folds.fold(of_sizes(5, 8), 2), folds.fold(dataset, 2, seed=2)
    assert folds.fold(dataset, 2) == replace(again, whole=dataset)
    assert other.test != again.test
    # The cut is part of the specification: a change of it is a change of numbers.
    assert folds.fold(dataset, 1).digest[:12] == "c00a77879bd1"


def test_a_fold_has_a_digest_of_its_own_and_the_features_of_the_whole() -> None:
    dataset = of_sizes(5, 8)
    cut = [*all_folds(dataset), *all_folds(dataset, 4)]
    assert len({one.digest for one in cut} | {dataset.digest}) == 10
    assert {one.stored_as for one in cut} == {dataset.stored_as}
    watched = replace(dataset, lists=dataset.digest)
    assert folds.fold(watched, 1).stored_as == watched.stored_as
    assert folds.fold(watched, 1).covers == watched.covers == "lists"
    assert folds.fold(dataset, 1).covers == "contents"


def test_what_cannot_be_cut_is_refused_with_the_mend() -> None:
    with pytest.raises(BenchError, match="--folds 4 is the most"):
        folds.fold(of_sizes(2, 2), 1, 5)
    with pytest.raises(BenchError, match="add images"):
        folds.fold(of_sizes(1, 1), 1, 2)
    with pytest.raises(BenchError, match="at least 2"):
        folds.fold(of_sizes(5, 5), 1, 1)
    with pytest.raises(BenchError, match="a fold already"):
        folds.fold(folds.fold(of_sizes(5, 5), 1), 1)
    twice = replace(of_sizes(5, 5), val=Items(("0/0",), (1,)))
    with pytest.raises(BenchError, match="give it one class"):
        folds.fold(twice, 1)


def test_the_shots_of_a_fold_are_the_median_of_its_classes() -> None:
    def shots(*sizes: int) -> int:
        labels = tuple(label for label, size in enumerate(sizes) for _ in range(size))
        items = Items(tuple(map(str, range(len(labels)))), labels)
        return folds.shots(Draw(items, Items(), (), (), ""))

    assert (shots(3, 8, 40), shots(3, 8, 20, 40), shots(1, 1)) == (8, 8, 1)
    assert folds.shots(folds.nothing()) == 0


def test_equal_files_of_a_folder_are_known_and_its_cut_is_no_note_of_a_fold(tmp_path: Path) -> None:
    for name, colours in {"cat": (0, 1, 2, 3, 3), "dog": (9, 10, 11, 12)}.items():
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i, colour in enumerate(colours):
            Image.new("RGB", (8, 8), (colour, 0, 0)).save(tmp_path / "pets" / name / f"{i}.png")
    dataset = catalog.find(str(tmp_path / "pets"), None)
    assert dataset.same == (("cat/3.png", "cat/4.png"),) and dataset.notes
    for one in all_folds(dataset, 3):
        assert not any("50/20/30" in note for note in one.notes)
        assert len({path in one.test.paths for path in dataset.same[0]}) == 1
