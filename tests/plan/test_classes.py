"""Classes that no text can tell apart, and draws that lack one, are known before an image is opened."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.data import catalog
from bench.data.dataset import Dataset, Draw, Items
from bench.plan import classes, planner
from bench.plan.cells import Plan
from bench.plan.request import Request
from bench.prompts import PromptSet, build
from bench.registry import builtin


def folder(root: Path, *names: str, parts: tuple[str, ...] = ("train", "val", "test")) -> Path:
    """A dataset whose images nobody could open: plans do not look at them."""
    for part in parts:
        for k, name in enumerate(names):
            place = root / part / name
            place.mkdir(parents=True)
            for i in range(2):
                (place / f"{i}.png").write_bytes(f"{part} {k} {i}".encode())
    return root


def plan(data: Path, *methods: str, **changes: object) -> Plan:
    request = Request(methods or ("zero-shot", "safe", "safe-a"), (str(data),), (1,), (1,), ("pocket-rn",))
    return planner.make(replace(request, results=data.parent / "results", **changes), builtin())  # type: ignore[arg-type]


def reasons(made: Plan) -> dict[str, str]:
    assert len({b.method for b in made.blocked}) == len(made.blocked)
    return {b.method: b.reason for b in made.blocked}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("Sea lion", "fox", "sea  lion"), "'Sea lion' and 'sea  lion'"),
        (("sea_lion", "sea lion", "fox"), "'sea lion' and 'sea_lion'"),
        (("salt &amp; pepper", "salt & pepper"), "'salt & pepper' and 'salt &amp; pepper'"),
        (("cafe\u0301", "caf\u00e9", "tea"), "'cafe\u0301' and 'caf\u00e9'"),
        (("route 66", "route 6 6"), "'route 6 6' and 'route 66'"),
        (("a b", "A B", "a_b", "A_B", "c"), "'A B', 'A_B', 'a b' and 1 more"),
    ],
)
def test_names_of_one_text_are_blocked(names: tuple[str, ...], said: str, tmp_path: Path) -> None:
    made = plan(folder(tmp_path / "data", *names))
    assert not made.fits and set(reasons(made)) == {"zero-shot", "safe", "safe-a"}
    for reason in reasons(made).values():
        assert f"classes {said} have the same text for pocket-rn" in reason
        assert "[classnames] rename" in reason and "\n" not in reason


def test_names_are_shown_without_their_control_characters(tmp_path: Path) -> None:
    """A folder's name may hold escape codes, which a terminal would obey."""
    data = dataset(tmp_path, "\x1b[2Jfox\n", "\x1b[2JFOX")
    spec = plan(tmp_path / "data").fits[0].backbone
    lines = [
        classes.alike(build("hand", data.spec, data.classnames), data, spec),
        classes.note(build("hand", data.spec, ("\x1b", "fox")), replace(data, classnames=("\x1b", "fox"))),
        classes.unseen(data, Draw(Items(("0",), (1,)), Items(), (), (), "")),
    ]
    for line in lines:
        assert r"\x1b" in line and line.isprintable()
    assert "have the same text" in lines[0]


def test_names_that_differ_are_not_blocked(tmp_path: Path) -> None:
    names = ("sea lion", "sealion", "sea-lion", "sea lions", "c++", "c")
    made = plan(folder(tmp_path / "data", *names))
    assert not made.blocked and len([f for f in made.fits if f.asked]) == 3


def dataset(tmp_path: Path, *names: str) -> Dataset:
    return replace(catalog.find(str(folder(tmp_path / "data", "a", "b")), None), classnames=names)


def test_what_counts_are_the_strings_that_are_read(tmp_path: Path) -> None:
    data, spec = dataset(tmp_path, "Sea lion", "sea lion"), plan(tmp_path / "data").fits[0].backbone
    told = PromptSet("cupl", (("It barks.", "It swims."), ("It barks.", "It roars.")))
    alike = PromptSet("cupl", (("It barks.", "It swims."), ("it  barks.", "It SWIMS.")))
    assert classes.alike(told, data, spec) == ""
    assert "'Sea lion' and 'sea lion'" in classes.alike(alike, data, spec)
    other = replace(spec, config={**spec.config, "text_cfg": {"hf_tokenizer_name": "its own"}})
    assert classes.alike(alike, data, other) == "", "only the tower can tell"
    assert classes.alike(build("hand", data.spec, ("sea_lion", "sea lion")), data, other), "the same strings"
    twice = replace(data, classnames=("crane", "crane"))
    assert classes.alike(build("hand", data.spec, twice.classnames), twice, spec) == ""


@pytest.mark.parametrize("name", ["_", "&nbsp;"])
def test_a_name_without_text_is_blocked(name: str, tmp_path: Path) -> None:
    made = plan(folder(tmp_path / "data", name, "fox"))
    assert not made.fits and f"class '{name}' has no text in its name" in reasons(made)["safe"]


def test_names_without_letters_run_and_are_noted(tmp_path: Path) -> None:
    made = plan(folder(tmp_path / "data", "0", "1", "--", "7", "fox", "日本"), "zero-shot")
    (fit,) = made.fits
    assert [n for n in fit.notes if n.startswith("4 of 6 class names have no letter ('--', '0', '1' and 1")]
    assert not made.blocked


def test_one_class_is_nothing_to_tell_apart(tmp_path: Path) -> None:
    """A list may hold one class; a folder with one is refused when it is read."""
    rows = {part: [[f"{part}.png", 0, "fox"]] for part in ("train", "val", "test")}
    (tmp_path / "split.json").write_text(json.dumps(rows))
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\nreader = "coop-split"\nfolder = "."\n[options]\nfile = "split.json"\n'
    )
    made = plan(tmp_path / "mine.toml")
    assert not made.fits and "there is one class, so there is nothing to tell apart" in reasons(made)["safe"]


def test_every_class_needs_a_training_image(tmp_path: Path) -> None:
    data = dataset(tmp_path, "cat", "dog", "fox")

    def drawn(*labels: int) -> Draw:
        return Draw(Items(tuple(map(str, labels)), labels), Items(), (), (), "")

    assert classes.unseen(data, drawn(0, 1, 2)) == classes.unseen(data, drawn()) == ""
    assert "no training image of class 'dog' and 'fox'" in classes.unseen(data, drawn(0, 0))


def test_what_is_chosen_needs_validation_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = catalog.find(str(folder(tmp_path / "data", "cat", "dog")), None)
    monkeypatch.setattr(catalog, "find", lambda *_, **__: replace(data, val=Items()))
    made = plan(tmp_path / "data", "zero-shot", "safe", "clap", preset="paper")  # CLAP chooses nothing
    assert set(reasons(made)) == {"safe"} and "--protocol no-val" in reasons(made)["safe"]
    assert {f.method.name for f in made.fits} == {"zero-shot", "clap"}
    assert not plan(tmp_path / "data", "safe", protocol="no-val").blocked
    assert not plan(tmp_path / "data", "safe", protocol="test-oracle").blocked
    mined = plan(tmp_path / "data", "safe", prompts=("mined-val",))
    assert "leave it out" in reasons(mined)["safe"]


def test_what_reads_a_blocked_fit_is_blocked_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    safe = builtin().get("safe")
    monkeypatch.setattr(type(safe), "towers", ("vit",))
    made = plan(folder(tmp_path / "data", "cat", "dog"), "safe-a")
    assert reasons(made)["safe-a"] == "it reads a fit of safe, which cannot run here"


def test_the_plan_shortens_batches_and_the_key_says_so(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", "cat", "dog")

    def safe(**changes: object) -> planner.Planned:
        (fit,) = plan(data, "safe", overrides={"safe": changes} if changes else {}).fits
        return fit

    short = safe()
    assert short.recipe.streams["image"].batch == short.parts.recipe["streams"]["image"]["batch"] == 3
    assert short.notes == ("safe, 1 shot: batch 8 -> 3 (2 support images x 2 views = 4 rows)",)
    assert not short.changed
    given = safe(batch=6)
    assert given.recipe == short.recipe and "batch 6 -> 3" in given.notes[0] and given.changed == {"batch": 6}
    assert safe(batch=2).notes == () and safe(batch=2).recipe.streams["image"].batch == 2
