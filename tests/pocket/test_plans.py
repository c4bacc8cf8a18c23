"""The digests in ``plans.json`` are those of the embedded scenes.

After a change of what is drawn, or of a file that draws, ``python -m tests.pocket.test_plans`` writes them
anew.
"""

from __future__ import annotations

import json
from dataclasses import replace

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


if __name__ == "__main__":
    plans.FILE.write_text(json.dumps(known(), indent=0) + "\n")
