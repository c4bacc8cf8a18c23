"""The parts of a method's docstring, and the list of its settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import method_docs
from bench.cli.app import app
from bench.interface import Method
from bench.names import value_text

PLUGIN = '''
from bench.interface import Method


class Base(Method):
    """The base.

    Settings:
        rate: how fast it
            learns: per step
        extra: not a setting of the method
    """


class Toy(Base):
    """Do something.

    It takes ``two``
    lines.

    Source: somebody 2020
        (protocol 12).
    Deviates: nothing known.
    Settings:
        late: a weight, from 0 to 1
    """

    name = "toy"
    title = "Toy"
    settings = {"rate": (1e-3, 1e-4), "late": None, "on": False, "word": ""}
    presets = {"quick": {"rate": (0.1,)}}
    per_dataset = {"dtd": {"late": 2.0}, "imagenet": {"late": 2.0}, "eurosat": {"late": 3.0}}
    inference = ("late",)
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    file = tmp_path / "toy.py"
    file.write_text(PLUGIN, encoding="utf-8")
    return file


def toy(plugin: Path) -> Method:
    from bench.registry import with_plugins

    return with_plugins((plugin,)).get("toy")


def listed(plugin: Path, *arguments: str, width: int = 100) -> str:
    done = CliRunner().invoke(
        app,
        ["list", "settings", "toy", "--plugin", str(plugin), *arguments],
        env={"COLUMNS": str(width), "LINES": "40"},
    )
    assert done.exit_code == 0, done.output
    return done.output


def test_the_parts_of_a_docstring(plugin: Path) -> None:
    said = method_docs.described(type(toy(plugin)))
    assert said.paragraphs == ("Do something.", "It takes `two` lines.")
    assert said.parts == {"Source": "somebody 2020 (protocol 12).", "Deviates": "nothing known."}
    assert said.settings == {"late": "a weight, from 0 to 1"}


def test_a_subclass_inherits_meanings(plugin: Path) -> None:
    assert method_docs.meanings(toy(plugin)) == {
        "rate": "how fast it learns: per step",
        "late": "a weight, from 0 to 1",
        "on": "",
        "word": "",
    }


def test_settings_as_json(plugin: Path) -> None:
    rows = {row["name"]: row for row in json.loads(listed(plugin, "--format", "json"))}
    assert rows["rate"] == {
        "name": "rate",
        "default": [1e-3, 1e-4],
        "presets": {"quick": [0.1]},
        "datasets": {},
        "refits": True,
        "meaning": "how fast it learns: per step",
    }
    assert rows["late"]["datasets"] == {"dtd": 2.0, "imagenet": 2.0, "eurosat": 3.0}
    assert not rows["late"]["refits"]


@pytest.mark.parametrize("width", [80, 100])
def test_settings_as_text(plugin: Path, width: int) -> None:
    lines = listed(plugin, width=width).splitlines()
    assert lines[0] == "toy: Toy"
    assert lines[1].split() == ["setting", "default", "a", "change", "meaning"]
    assert lines[2].startswith("rate     0.001,0.0001  refits")
    words = " ".join(" ".join(lines).split())
    assert "preset quick: 0.1" in words
    assert "datasets dtd, imagenet: 2; eurosat: 3" in words
    assert "late none inference a weight, from 0 to 1" in words
    assert "on false refits" in words
    assert max(map(len, lines[:-1])) <= width


def test_a_long_default_leaves_room_for_the_meaning() -> None:
    done = CliRunner().invoke(app, ["list", "settings", "linear-probe"], env={"COLUMNS": "80"})
    lines = done.output.splitlines()
    assert lines[2].split()[:4] == ["C", "7", "values", "refits"]
    assert any(line.strip().startswith("default: 1e+06,10000,") for line in lines)
    assert max(map(len, lines[:-1])) <= 80


def test_the_items_that_meanings_name_are_explained() -> None:
    assert "(A25) and the like: docs/protocol/" in CliRunner().invoke(
        app, ["list", "settings", "safe"], env={"COLUMNS": "200"}
    ).output.replace("(A2) and", "(A25) and").replace("(A9) and", "(A25) and")
    assert "and the like" not in CliRunner().invoke(app, ["list", "settings", "gda"]).output


def test_a_method_without_settings_and_an_unknown_one() -> None:
    done = CliRunner().invoke(app, ["list", "settings", "zero-shot"])
    assert done.exit_code == 0 and "no settings" in done.output
    unknown = CliRunner().invoke(app, ["list", "settings", "zero-shoot"])
    assert "did you mean 'zero-shot'" in str(unknown.exception)
    both = CliRunner().invoke(app, ["list", "settings", "safe,tip-adapter"])
    assert str(both.exception) == "safe,tip-adapter: one method at a time, as in `bench list settings safe`"
    wrong = CliRunner().invoke(app, ["list", "settings", "safe", "--format", "yaml"])
    assert "choose text or json" in str(wrong.exception)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        0.5,
        1.0,
        1e22,
        1e-7,
        0.123456789,
        "word",
        "",
        "none",
        (1e-3, 1e-4),
        (8, 32),
        ("", "a"),
        (True, False),
        (None,),
    ],
)
def test_a_value_is_shown_as_set_takes_it(value: object) -> None:
    from bench.plan.settings import parse_value

    assert parse_value(value_text(value), value, "toy.x") == value
    for default in (value, *([None] if isinstance(value, int | float) else [])):
        again = parse_value(value_text(value, typed=True), default, "toy.x")
        assert again == value and type(again) is type(value)
