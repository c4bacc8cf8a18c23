"""The way of opening image files is in the keys of features, fits and evaluations; the published way adds
nothing.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.clip.backbone import resolve
from bench.data.dataset import Dataset
from bench.data.opening import Opening
from bench.features.forward import keys
from bench.features.key import prepared
from bench.lazy import torch
from bench.plan import planner
from bench.plan.cells import Planned
from bench.plan.request import Request
from bench.registry import builtin
from tests.fixtures import disk

PUBLISHED = "v1-shortest128-bicubic-c4fe87ab"
DTD_FIT = "e3f5f26b499df09fa0e58b96a966610f50d82c4ae139eb2698df60de40424f41"
DTD_EVALUATION = "11e8e5a7f5a9f3400fcb7cd1dec158ebd99a2baf0954d8cd8e22516f49dd3cbe"
MAMMALS_FIT = "16fa9a7522ea675ff4f21d18facb50adecced01fb4a1ef34cb7448815ce77bde"
MAMMALS_EVALUATION = "ee02afbf4b0a4f29ccf018ebf858a38bd3c2187830d23c2a56cc8d1854531598"
SPLIT = "split_zhou_DescribableTextures.json"


def planned(dataset: str, root: Path | None = None, targets: bool = False) -> Planned:
    request = Request(
        methods=("zero-shot",),
        datasets=(dataset,),
        shots=(1,),
        seeds=(1,),
        backbones=("pocket-rn",),
        prompts=("hand",),
        targets=targets,
        data_root=root,
    )
    (fit,) = planner.make(request, builtin()).fits
    return fit


def folder_of(dataset: Dataset) -> str:
    tower = SimpleNamespace(spec=resolve("pocket-rn"), device=torch.device("cpu"), dtype=torch.float32)
    return keys(tower, dataset)("pooled", "eval").folder  # type: ignore[arg-type]


def listed(folder: Path, table: str, name: str = "mine", more: str = "") -> str:
    """A user's dataset that is a list: its digest does not see how images are opened."""
    rows = disk.split_file(folder / "lists" / "split.json", ["banded", "woven"])
    disk.listed_images(folder / "lists", rows)
    file = folder / f"{name}.toml"
    file.write_text(
        f'name = "{name}"\nreader = "coop-split"\n{more}[layout]\nfolders = ["lists"]\n'
        f'[options]\nfile = "split.json"\n{table}'
    )
    return str(file)


def test_published_and_embedded_datasets_keep_their_keys(tmp_path: Path) -> None:
    """The strings were computed before own images had a way of their own."""
    disk.listed_images(
        tmp_path / "dtd" / "images", disk.split_file(tmp_path / "dtd" / SPLIT, ["banded", "woven"])
    )
    assert prepared(resolve("pocket-rn")) == prepared(resolve("pocket-vit")) == PUBLISHED
    for name, root, key, evaluation in (
        ("dtd", tmp_path, DTD_FIT, DTD_EVALUATION),
        ("mammals", None, MAMMALS_FIT, MAMMALS_EVALUATION),
    ):
        fit = planned(name, root)
        assert fit.parts.preprocessing == PUBLISHED and fit.evaluations[0].parts.opening == ""
        assert (fit.key, fit.evaluations[0].key) == (key, evaluation)
        assert f"_{PUBLISHED}_" in folder_of(fit.dataset)


def test_own_images_have_keys_of_their_own(tmp_path: Path) -> None:
    tables = {
        "": f"{PUBLISHED}+own1-ffffff",
        '[images]\nbackground = "white"': f"{PUBLISHED}+own1-ffffff",
        '[images]\nbackground = "#000"': f"{PUBLISHED}+own1-000000",
        "[images]\nwhite = 4095": f"{PUBLISHED}+own1-ffffff-white4095",
        "[images]\nas_published = true": PUBLISHED,
    }
    fits = {table: planned(listed(tmp_path, table)) for table in tables}
    assert len({fit.dataset.digest for fit in fits.values()}) == 1
    for table, fit in fits.items():
        assert fit.parts.preprocessing == tables[table]
        assert f"_{tables[table]}_" in folder_of(fit.dataset)
    assert len({fit.key for fit in fits.values()}) == len({f.evaluations[0].key for f in fits.values()}) == 4


def test_the_opening_of_a_target_is_in_its_evaluation(tmp_path: Path) -> None:
    """The fit is the same, so the evaluation alone must tell two backgrounds of a target apart."""

    def evaluated(table: str) -> tuple[str, list[str]]:
        target = listed(tmp_path, table, "shifted")
        fit = planned(listed(tmp_path, "", more=f"targets = ['{target}']\n"), targets=True)
        return fit.key, [e.key for e in fit.evaluations]

    white, black = evaluated(""), evaluated('[images]\nbackground = "black"')
    assert white[0] == black[0]
    assert len(white[1]) == 1, "the target is the test set itself"
    assert len(black[1]) == 2 and black[1][0] == white[1][0] != black[1][1]


@pytest.mark.parametrize("limit", [None, 100])
def test_the_limit_of_pixels_reaches_the_images_and_no_key(tmp_path: Path, limit: int | None) -> None:
    toml = listed(tmp_path, "")
    request = Request(
        methods=("zero-shot",),
        datasets=(toml,),
        shots=(1,),
        seeds=(1,),
        backbones=("pocket-rn",),
        prompts=("hand",),
        max_pixels=limit,
    )
    (fit,) = planner.make(request, builtin()).fits
    other = planned(toml)
    assert fit.dataset.source.max_pixels == limit and fit.key == other.key  # type: ignore[attr-defined]
    assert folder_of(fit.dataset) == folder_of(other.dataset)


def test_names_of_openings() -> None:
    assert str(Opening()) == "own1-ffffff"
    assert str(Opening((0, 16, 255), 0.5)) == "own1-0010ff-white0.5"
