"""What counts as the source of a plugin: its file and the modules of its own folder, however they are imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import sources


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
    found = sources.own_modules(file)
    assert found == sorted(set(found)), "sorted, each once"
    return {f.relative_to(root.resolve()).as_posix() for f in found}


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
        "import helper",
        "import helper as h",
        "import os, helper",
        "from helper import x",
        "from helper import *",
        "def f():\n    import helper",
        "def f():\n    from helper import x",
        "class A:\n    def f(self):\n        if True:\n            from helper import x",
        "try:\n    import helper\nexcept ImportError:\n    helper = None",
        "if __name__ == '__main__':\n    import helper",
    ],
)
def test_a_helper_beside_the_plugin(tmp_path: Path, line: str) -> None:
    plugin = tree(tmp_path, plugin=line + "\n", helper="x = 1\n", unrelated="x = 1\n")
    assert own(plugin, tmp_path) == {"plugin.py", "helper.py"}
    before = sources.digest_of(plugin)
    (tmp_path / "unrelated.py").write_text("x = 2\n")
    assert sources.digest_of(plugin) == before
    (tmp_path / "helper.py").write_text("x = 2\n")
    assert sources.digest_of(plugin) != before


@pytest.mark.parametrize("line", ["import sub.deep.helper", "from sub.deep import helper", "from sub.deep.helper import x"])
def test_a_helper_two_levels_down(tmp_path: Path, line: str) -> None:
    """Folders count as packages with and without an ``__init__``, which runs too where there is one."""
    plugin = tree(tmp_path, plugin=line + "\n", sub__deep__helper="x = 1\n", sub__deep__other="x = 1\n", sub__other="x = 1\n")
    assert own(plugin, tmp_path) == {"plugin.py", "sub/deep/helper.py"}
    package(tmp_path, "sub", "sub/deep")
    assert own(plugin, tmp_path) == {"plugin.py", "sub/__init__.py", "sub/deep/__init__.py", "sub/deep/helper.py"}


def test_a_name_from_a_package_is_no_module(tmp_path: Path) -> None:
    plugin = tree(tmp_path, plugin="from sub import x\n", sub__helper="x = 1\n")
    package(tmp_path, "sub")
    assert own(plugin, tmp_path) == {"plugin.py", "sub/__init__.py"}


def test_a_package_comes_before_a_module_of_its_name(tmp_path: Path) -> None:
    """As Python has it: a plugin that imports ``helper`` runs ``helper/__init__.py`` and not ``helper.py``."""
    plugin = tree(tmp_path, plugin="import helper\n", helper="x = 1\n")
    package(tmp_path, "helper")
    assert "helper/__init__.py" in own(plugin, tmp_path)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from . import beside", {"beside.py"}),
        ("from .beside import x", {"beside.py"}),
        ("from .sub import below", {"sub/__init__.py", "sub/below.py"}),
        ("from .sub import name_of_the_package", {"sub/__init__.py"}),
        ("from .sub.below import x", {"sub/__init__.py", "sub/below.py"}),
        ("def f():\n    from . import beside", {"beside.py"}),
        ("from kit import beside", {"beside.py"}),
        ("from kit.sub.below import x", {"sub/__init__.py", "sub/below.py"}),
        ("import kit.beside", {"beside.py"}),
    ],
)
def test_imports_inside_a_package(tmp_path: Path, line: str, expected: set[str]) -> None:
    """Relative, and absolute by the name of the package: an installed plugin knows its neighbours by both."""
    package(tmp_path, "kit", "kit/sub")
    plugin = tree(tmp_path / "kit", plugin=line + "\n", beside="x = 1\n", sub__below="x = 1\n", unrelated="x = 1\n")
    found = own(plugin, tmp_path / "kit")
    assert found == {"plugin.py", "__init__.py", *expected}


def test_a_plugin_in_an_inner_package_reads_the_outer_one(tmp_path: Path) -> None:
    package(tmp_path, "kit", "kit/sub")
    plugin = tree(tmp_path / "kit" / "sub", plugin="from ..shared import x\nfrom .. import common\n")
    tree(tmp_path / "kit", shared="x = 1\n", common="y = 1\n", unrelated="z = 1\n")
    tree(tmp_path, shared="not this one\n")
    packages = {"kit/__init__.py", "kit/sub/__init__.py"}  # they run when the plugin is loaded
    assert own(plugin, tmp_path) == {"kit/sub/plugin.py", "kit/shared.py", "kit/common.py", *packages}


def test_imports_of_imports(tmp_path: Path) -> None:
    plugin = tree(tmp_path, plugin="import one\n", one="def f():\n    import two\n", two="from sub.three import x\n", four="")
    tree(tmp_path / "sub", three="import json\n")
    assert own(plugin, tmp_path) == {"plugin.py", "one.py", "two.py", "sub/three.py"}
    before = sources.digest_of(plugin)
    (tmp_path / "sub" / "three.py").write_text("import csv\n")
    assert sources.digest_of(plugin) != before


def test_every_own_module_is_in_the_digest(tmp_path: Path) -> None:
    package(tmp_path, "kit", "kit/sub")
    plugin = tree(tmp_path / "kit", plugin="from . import beside\n", beside="from .sub import below\n", sub__below="x = 1\n")
    known = {sources.digest_of(plugin)}
    modules = sources.own_modules(plugin)
    assert len(modules) == 5
    for file in modules:
        file.write_text(file.read_text() + "# edited\n")
        known.add(sources.digest_of(plugin))
    assert len(known) == 6


def test_the_program_itself_is_not_own(tmp_path: Path) -> None:
    """Also not for a plugin that lies in the folder of a checkout, beside ``bench/``; its version stands for it."""
    package(tmp_path, "bench")
    lines = "import bench.interface\nfrom bench.interface import Method\nfrom bench import lazy\n"
    plugin = tree(tmp_path, plugin=lines, bench__interface="class Method: ...\n", bench__lazy="")
    assert own(plugin, tmp_path) == {"plugin.py"}
    named_alike = tree(tmp_path, plugin="import benchmarks\n", benchmarks="x = 1\n")
    assert own(named_alike, tmp_path) == {"plugin.py", "benchmarks.py"}


def test_installed_modules_are_not_own(tmp_path: Path) -> None:
    lines = ("import json, os.path, no_such", "from collections import abc", "import numpy", "from numpy.linalg import norm")
    assert own(tree(tmp_path, plugin="\n".join(lines)), tmp_path) == {"plugin.py"}


def test_nothing_outside_the_folder_is_own(tmp_path: Path) -> None:
    lines = ("import outside", "from .. import outside", "from ..outside import x", "from ... import y")
    plugin = tree(tmp_path / "inner", plugin="\n".join(lines))
    tree(tmp_path, outside="x = 1\n")
    assert own(plugin, tmp_path) == {"inner/plugin.py"}


def test_more_dots_than_folders(tmp_path: Path) -> None:
    plugin = tree(tmp_path, plugin="from " + "." * 99 + " import x\n", x="")
    assert "plugin.py" in own(plugin, tmp_path)


def test_circles_end(tmp_path: Path) -> None:
    plugin = tree(tmp_path, plugin="import one\nimport plugin\n", one="import two\n", two="import one\nimport plugin\n")
    assert own(plugin, tmp_path) == {"plugin.py", "one.py", "two.py"}


def test_the_place_of_the_folder_does_not_count(tmp_path: Path) -> None:
    """The same files elsewhere are the same source, through a link too; a helper under another name is another."""
    here = tree(tmp_path / "here", plugin="import sub.helper\nimport beside\n", sub__helper="x = 1\n", beside="y = 1\n")
    before = sources.digest_of(here)
    (tmp_path / "link").symlink_to(tmp_path / "here", target_is_directory=True)
    assert sources.digest_of(tmp_path / "link" / "plugin.py") == before
    (tmp_path / "here").rename(tmp_path / "there")
    there = tmp_path / "there"
    assert sources.digest_of(there / "plugin.py") == before
    (there / "sub").rename(there / "other")
    assert sources.digest_of(there / "plugin.py") != before


@pytest.mark.parametrize("broken", ["def (:\n", "x = '\\\n", "import helper\n  y = 1\n", "x = 1\0\n"])
def test_what_does_not_parse_is_only_its_bytes(tmp_path: Path, broken: str) -> None:
    """Loading it says what is wrong; a digest does not."""
    plugin = tree(tmp_path, plugin=broken, helper="x = 1\n")
    assert own(plugin, tmp_path) == {"plugin.py"}
    before = sources.digest_of(plugin)
    plugin.write_text(broken + "# edited\n")
    assert sources.digest_of(plugin) != before


def test_a_helper_that_does_not_parse(tmp_path: Path) -> None:
    plugin = tree(tmp_path, plugin="import helper\n", helper="def (:\n")
    assert own(plugin, tmp_path) == {"plugin.py", "helper.py"}


def test_a_declared_encoding_is_read(tmp_path: Path) -> None:
    plugin = tree(tmp_path, helper="x = 1\n")
    plugin.write_bytes("# -*- coding: latin-1 -*-\nname = 'é'\nimport helper\n".encode("latin-1"))
    assert own(plugin, tmp_path) == {"plugin.py", "helper.py"}
