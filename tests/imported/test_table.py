"""A file of predictions is checked line by line, and every kind of fault has one line that names the mend."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.data import catalog
from bench.data.dataset import Dataset, Items
from bench.errors import BenchError
from bench.imported.table import Predictions, read

NAMES = ("cat", "guide_dog", "Bird")
TEST = Items(("test/a/1.png", "test/a/2.png", "test/b/2.png", "test/b/3.png"), (0, 0, 1, 2))
GOOD = "image,predicted\ntest/a/1.png,cat\ntest/a/2.png,cat\ntest/b/2.png,guide_dog\ntest/b/3.png,cat\n"
EVEN = "image,p_cat,p_guide_dog,p_Bird\n" + "".join(f"{path},0.5,0.25,0.25\n" for path in TEST.paths)


@pytest.fixture(scope="module")
def toy() -> Dataset:
    """Three classes, and four test images of which two have one base name."""
    train = Items(("train/9.png",), (0,))
    found = catalog.find("digits", None)
    return replace(found, name="toy", classnames=NAMES, train=train, val=Items(), test=TEST)


def told(folder: Path, text: str, dataset: Dataset) -> Predictions:
    file = folder / "mine.csv"
    file.write_text(text, encoding="utf-8")
    return read(file, dataset)


def test_names_and_numbers_and_other_orders_mean_the_same(toy: Dataset, tmp_path: Path) -> None:
    usual = told(tmp_path, GOOD, toy)
    assert usual.top1.tolist() == [0, 0, 1, 0] and usual.probabilities is None
    _, *lines = GOOD.splitlines()
    other = "\n".join(["\ufeffpredicted , image", *(",".join(line.split(",")[::-1]) for line in lines[::-1])])
    assert told(tmp_path, other.replace("guide_dog", "Guide dog") + "\n\n", toy).digest == usual.digest
    assert told(tmp_path, GOOD.replace("cat", "0").replace("guide_dog", "1"), toy).digest == usual.digest
    assert told(tmp_path, GOOD.replace("image,predicted", "Image,PREDICTED"), toy).digest == usual.digest


def test_images_are_found_by_longer_paths_and_base_names(toy: Dataset, tmp_path: Path) -> None:
    other = GOOD.replace("test/a/1.png", "1.png").replace("test/b/3.png", "C:\\data\\toy\\test\\b\\3.png")
    assert told(tmp_path, other, toy).digest == told(tmp_path, GOOD, toy).digest


def test_probabilities_are_scaled_to_one_and_name_the_class(toy: Dataset, tmp_path: Path) -> None:
    text = EVEN.replace("1.png,0.5,0.25,0.25", "1.png,0.1,0.2,0.701")
    found = told(tmp_path, text, toy)
    assert found.top1.tolist() == [2, 0, 0, 0]
    assert found.probabilities is not None and np.allclose(found.probabilities.sum(1), 1, atol=1e-15)
    assert np.allclose(found.probabilities[0], np.array([0.1, 0.2, 0.701]) / 1.001)
    columns = text.replace("p_cat,p_guide_dog,p_Bird", "0,guide dog,p_2")
    assert told(tmp_path, columns, toy).digest == found.digest != told(tmp_path, EVEN, toy).digest


def test_of_equal_probabilities_the_predicted_class_counts(toy: Dataset, tmp_path: Path) -> None:
    text = "image,predicted,p_cat,p_guide_dog,p_Bird\n"
    text += "".join(f"{path},Bird,0.4,0.2,0.4\n" for path in TEST.paths)
    assert told(tmp_path, text, toy).top1.tolist() == [2, 2, 2, 2]


def test_where_classes_are_called_by_numbers_these_are_names(toy: Dataset, tmp_path: Path) -> None:
    numbered = replace(toy, classnames=("7", "1", "0"))
    text = GOOD.replace("cat", "0").replace("guide_dog", "7")
    assert told(tmp_path, text, numbered).top1.tolist() == [2, 2, 0, 2]
    with pytest.raises(BenchError, match=r"'2' is no class of toy.*: write the name of a class$"):
        told(tmp_path, text.replace(",7", ",2"), numbered)


FAULTS = {
    "": "is empty; the first line names the columns",
    "image;predicted\n": "line 1: the columns are not divided by commas",
    "file,predicted\n": "line 1: no column is called 'image'",
    "image\n": "line 1: no column is called 'predicted'",
    "image,predicted,image\n": "line 1: two columns are called 'image'",
    "image,predicted,p_cats\n": r"line 1: column 'p_cats' is neither .* \(did you mean 'cat'\?\)",
    "image,p_cat,cat,p_1,p_2\n": "line 1: columns 'p_cat' and 'cat' are of one class",
    "image,p_cat\n": "line 1: there are probabilities of 1 class, but not of guide_dog, Bird",
    'image,predicted\n1.png,"cat"x\n': "line 2: no line of a CSV file",
    "image,predicted\n1.png\n": "line 2: 1 cells, but the first line has 2",
    "image,predicted\n2.png,cat\n": "line 2: image '2.png' is the base name of 2 test images",
    "image,predicted\ntrain/9.png,cat\n": "line 2: image 'train/9.png' is a training image of toy",
    "image,predicted\nx.png,cat\n": "line 2: image 'x.png' is no test image of toy",
    "image,predicted\nb/1.png,cat\n": "line 2: image 'b/1.png' is no test image of toy",
    "image,predicted\n1.png,cat\n\ntest/a/1.png,cat\n": "line 4: image 'test/a/1.png' was on line 2 already",
    "image,predicted\n1.png,\n": "line 2: no class is predicted: write its name",
    "Image,IMAGE,predicted\n": "line 1: column 'IMAGE' is neither",
    "image,predicted\n1.png,cats\n": r"line 2: 'cats' is no class of toy \(did you mean 'cat'\?\)",
    "image,predicted\n1.png,3\n": "line 2: '3' is no class of toy: .* its number from 0 to 2",
    "image,predicted\n1.png,cat\n": "3 of the 4 test images of toy are missing, such as test/a/2",
    EVEN.replace("0.5,", "50%,"): "line 2: '50%' as the probability of 'cat' is no number",
    EVEN.replace(
        "0.5,", ","
    ): "line 2: there is no probability of 'cat': write one for each class, or delete",
    EVEN.replace("0.5,", "-0.5,"): "line 2: -0.5 as the probability of 'cat' is not from 0 to 1",
    EVEN.replace("0.5,", "nan,"): "line 2: nan as the probability of 'cat' is not from 0 to 1",
    EVEN.replace("0.5,", "0.4,"): "line 2: the probabilities sum to 0.9000, not to 1",
    EVEN.replace("image,", "predicted,image,").replace("test", "cat,test").replace("0.5,0.25", "0.25,0.5"): (
        "line 2: 'cat' is predicted with probability 0.25, but 'guide_dog' has 0.5"
    ),
}


@pytest.mark.parametrize("text", FAULTS)
def test_a_fault_is_said_with_its_line(text: str, toy: Dataset, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=FAULTS[text]) as error:
        told(tmp_path, text, toy)
    assert "\n" not in str(error.value) and ": " in str(error.value)


def test_two_classes_of_one_name_need_numbers(toy: Dataset, tmp_path: Path) -> None:
    twins = replace(toy, classnames=("crane", "crane", "Bird"))
    with pytest.raises(BenchError, match="several classes are called 'crane': write the class's number"):
        told(tmp_path, GOOD.replace("cat", "crane"), twins)
    with pytest.raises(BenchError, match="several classes have that name: write the class's number"):
        told(tmp_path, "image,p_crane\n", twins)
    assert told(tmp_path, GOOD.replace("cat", "0").replace("guide_dog", "1"), twins).top1[2] == 1


def test_bytes_that_are_no_text_are_refused(toy: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_bytes(b"image,predicted\n\xff,cat\n")
    with pytest.raises(BenchError, match="not UTF-8 text"):
        read(file, toy)
