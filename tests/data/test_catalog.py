"""Descriptions are complete for the paper's datasets, strict about their keys, and found by name or path."""

from __future__ import annotations

import json
import pickle
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from bench import paths, prompts
from bench.data import catalog, cupl
from bench.data.dataset import path_digest
from bench.data.imagenet import class_list
from bench.data.spec import DatasetSpec, parse
from bench.errors import BenchError, MissingData
from tests.fixtures import disk

PUBLISHED = json.loads((Path(__file__).parent / "published_lists.json").read_text())  # SHA-256 of lists
# Classes, train, val and test of Table II; a dash is None.
TABLE_II = {
    "imagenet": (1000, 1281167, None, 50000),
    "caltech101": (100, 4128, 1649, 2465),
    "oxford_pets": (37, 2944, 736, 3669),
    "stanford_cars": (196, 6509, 1635, 8041),
    "oxford_flowers": (102, 4093, 1633, 2463),
    "food101": (101, 50500, 20200, 30300),
    "fgvc_aircraft": (100, 3334, 3333, 3333),
    "sun397": (397, 15880, 3970, 19850),
    "dtd": (47, 2820, 1128, 1692),
    "eurosat": (10, 13500, 5400, 8100),
    "ucf101": (101, 7639, 1898, 3783),
}
SHIFTS = {
    "imagenetv2": (1000, 10000),
    "imagenet_sketch": (1000, 50889),
    "imagenet_a": (200, 7500),
    "imagenet_r": (200, 30000),
}


def test_the_papers_datasets_are_complete() -> None:
    for name, (classes, train, val, test) in TABLE_II.items():
        spec = catalog.spec(name)
        expected = {"classes": classes, "train": train, "val": val, "test": test}
        assert spec.counts == {key: value for key, value in expected.items() if value is not None}
        assert (spec.name, spec.recipe_as, spec.source) == (name, name, "")
        assert spec.licence and spec.get and spec.classnames.rule and spec.cupl and spec.cupl.files
        assert len(spec.classnames.sha256) == 64
    for name, (classes, test) in SHIFTS.items():
        spec = catalog.spec(name)
        assert (spec.counts["classes"], spec.counts["test"]) == (classes, test)
        assert (spec.source, spec.recipe_as) == ("imagenet", "imagenet")
        assert spec.templates == catalog.spec("imagenet").templates
    assert set(catalog.spec("imagenet").targets) == set(SHIFTS)


@pytest.mark.parametrize("name", catalog.names())
def test_every_description_is_sound(name: str) -> None:
    spec = catalog.spec(name)
    table = tomllib.loads((paths.datasets_dir() / f"{name}.toml").read_text(encoding="utf-8"))
    assert {"name", "title", "kind", "reader", "licence", "get", "prompts", "counts"} <= table.keys()
    assert catalog.reader(spec.reader)
    assert all(t.count("{}") == 1 for templates in spec.templates.values() for t in templates)
    for target in spec.targets:
        assert catalog.spec(target).source == spec.name
    assert not spec.source or spec.name in catalog.spec(spec.source).targets
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_names_fold_hyphen_underscore_and_case() -> None:
    assert catalog.spec("Oxford-Pets").name == "oxford_pets"
    with pytest.raises(BenchError, match="did you mean 'oxford_pets'"):
        catalog.spec("oxford_pet")
    with pytest.raises(BenchError, match="no such folder"):
        catalog.find("./nowhere/at/all", None)


def test_a_misspelt_path_gets_the_nearest_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pets").mkdir()
    monkeypatch.chdir(tmp_path)
    for written, meant in (("./petz", "./pets"), (tmp_path / "petz", tmp_path / "pets")):
        with pytest.raises(BenchError, match=re.escape(f"(did you mean '{meant}'?)")):
            catalog.describe(str(written))
    with pytest.raises(BenchError, match=r"no such folder or TOML file$"):
        catalog.describe("./quite-another")


def test_templates_are_the_published_ones() -> None:
    for name in (*TABLE_II, *SHIFTS):
        templates = catalog.spec(name).templates
        digests = {kind: path_digest(templates[kind]) for kind in ("coop", "hand", "mined")}
        assert digests == PUBLISHED["templates"][name], name
        assert len(templates["mined"]) == 21


def test_the_pool_is_the_published_one_and_the_datasets_own_come_first() -> None:
    assert len(prompts.pool()) == len(set(prompts.pool())) == 180
    # the published list has no order
    assert path_digest(sorted(prompts.pool())) == PUBLISHED["pool"]
    flags = catalog.spec("flags")
    mined = prompts.build("mined-val", flags, ("France",))
    own = tuple(dict.fromkeys(flags.templates["hand"] + flags.templates["coop"]))
    assert mined.templates[: len(own)] == own
    assert set(mined.templates) == {*own, *prompts.pool()}


def test_committed_digests_are_those_of_the_published_templates(published_files: Path) -> None:
    def read(file: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((published_files / "templates" / file).read_text())
        return dict(content["templates"])

    coop, hand = read("coop_custom_single.json"), read("hand_crafted_tip_adapter.json")
    mined = read("xmodal_mined_21.json")
    pool = json.loads((published_files / "templates" / "xmodal_pool_180.json").read_text())["templates"]
    assert path_digest(sorted(pool)) == PUBLISHED["pool"]
    for name, digests in PUBLISHED["templates"].items():
        lists = {"coop": [coop[name]], "hand": hand[name], "mined": mined[name]}
        assert digests == {kind: path_digest(templates) for kind, templates in lists.items()}, name


def test_cupl_keys_are_the_published_ones(published_files: Path) -> None:
    data = published_files
    names = json.loads((data / "classnames" / "classnames_by_label.json").read_text())
    keys = json.loads((data / "cupl" / "key_by_label.json").read_text())
    assert path_digest(keys["imagenet"]) == PUBLISHED["cupl_keys"]["imagenet"]
    for name, expected in keys.items():
        rule = catalog.spec(name).cupl
        assert rule is not None
        files = [data / "cupl" / file for file in rule.files]
        assert name == "imagenet" or all(file.is_file() for file in files)
        for file in files:
            if file.is_file():
                available = json.loads(file.read_text(encoding="utf-8")).keys()
                assert [cupl.find_key(rule, classname, available) for classname in names[name]] == expected


def test_cupl_rules() -> None:
    def key(dataset: str, classname: str) -> str:
        rule = catalog.spec(dataset).cupl
        assert rule is not None
        return cupl.cupl_key(rule, classname)

    assert key("stanford_cars", "2012 Audi TTS Coupe") == "Audi TTS Coupe 2012"
    assert key("stanford_cars", "2012 Ram C/V Cargo Van Minivan") == "Ram CV Cargo Van Minivan 2012"
    assert key("sun397", "outdoor apartment_building") == "apartment building (outdoor)"
    assert key("sun397", "abbey") == "abbey"
    assert key("caltech101", "face") == "off-center face"
    rule = catalog.spec("oxford_pets").cupl
    assert rule is not None
    assert cupl.find_key(rule, "russian_blue", ["Russian Blue"]) == "Russian Blue"
    assert cupl.find_key(rule, "russian_blu", ["Russian Blue"]) is None


def test_all_classes_without_sentences_are_named_with_the_file(tmp_path: Path) -> None:
    spec = catalog.spec("digits")
    file = tmp_path / "digits.json"
    file.write_text('{"cat": ["A cat."], "goldfish": ["A fish."]}', encoding="utf-8")
    with pytest.raises(BenchError) as error:
        cupl.sentences(spec, ("cat", "gold_fish", "hamster"), tmp_path)
    assert str(error.value) == (
        f"{file}: no sentences for 2 of 3 classes; add each as a key with a list of sentences: "
        "'gold fish' (did you mean 'goldfish'?), 'hamster'"
    )
    file.write_text('{"Cat": ["A cat."], "gold fish": ["A fish."]}', encoding="utf-8")
    assert cupl.sentences(spec, ("cat", "gold_fish"), tmp_path) == (("A cat.",), ("A fish.",))


def test_published_cupl_sentences(published_files: Path) -> None:
    folder = published_files / "cupl"
    names = json.loads((folder.parent / "classnames" / "classnames_by_label.json").read_text())
    pets = cupl.sentences(catalog.spec("oxford_pets"), tuple(names["oxford_pets"]), folder)
    assert len(pets) == 37 and {len(lines) for lines in pets} == {20}
    content = json.loads((folder / "pets_prompts_full.json").read_text())
    assert pets[names["oxford_pets"].index("russian_blue")] == tuple(content["Russian Blue"])
    assert len(cupl.sentences(catalog.spec("imagenet"), tuple(names["imagenet"]), folder)) == 1000


def test_cupl_sentences_by_class(tmp_path: Path) -> None:
    """Files with CuPL's names and keys; classes of one name share an entry, and no file is not templates."""
    names = tuple(class_list("imagenet-classnames.txt").values())
    rule = catalog.spec("imagenet").cupl
    assert rule is not None
    assert path_digest(cupl.cupl_key(rule, n) for n in names) == PUBLISHED["cupl_keys"]["imagenet"]
    own = {name: [f"Here is {name}.", "."] for name in names}
    assert len(own) == 998
    (tmp_path / rule.files[-1]).write_text(json.dumps(own), encoding="utf-8")
    read = cupl.sentences(catalog.spec("imagenet"), names, tmp_path)
    assert read == tuple((f"Here is {name}.", ".") for name in names)
    assert read[657] == read[744] and read[836] == read[837]

    cats = {"Russian Blue": ["A blue cat."], "beagle": ["A dog."]}
    (tmp_path / "pets_prompts_full.json").write_text(json.dumps(cats), encoding="utf-8")
    pets = cupl.sentences(catalog.spec("oxford_pets"), ("beagle", "russian_blue"), tmp_path)
    assert pets == (("A dog.",), ("A blue cat.",))
    with pytest.raises(MissingData, match="CaFo"):
        cupl.sentences(catalog.spec("eurosat"), ("Forest",), tmp_path)


def test_own_sentences(tmp_path: Path) -> None:
    spec = parse({"name": "birds"}, "x")
    (tmp_path / "birds.json").write_text('{"snowy owl": ["A white owl."], "auk": ["A {} bird.", "."]}')
    assert cupl.sentences(spec, ("auk", "snowy_owl"), tmp_path) == (("A {} bird.", "."), ("A white owl.",))
    with pytest.raises(MissingData, match="--prompt-dir"):
        cupl.sentences(spec, ("auk",), None)
    (tmp_path / "birds.json").write_text('{"auk": []}')
    with pytest.raises(BenchError, match="list of sentences"):
        cupl.sentences(spec, ("auk",), tmp_path)


def test_imagenet_class_names() -> None:
    names = class_list("imagenet-classnames.txt")
    assert list(names) == sorted(names) and len(names) == 1000
    by_label = list(names.values())
    assert (by_label[0], by_label[134], by_label[517]) == ("tench", "crane bird", "construction crane")
    assert [i for i, n in enumerate(by_label) if n in ("missile", "sunglasses")] == [657, 744, 836, 837]
    assert len(set(by_label)) == 998


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "x", "readers": "folder"}, r"unknown key 'readers' \(did you mean 'reader'\?\)"),
        ({"name": "x", "prompts": {"hands": []}}, "did you mean 'hand'"),
        ({"name": "x", "layout": {"folder": ["a"]}}, "did you mean 'folders'"),
        ({"name": "x", "counts": {"train": "many"}}, r"counts\.train: Expected `int`"),
        ({"name": "x", "prompts": {"hand": "a {}."}}, r"prompts\.hand: Expected `array`"),
        ({"name": "x", "prompts": {"hand": ["a photo"]}}, "exactly once"),
        ({"name": "x", "prompts": ["a {}"]}, "prompts: Expected `object`"),
        ({"name": 3}, "name: Expected `str`"),
        ({"title": "x"}, "needs a line"),
    ],
)
def test_mistakes_in_a_description(table: dict, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        parse(table, "x.toml")


def test_unknown_options_and_readers(tmp_path: Path) -> None:
    disk.class_folder(tmp_path / "birds" / "owl", 3)
    toml = tmp_path / "mine.toml"
    toml.write_text('name = "mine"\nfolder = "birds"\n[options]\nfiles = "x"\n')
    with pytest.raises(BenchError, match="unknown key 'files'"):
        catalog.find(str(toml), None)
    toml.write_text('name = "mine"\nreader = "coop_splits"\n')
    with pytest.raises(BenchError, match="did you mean 'coop-split'"):
        catalog.find(str(toml), None)
    toml.write_text("name = mine")
    with pytest.raises(BenchError, match=r"mine\.toml"):
        catalog.find(str(toml), None)


def test_prompts_default_to_the_generic_template() -> None:
    assert parse({"name": "x"}, "x").templates == {
        "coop": ("a photo of a {}.",),
        "hand": ("a photo of a {}.",),
    }
    hand = parse({"name": "x", "prompts": {"hand": ["a {} bird.", "{}"]}}, "x").templates
    assert hand == {"coop": ("a {} bird.", "{}"), "hand": ("a {} bird.", "{}")}


def test_folders_beside_or_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bench").mkdir()
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "bench")
    assert paths.datasets_dir() == tmp_path / "datasets"
    for name in ("datasets", "methods", "results"):
        (tmp_path / "bench" / name).mkdir()
    assert (paths.datasets_dir(), paths.methods_dir(), paths.results_dir()) == tuple(
        tmp_path / "bench" / name for name in ("datasets", "methods", "results")
    )


def test_option_values_keep_defaults() -> None:
    spec = DatasetSpec("x", "x", "k", "r", {}, extra={"a": 1})
    assert spec.option_values(a=0, b=2) == {"a": 1, "b": 2}
