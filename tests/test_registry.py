"""A plugin or installed entry point that does not load is listed with its reason and costs nothing else."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.registry import builtin, with_plugins

HEAD = "from bench.interface import Method, torch\n\n\n"
BODY = "class Toy(Method):\n    name = 'toy'\n    title = 'Toy'\n"


def plugin(tmp_path: Path, text: str | bytes) -> Path:
    file = tmp_path / "toy.py"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def refused(file: Path) -> str:
    """The one line that a plugin is refused with."""
    with pytest.raises(BenchError) as error:
        with_plugins((file,))
    said = str(error.value)
    assert said.isprintable() and len(said) < 3_000, said
    return said


FIELDS = {
    "name = 3": 'needs a line  name = "..."',
    "name = 'mk[/x]'": "cannot name a method",
    "name = 'a\\x1b[31mb'": r"'a\x1b[31mb' cannot name a method",
    "name = ''": "cannot name a method",
    "name = '../../x'": "cannot name a method",
    f"name = '{'a' * 65}'": "at most 64",
    "title = None": 'needs a line  title = "..."',
    "title = 'two\\nlines'": "title must be one line of text",
    "cite = 'two\\u2028lines'": "cite must be one line of text",
    "note = 'a\\x1b[31mb'": "note must be one line of text",
    "note = 7": "note must be one line of text, not 7",
    "version = 'one'": "version must be a whole number, not 'one'",
    "settings = ['lr']": "settings must be a dictionary of values",
    "settings = {'net': torch.nn.Linear}": "settings must be a dictionary of values",
    "presets = {'quick': 3}": "presets must be a dictionary of presets",
    "presets = {'quick': {'lr': 3}}": "lr: not in settings",
    "inference = ('beta',)": "beta: not in settings",
    "taps = 'pooled'": "taps must be a tuple of names out of pixels",
    "taps = ('pooled', 'nose')": "not ('pooled', 'nose')",
    "towers = ('cnn',)": "towers must be a tuple of names out of rn, vit, other",
    "after = 'safe'": "after must be a tuple of names",
    "fuse = 'no'": "fuse must be True or False",
    "micro = 0": "micro must be None or a number of rows above 0",
    "micro = True": "micro must be None or a number of rows above 0",
    "logits = None": "logits must be a function",
    "__init__ = lambda self: 1 / 0": "ZeroDivisionError",
}


@pytest.mark.parametrize("line", FIELDS)
def test_odd_fields(line: str, tmp_path: Path) -> None:
    said = refused(plugin(tmp_path, f"{HEAD}{BODY}    {line}\n"))
    assert FIELDS[line] in said and "toy.py" in said, said


def test_blanks_of_every_kind_are_text(tmp_path: Path) -> None:
    line = "cite = 'Zhang\\u00a0et\\u202fal. \\u200e2022'"
    assert with_plugins((plugin(tmp_path, f"{HEAD}{BODY}    {line}\n"),)).get("toy").cite.startswith("Zhang")


LIBRARY = "import os\nos.environ['HOME'] = '/lib'\n"


def test_what_a_library_changes_is_not_the_plugins_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OpenCV does, unless it is a module of the plugin's own."""
    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "site" / "a_made_library.py").write_text(LIBRARY)
    (tmp_path / "a_made_part.py").write_text(LIBRARY)
    home = os.environ["HOME"]
    assert with_plugins((plugin(tmp_path, f"import a_made_library\n{HEAD}{BODY}"),)).get("toy")
    assert os.environ["HOME"] == home
    assert "changes the environment" in refused(plugin(tmp_path, f"import a_made_part\n{HEAD}{BODY}"))
    assert os.environ["HOME"] == home


FILES: dict[str, tuple[str | bytes, str]] = {
    "exits": ("raise SystemExit(0)", "cannot be imported: SystemExit: 0"),
    "no module": ("import nothing_like_this", "ModuleNotFoundError"),
    "no Python": ("class Toy(", "SyntaxError"),
    "too deep": (f"x = {'(' * 5_000}1{')' * 5_000}", "cannot be imported"),
    "very deep": (f"x = {'-' * 200_000}1", "cannot be imported"),
    "recursion": ("def f():\n    return f()\n\n\nf()", "RecursionError"),
    "binary": (bytes(range(256)), "not UTF-8 text"),
    "zeros": (b"x = 1\0", "zero bytes"),
    "empty": ("", "no method in it"),
    "a mute error": (
        "class Mute(Exception):\n    def __str__(self):\n        return 1 / 0\n\n\nraise Mute",
        "Mute: (its text fails with ZeroDivisionError)",
    ),
    "an endless error": ("raise ValueError('x\\n' * 10**6)", "ValueError: x x x"),
    "a mode": (f"{HEAD}torch.set_default_dtype(torch.float64)\n\n\n{BODY}", "changes torch's default dtype"),
}


@pytest.mark.parametrize("kind", FILES)
def test_odd_files(kind: str, tmp_path: Path) -> None:
    text, word = FILES[kind]
    assert word in refused(plugin(tmp_path, text))
    assert plugin(tmp_path, f"print('hello')\n{HEAD}{BODY}") and with_plugins((tmp_path / "toy.py",)).get(
        "toy"
    )


def test_no_file(tmp_path: Path) -> None:
    assert "not a file" in refused(tmp_path) and "no such file" in refused(tmp_path / "gone.py")
    fifo = tmp_path / "fifo.py"
    os.mkfifo(fifo)
    assert "not a file" in refused(fifo)


def test_a_seed_at_import_is_put_back(tmp_path: Path) -> None:
    before = random.getstate()
    with_plugins((plugin(tmp_path, f"import random\n\nrandom.seed(1)\n{HEAD}{BODY}"),))
    assert random.getstate() == before


# An installed package's modules, and its entry points by name.
MODULES = {
    "ep_import": "import nothing_like_this",
    "ep_syntax": "class Toy(",
    "ep_exit": "raise SystemExit(0)",
    "ep_thing": "thing = 3\nfrom bench.interface import Method\n",
    "ep_taken": f"{HEAD}class Toy(Method):\n    name = 'zero-shot'\n    title = 'Toy'\n",
    "ep_one": f"{HEAD}{BODY}",
    "ep_two": f"{HEAD}{BODY}",
    "ep_odd": f"{HEAD}class Toy(Method):\n    name = 'fine'\n    title = 'Toy'\n",
    "ep_fields": f"{HEAD}{BODY}    name = 'mk[/x]'\n",
}
POINTS = {
    "ep-import": "ep_import:Toy",
    "ep-syntax": "ep_syntax:Toy",
    "ep-exit": "ep_exit:Toy",
    "ep-number": "ep_thing:thing",
    "ep-base": "ep_thing:Method",
    "ep-lacks": "ep_thing:Toy",
    "ep-taken": "ep_taken:Toy",
    "ep-one": "ep_one:Toy",
    "ep-two": "ep_two:Toy",
    "od\x1bd name [x": "ep_odd:Toy",
    "ep-value": "not an object!",
    "ep-fields": "ep_fields:Toy",
}
BROKEN = {
    "ep-import": "ModuleNotFoundError",
    "ep-syntax": "SyntaxError",
    "ep-exit": "SystemExit: 0",
    "ep-number": "no method",
    "ep-base": 'needs a line name = "..."',
    "ep-lacks": "AttributeError",
    "ep-taken": "taken by",
    "ep-two": "the name 'toy' is taken by ep_one:Toy",
    "ep-value": "",
    "ep-fields": "cannot name a method",
}


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with an installed package of broken entry points."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    listed(tmp_path, "broken", "".join(f"{name} = {value}\n" for name, value in POINTS.items()))
    return tmp_path


def listed(folder: Path, package: str, points: str) -> None:
    """Write the metadata of an installed package."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[bench.methods]\n{points}")


def bench(packages: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, (str(packages), os.environ.get("PYTHONPATH", ""))))
    environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )


def test_broken_entry_points(packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(packages))
    builtin.cache_clear()
    try:
        registry = builtin()
    finally:
        builtin.cache_clear()
    assert {"toy", "fine", "zero-shot"} <= set(registry.names())
    found = {b.name: b.reason for b in registry.broken}
    assert found.keys() == BROKEN.keys()
    for name, word in BROKEN.items():
        assert word in found[name] and found[name].isprintable(), (name, found[name])
        with pytest.raises(BenchError) as error:
            registry.get(name)
        assert str(error.value) == found[name]


def test_verbs_with_broken_entry_points(packages: Path, tmp_path: Path) -> None:
    shown = bench(packages, "list", "methods")
    assert shown.returncode == 0 and "SystemExit: 0" in shown.stdout and "\x1b" not in shown.stdout
    run = bench(packages, "run", "--methods", "ep-exit", "--results", str(tmp_path / "r"))
    assert run.returncode == 2 and "SystemExit: 0" in run.stderr and len(run.stderr.splitlines()) == 1, run
    listed(packages, "damaged", "no value here\n")
    shown = bench(packages, "list", "methods")
    assert shown.returncode == 0 and "cannot be read" in shown.stdout and "zero-shot" in shown.stdout
