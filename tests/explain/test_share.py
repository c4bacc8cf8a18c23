"""Parts, shares and the verdict; the verbs end to end on the embedded model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from bench.cli.app import app
from bench.cli.explain_shared import _found
from bench.clip.backbone import resolve
from bench.errors import BenchError
from bench.explain import parts, picture, share


def test_map_shares_know_where_the_map_lies() -> None:
    left = np.zeros((6, 6), bool)
    left[:, :3] = True
    masks = {"left": left, "right": ~left}
    np.testing.assert_allclose(parts.map_shares(np.array([[1.0, 0.0], [1.0, 0.0]]), masks), [1.0, 0.0])
    np.testing.assert_allclose(parts.map_shares(np.ones((3, 3)), masks), [0.5, 0.5])
    # On 5 px two grid columns cover 3 and 2 px: the mass of a position stays one, whatever it covers.
    assert parts.enlarge(np.array([[1.0, 2.0], [3.0, 4.0]]), 5).sum() == pytest.approx(10.0)


def test_scene_masks_follow_the_view_and_part_the_image() -> None:
    spec = resolve("pocket-rn")
    scene, dataset = picture.find("mammals:3", spec)
    assert dataset is not None and scene.label == dataset.test.labels[3]
    assert scene.pixels.shape == (128, 128, 3)
    np.testing.assert_array_equal(sum(m.astype(int) for m in scene.masks.values()), 1)
    assert 0.05 < scene.masks["main"].mean() < 0.9
    masks = {"a": np.eye(50, 100, dtype=bool), "b": ~np.eye(50, 100, dtype=bool)}
    fitted = picture.fit_masks(masks, spec)
    assert fitted["a"].shape == (128, 128) and (fitted["a"] ^ fitted["b"]).all()


def test_a_point_is_mapped_through_the_crop() -> None:
    image = picture.of_image(Image.new("RGB", (256, 128)), "wide.png", resolve("pocket-rn"))
    assert image.seen_at(128, 64) == (64, 64)
    with pytest.raises(BenchError, match="its centre"):
        image.seen_at(10, 64)
    with pytest.raises(BenchError, match="256 x 128"):
        image.seen_at(10, 128)


def test_masks_from_a_painted_file(tmp_path: Path) -> None:
    spec = resolve("pocket-rn")
    image = picture.of_image(Image.new("RGB", (128, 128)), "i", spec)
    painted = Image.new("RGB", (128, 128))
    painted.paste((255, 0, 0), (10, 10, 40, 40))
    painted.save(tmp_path / "m.png")
    masks = picture.file_masks(tmp_path / "m.png", image, spec)
    assert list(masks) == ["background", "#ff0000"] and masks["#ff0000"].sum() == 900
    Image.new("RGB", (64, 64)).save(tmp_path / "small.png")
    with pytest.raises(BenchError, match="as large as"):
        picture.file_masks(tmp_path / "small.png", image, spec)
    assert len(picture.grid_masks(128, 3)) == 9
    assert sum(m.astype(int) for m in picture.grid_masks(10, 3).values()).min() == 1  # type: ignore[union-attr]


def test_a_file_is_opened_as_the_named_dataset_opens_its_images(tmp_path: Path) -> None:
    """Through transparent pixels shows what its description says; a published dataset drops the alpha."""
    spec, file = resolve("pocket-rn"), tmp_path / "i.png"
    Image.new("RGBA", (128, 128), (200, 0, 0, 0)).save(file)
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets.toml").write_text('name = "pets"\nfolder = "pets"\n[images]\nbackground = "#102030"\n')
    for dataset, colour in (
        (str(tmp_path / "pets.toml"), (0x10, 0x20, 0x30)),
        (str(tmp_path / "pets"), (255, 255, 255)),
        ("mammals", (200, 0, 0)),
    ):
        seen, home = _found(str(file), spec, dataset, None)
        assert home is None and tuple(seen.pixels[64, 64]) == colour
    assert tuple(picture.find(str(file), spec)[0].pixels[0, 0]) == (255, 255, 255)


def test_values_of_a_class() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 0.0]])
    np.testing.assert_allclose(parts.class_value(logits, 0, "margin"), [-2.0, 5.0])
    np.testing.assert_allclose(
        parts.class_value(logits, 1, "probability"), logits.softmax(-1)[:, 1], rtol=1e-6
    )
    with pytest.raises(BenchError, match="margin or probability"):
        parts.class_value(logits, 0, "logit")


def rows(gain: float, count: int = 40, seeds: int = 3) -> list[dict[str, object]]:
    """Scenes whose main glyph takes ``gain`` of share, with noise, from the background.

    Every other one has distractors.
    """
    generator, rows = np.random.default_rng(0), []
    for i in range(count):
        main = 0.4 + 0.05 * generator.normal()
        after = main + gain + 0.02 * generator.normal(size=seeds)
        names = ["main", "other0", "other1", "background"] if i % 2 else ["main", "background"]
        table = np.zeros((len(names), 1 + seeds))
        table[0] = [main, *after]
        table[1:-1] = 0.1
        table[-1] = 1 - table[:-1].sum(0)
        groups = share.grouped(names, table)
        area = {g: 0.25 for g in share.GROUPS}
        rows.append({"scene": str(i), "area": area, "attention": groups, "shapley": groups})
    return rows


def test_shares_by_group_and_their_paired_interval() -> None:
    made = rows(0.05)
    shares = share.summary(made)
    main = shares["attention"]["main"]
    assert main["change"]["low"] < 0.05 < main["change"]["high"] and main["change"]["varies"] == (
        "seeds",
        "images",
    )
    assert main["after"] - main["before"] == pytest.approx(main["change"]["estimate"])
    # Paired: far narrower than the spread of the scenes alone allows for.
    assert main["change"]["se"] < 0.05 / np.sqrt(40)
    assert shares["attention"]["distractors"]["scenes"] == 20
    assert shares["attention"]["distractors"]["before"] == pytest.approx(0.2)
    assert shares["attention"]["each distractor"]["before"] == pytest.approx(0.1)
    total = sum(
        np.array([np.nan_to_num(row["attention"][g]) for row in made])  # type: ignore[index]
        for g in ("main", "distractors", "background")
    )
    np.testing.assert_allclose(total, 1.0)
    json.dumps(share.plain(made), allow_nan=False)


@pytest.mark.parametrize(
    ("gains", "words"),
    [
        ((0.05, 0.05), "SAFE moves importance to the object:"),
        ((-0.05, -0.05), "away from the object:"),
        ((0.0, 0.0), "cannot be told"),
        ((0.05, 0.0), "to the object by one measure"),
        ((0.05, -0.05), "disagree"),
    ],
)
def test_the_verdict_follows_the_intervals(gains: tuple[float, float], words: str) -> None:
    first, second = (rows(gain) for gain in gains)
    made = [{**a, "shapley": b["shapley"]} for a, b in zip(first, second, strict=True)]
    said = share.verdict("SAFE", share.summary(made))
    assert words in said and "\n" not in said


def test_one_seed_has_no_p_and_says_so() -> None:
    several, one = share.summary(rows(0.05)), share.summary(rows(0.05, seeds=1))
    assert several["attention"]["main"]["change"]["p"] < 0.05
    assert one["attention"]["main"]["change"]["p"] is None
    assert one["attention"]["main"]["change"]["varies"] == ("images",)
    says = "; one seed says nothing about other draws of the support images"
    assert share.verdict("SAFE", one).endswith(says) and says not in share.verdict("SAFE", several)
    json.dumps(one, allow_nan=False)


@pytest.fixture
def explain(results: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """``bench explain VERB ...`` in this process, with one shared short fit."""
    monkeypatch.setenv("BENCH_CACHE", str(results / "cache"))
    quick = (
        "--shots",
        "1",
        "--set",
        "safe.steps=8",
        "--set",
        "safe.check_every=4",
        "--results",
        str(results),
        "--device",
        "cpu",
    )

    def call(*arguments: object) -> Result:
        extra = () if arguments[0] == "correspond" else quick
        return CliRunner().invoke(app, ["explain", *map(str, arguments), *extra])

    return call


@pytest.mark.slow
def test_verbs_write_their_figures_and_fit_once(explain, results: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    def png(name: str) -> tuple[int, int]:
        return Image.open(tmp_path / name).size

    done = explain("share", "--dataset", "mammals", "--scenes", 4, "--seeds", "1", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    stem = "share-mammals-pocket-rn-safe"
    written = json.loads((tmp_path / f"{stem}.json").read_text())
    assert written["verdict"] in done.output and len(written["scenes"]) == 4 and written["seeds"] == [1]
    for measure in ("attention", "shapley"):
        for scene in written["scenes"]:
            parts = [scene[measure][g] for g in ("main", "distractors", "background")]
            np.testing.assert_allclose(np.sum([g for g in parts if g[0] is not None], axis=0), 1.0, atol=1e-5)
    states = {f: f.stat().st_mtime_ns for f in (results / "states").iterdir()}
    assert len(states) == 1 and png(f"{stem}.png")[0] > 500

    done = explain("maps", "mammals", "--images", 2, "--copies", 2, "--out", tmp_path / "maps.png")
    assert done.exit_code == 0 and "fitted" not in done.output, done.output
    done = explain("shapley", "mammals:5", "--out", tmp_path / "shapley.png")
    assert done.exit_code == 0 and "main: before" in done.output and "exact" in done.output, done.output
    assert {f: f.stat().st_mtime_ns for f in (results / "states").iterdir()} == states

    done = explain("correspond", "mammals:0", "mammals:0", "--at", "64,64", "--out", tmp_path / "c.png")
    assert done.exit_code == 0 and "layer4: peak 1.000 at row 3, column 3 of 4 x 4" in done.output, (
        done.output
    )
    assert min(png(name)[0] for name in ("maps.png", "shapley.png", "c.png")) > 300


def test_users_are_told_what_to_mend(explain, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    Image.new("RGB", (20, 20)).save(tmp_path / "i.png")
    for arguments, words in (
        (("correspond", "mammals:0", "mammals:1", "--at", "3"), "write x,y"),
        (("correspond", "mammals:0", "mammals:9999", "--at", "3,3"), "counted from 0"),
        (("maps", tmp_path / "i.png", "--backbone", "pocket-rn"), "--dataset"),
        (("maps", tmp_path / "i.png", "--dataset", "nowhere"), "unknown dataset 'nowhere'"),
        (("share", "--dataset", "digits", "--scenes", 2, "--seeds", "1"), "composed scenes"),
    ):
        done = explain(*arguments)
        assert isinstance(done.exception, BenchError) and words in str(done.exception), done.output
