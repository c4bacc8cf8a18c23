"""The digests in ``plans.json`` are those of the embedded scenes.

After a change of what is drawn, or of the code that draws, ``python -m tests.pocket.test_plans`` writes them
anew.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bench.data import catalog
from bench.pocket import plans
from bench.pocket.scenes import SceneSource


def embedded() -> dict[str, tuple[SceneSource, dict[str, int]]]:
    """Every dataset of scenes: its source, and how many scenes a class has in each split."""
    found = {}
    for name in catalog.names():
        if catalog.spec(name).reader == "scenes":
            made = catalog.find(name, None)
            assert isinstance(made.source, SceneSource)
            parts = {"train": made.train, "val": made.val, "test": made.test}
            each = {split: len(items.paths) // len(made.classnames) for split, items in parts.items()}
            found[name] = made.source, {split: count for split, count in each.items() if count}
    return found


def known() -> dict[str, str]:
    """What the file should hold: every scene is drawn."""
    return {plans.origin(*asked): plans.drawn(*asked) for asked in embedded().values()}


def test_the_file_holds_what_is_drawn() -> None:
    held = json.loads(plans.FILE.read_text())
    assert held == known(), "what scenes show has changed: python -m tests.pocket.test_plans"


def test_another_dataset_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = embedded()["flags"]
    few = {"test": 1}
    assert plans.digest(replace(source, style="hard"), few) == plans.drawn(replace(source, style="hard"), few)
    asked = plans.origin(source, few)
    for other in (
        plans.origin(source, {"test": 2}),
        plans.origin(replace(source, style="hard"), few),
        plans.origin(replace(source, dataset="banners"), few),
        plans.origin(replace(source, drawings={"test": source.drawings["test"][::-1]}), few),
    ):
        assert other != asked
    monkeypatch.setattr(plans, "_code", lambda: ("another",))
    assert plans.origin(source, few) != asked


def test_a_comment_changes_no_key_and_a_number_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = embedded()["flags"]
    before = plans.origin(*asked)
    monkeypatch.setattr(plans, "_code", plans._code.__wrapped__)  # without its cache
    original = plans.DRAWN_BY
    for place, file in enumerate(original):
        text = file.read_text(encoding="utf-8")
        number = next(found for found in re.finditer(r"^[A-Z_]+ = \(?(\d+)\b", text, re.MULTILINE))
        start, end = number.span(1)
        for edited, changes in (
            (text.replace('"""', '"""Another text. ', 1) + "# a comment\n", False),
            (f"{text[:start]}{int(number[1]) + 1}{text[end:]}", True),
        ):
            copy = tmp_path / file.name
            copy.write_text(edited, encoding="utf-8")
            monkeypatch.setattr(
                plans, "DRAWN_BY", tuple(copy if i == place else f for i, f in enumerate(original))
            )
            assert (plans.origin(*asked) != before) == changes, file.name


if __name__ == "__main__":
    plans.FILE.write_text(json.dumps(known(), indent=0) + "\n")
