"""What counts as the source of a plugin: its file and the modules of its own folder, however they are
imported.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench import sources

ROOT = Path(__file__).resolve().parent.parent


def tree(root: Path, **files: str) -> Path:
    """Files below ``root`` by name, ``__`` for a slash and without the ending; the plugin itself."""
    for name, text in files.items():
        file = root / (name.replace("__", "/") + ".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root / "plugin.py"


def package(root: Path, *folders: str) -> None:
    """Make folders packages."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "__init__.py").touch()


def own(file: Path, root: Path) -> set[str]:
    """What counts as a plugin's own, as paths below ``root``."""
    modules = sources.own_modules(file)
    assert modules == sorted(set(modules)), "sorted, each once"
    return {module.relative_to(root.resolve()).as_posix() for module in modules}


def test_a_plugin_without_helpers_is_its_file(tmp_path: Path) -> None:
    plugin = tree(tmp_path, plugin="x = 1\n", other="y = 2\n")
    assert own(plugin, tmp_path) == {"plugin.py"}
    before = sources.digest_of(plugin)
    assert len(before) == 64 and before == sources.digest_of(plugin)
    plugin.write_text("x = 2\n")
    assert sources.digest_of(plugin) != before


@pytest.mark.parametrize(
    "line",
    [
        "from bench.methods.safe_a import SafeA",
        "import bench.methods.safe_a",
        "from .safe_a import SafeA",
        "from . import safe_a",
    ],
)
def test_the_methods_that_a_plugin_builds_on_are_in_its_digest(
    tmp_path: Path, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SAFE-A imports from other methods, whose source counts too; a method that none of them imports does
    not.
    """
    methods = Path(shutil.copytree(ROOT / "methods", tmp_path / "methods"))
    monkeypatch.setattr(sources, "methods_dir", lambda: methods)
    plugin = tree(tmp_path / "mine", plugin=f"{line}\n")
    below = {part.stem for part in sources.methods_below([plugin])}
    assert {"safe_a", "tip_adapter"} <= below and "coop" not in below
    before = sources.digest_of(plugin)
    for name, moves in (("coop", False), ("safe_a", True), ("tip_adapter", True)):
        file = methods / f"{name}.py"
        text = file.read_text()
        file.write_text(text + "\n# edited\n")
        assert (sources.digest_of(plugin) != before) == moves, name
        file.write_text(text)
