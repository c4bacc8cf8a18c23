"""Published numbers: those that follow from other printed numbers, such as averages, are computed again."""

import re
import tomllib
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "results" / "paper"
COLUMNS = ["source", "table", "method", "backbone", "shots", "dataset", "value", "note"]
FILES = sorted(FOLDER.glob("*.csv"))
SHOTS = ["1", "2", "4", "8", "16"]


def read(name: str) -> pd.DataFrame:
    return pd.read_csv(FOLDER / f"{name}.csv", dtype=str, keep_default_na=False)


def values(frame: pd.DataFrame, **where: str) -> pd.Series:
    for column, wanted in where.items():
        frame = frame[frame[column] == wanted]
    return frame.set_index("dataset")["value"].astype(float)


def one(frame: pd.DataFrame, dataset: str, **where: str) -> float:
    found = values(frame, **where)[[dataset]]
    assert len(found) == 1
    return float(found.iloc[0])


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_form(file: Path) -> None:
    frame = read(file.stem)
    assert list(frame.columns) == COLUMNS
    key = ["source", "table", "method", "backbone", "shots", "dataset"]
    assert not frame.duplicated([*key, "note"] if file.stem == "figures" else key).any()
    known = {f.stem for f in (ROOT / "datasets").glob("*.toml")} | {"average"}
    assert set(frame["dataset"]) <= known
    assert set(frame["backbone"]) <= {"RN50", "ViT-B-16", ""}
    assert set(frame["shots"]) <= {"0", *SHOTS, ""}
    empty = frame[frame["value"] == ""]
    assert empty["note"].str.contains("N/A").all()
    pd.to_numeric(frame.loc[frame["value"] != "", "value"])


def test_every_file_is_described() -> None:
    text = (FOLDER / "README.md").read_text()
    assert len(FILES) == 6
    assert [f.name for f in FILES if f"`{f.name}`" not in text] == []


def test_zero_shot_average_of_table_1() -> None:
    row = values(read("table_1"), method="zero-shot", shots="0")
    assert len(row) == 12
    assert row.drop("average").mean() == pytest.approx(row["average"], abs=0.0051)


LOG = [("1", 64.60, 1.34), ("2", 66.65, 0.72), ("4", 69.67, 0.69), ("8", 72.45, 0.30), ("16", 75.83, 0.73)]


@pytest.mark.parametrize(("shots", "printed", "below_log"), LOG)
def test_tip_adapter_f_averages(shots: str, printed: float, below_log: float) -> None:
    row = values(read("tip_adapter_log"), method="tip-adapter-f", shots=shots)
    assert len(row) == 12
    assert row["average"] == printed
    assert row.drop("average").mean() == pytest.approx(printed, abs=0.0051)
    quoted = one(read("table_1"), "average", method="tip-adapter-f", shots=shots)
    assert printed - quoted == pytest.approx(below_log, abs=0.0051)


def test_table_2_totals() -> None:
    frame = read("table_2")
    assert values(frame, method="test").sum() == 133_696
    for method in ("classes", "train", "test"):
        assert len(values(frame, method=method)) == 11
    assert frame[(frame["method"] == "val") & (frame["value"] == "")]["dataset"].tolist() == ["imagenet"]


def test_table_2_agrees_with_the_dataset_descriptions() -> None:
    compared = 0
    for dataset, rows in read("table_2").groupby("dataset"):
        counts = tomllib.loads((ROOT / "datasets" / f"{dataset}.toml").read_text()).get("counts", {})
        for row in rows.itertuples():
            if row.value and row.method in counts:
                assert counts[row.method] == int(row.value), (dataset, row.method)
                compared += 1
    assert compared > 30


def test_table_3_rounds_table_1() -> None:
    first, third = read("table_1"), read("table_3")
    for method, shots in (("zero-shot", "0"), ("safe", "16"), ("safe-a", "16")):
        exact = one(first, "imagenet", method=method, shots=shots)
        assert one(third, "imagenet", method=method, backbone="RN50") == pytest.approx(exact, abs=0.051)
    assert (third.groupby(["method", "backbone"])["dataset"].nunique() == 5).all()


def test_contradictions_are_noted() -> None:
    first, third = read("table_1"), read("table_3")
    rivals = [("oxford_pets", "1", "prograd"), ("food101", "2", "cross-modal")]
    for dataset, shots, rival in rivals:
        best, ours = (one(first, dataset, method=m, shots=shots) for m in (rival, "safe-a"))
        assert best > ours
        note = first[(first["dataset"] == dataset) & (first["method"] == "safe-a")]["note"].item()
        assert "not the best" in note
    assert one(first, "imagenet", method="cross-modal", shots="16") == 65.95
    assert one(third, "imagenet", method="cross-modal", backbone="RN50") == 64.5
    assert third[third["method"] == "cross-modal"]["note"].str.contains("linear").all()
    assert (
        "60.32" in first[(first["dataset"] == "imagenet") & (first["method"] == "zero-shot")]["note"].item()
    )
    for backbone in ("RN50", "ViT-B-16"):
        cached, plain = (values(third, method=m, backbone=backbone) for m in ("safe-a", "safe"))
        assert (cached < plain).sum() == 3


def test_figure_anchors_fit_together() -> None:
    figures = read("figures")
    assert values(figures, table="fig5").to_dict() == {"imagenet_r": 2.27, "imagenet_sketch": 1.27}
    hand = figures[(figures["table"] == "fig8") & figures["note"].str.startswith("prompts=hand")]
    change = figures[figures["table"] == "fig8-change"]
    assert list(hand["shots"]) == list(change["shots"]) == ["1", "4"]
    linear = figures[figures["note"] == "prompts=linear"]["value"].astype(float).item()
    cupl = hand["value"].astype(float).iloc[0] + change["value"].astype(float).iloc[0]
    assert hand["value"].astype(float).iloc[0] < cupl < linear


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_no_number_without_a_source(file: Path) -> None:
    """docs/ has every number; pages of methods that the tables do not have are left out, and so are links."""
    others = {"towers.md", "base-to-new.md", "more-methods.md"}
    pages = [p for p in (ROOT / "docs" / "protocol").glob("*.md") if p.name not in others]
    text = "".join(p.read_text(encoding="utf-8") for p in (*pages, ROOT / "docs" / "datasets.md"))
    text = re.sub(r"\]\([^)]*\)", "]", text).replace(",", "").replace("\N{MINUS SIGN}", "-")
    missing = [v for v in read(file.stem)["value"] if v and v not in text]
    assert missing == []
