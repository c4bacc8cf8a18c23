"""The house rules that a reader relies on: who imports whom, short modules, nothing unsafe, nothing
hidden.
"""

from __future__ import annotations

import ast
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from tests import imports
from tests.imports import MAY_IMPORT, ROOT, forbidden, parsed, room

SOURCES = sorted(imports.read().files.values())


def unsafe(tree: ast.AST) -> list[str]:
    """Pickles, unguarded torch.load, swallowed exceptions and global random state in a module."""
    lines = []
    guarded = [n for n in ast.walk(tree) if isinstance(n, ast.With) and "fork_rng" in ast.unparse(n.items[0])]
    own_state = {id(inner) for block in guarded for inner in ast.walk(block)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            plain = {alias.name for alias in node.names} - {"pickle"}
            names = {node.module} if isinstance(node, ast.ImportFrom) else plain
            if names & {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}:
                lines.append(f"line {node.lineno}: pickles")
        if (
            isinstance(node, ast.Attribute)
            and ast.unparse(node.value) == "pickle"
            and node.attr != "UnpicklingError"
        ):
            lines.append(f"line {node.lineno}: pickles")
        if isinstance(node, ast.ExceptHandler):
            caught = {"BaseException"} if node.type is None else {ast.unparse(node.type)}
            silent = all(isinstance(s, ast.Pass | ast.Continue) or ast.unparse(s) == "..." for s in node.body)
            if caught & {"Exception", "BaseException"} and silent:
                lines.append(f"line {node.lineno}: swallows every exception")
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name == "torch.load" and given.get("weights_only") != "True":
                lines.append(f"line {node.lineno}: torch.load without weights_only=True")
            if name == "torch.save":
                lines.append(f"line {node.lineno}: torch.save pickles")
            if given.get("allow_pickle") == "True":
                lines.append(f"line {node.lineno}: allow_pickle")
            if (
                re.fullmatch(r"torch\.(manual_seed|seed|cuda\.manual_seed(_all)?)", name)
                and id(node) not in own_state
            ):
                lines.append(f"line {node.lineno}: {name} seeds the global generator")
            if re.fullmatch(r"(np|numpy)\.random\.[a-z_]+", name) and not name.endswith(".default_rng"):
                lines.append(f"line {node.lineno}: {name} uses the global generator")
            if re.fullmatch(r"random\.[a-z_]+", name):
                lines.append(f"line {node.lineno}: {name} uses the global generator")
    return lines


def compared_names(tree: ast.AST, names: set[str]) -> list[str]:
    """Comparisons and match cases against a string that is a method's or a dataset's name."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            inside = [n for side in (node.left, *node.comparators) for n in ast.walk(side)]
        elif isinstance(node, ast.MatchValue):
            inside = [node.value]
        else:
            continue
        hit = [
            n.value
            for n in inside
            if isinstance(n, ast.Constant) and isinstance(n.value, str) and n.value in names
        ]
        lines += [f"line {node.lineno}: '{name}'" for name in hit]
    return lines


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: str(f.relative_to(ROOT)))
def test_module_keeps_the_rules(file: Path) -> None:
    tree = parsed(file)
    assert forbidden(room(file), tree) == []
    assert unsafe(tree) == []
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= 400, f"{lines} lines; split it"


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ("stats", "from bench.files import read_json"),
        ("stats", "import bench.errors"),
        ("ground", "from bench.clip.backbone import Backbone"),
        ("plan", "from bench.run.desk import Desk"),
        ("interface", "from bench.prompts import texts"),
        ("interface", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import bench.train.loop"),
        ("run", "from bench.cli import app"),
        ("run", "def f():\n    from bench.report import tables"),
        ("methods", "from bench.data.dataset import Dataset"),
        ("methods", "import importlib\nimportlib.import_module('bench.run.fit')"),
        ("methods", "from bench.train.loop import train"),
        ("data", "from bench import features"),
        ("a new room", ""),
    ],
)
def test_a_forbidden_import_is_found(part: str, code: str) -> None:
    assert len(forbidden(part, ast.parse(code))) == 1


def test_rooms_import_only_from_rooms_above_them() -> None:
    order = list(MAY_IMPORT)
    for name, others in MAY_IMPORT.items():
        above = {*order[: order.index(name)]}
        assert {other.split(".")[0] for other in others} <= above, name


def test_every_arrow_that_is_allowed_is_there() -> None:
    tree = imports.read()
    counts = imports.between_rooms(tree, imports.arrows(tree))
    for name, others in MAY_IMPORT.items():
        assert {other.split(".")[0] for other in others} == set(counts[name]) - {"ground"}, name


def test_the_page_lists_the_rooms_in_their_order() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = re.findall(r"^      ([a-z_]+)(?:\.py|/)?(?: |$)", page, flags=re.MULTILINE)
    rooms = [name for name in MAY_IMPORT if name not in ("ground", "methods")]
    assert [name for name in listed if name in rooms] == rooms


def test_no_files_import_each_other() -> None:
    tree = imports.read()
    assert [list(map(tree.name, group)) for group in imports.circles(imports.arrows(tree))] == []


def made(root: Path, files: dict[str, str]) -> imports.Tree:
    """A tree of files by their paths below ``root``."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return imports.read(root)


@pytest.mark.parametrize(
    "back",
    [
        "from bench.clip.a import A",
        "from bench.clip import a",
        "import bench.clip.a",
        "def f():\n    from bench.clip.a import A",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from bench.clip.a import A",
        "from importlib import import_module\nimport_module('bench.clip.a')",
    ],
)
def test_a_circle_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str], back: str) -> None:
    files = {
        "bench/clip/a.py": "from bench.clip.b import B",
        "bench/clip/b.py": "from bench.clip.c import C",
        "bench/clip/c.py": back,
        "bench/clip/d.py": "from bench.clip.a import A",
    }
    tree = made(tmp_path, files)
    circles = imports.circles(imports.arrows(tree))
    assert [[file.stem for file in group] for group in circles] == [["a", "b", "c"]]
    assert imports.main(tmp_path) == 1
    shown = capsys.readouterr().out
    assert "circles between files: 1\n  bench/clip/a.py bench/clip/b.py bench/clip/c.py\n" in shown
    (tmp_path / "bench/clip/c.py").write_text("C = 1\n", encoding="utf-8")
    assert imports.main(tmp_path) == 0
    assert "circles between files: none" in capsys.readouterr().out


def test_what_an_import_counts_as(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A module where there is one of that name, else the package or module that holds the name; the packages
    above a module do not count. Methods are ``bench.methods``, also where the link to them is there.
    """
    files = {
        "bench/__init__.py": "",
        "bench/report/__init__.py": "from bench.report.page import show",
        "bench/report/page.py": "from bench.report.rows import ROWS\nfrom bench.lazy import torch",
        "bench/report/rows.py": "",
        "bench/lazy.py": "",
        "bench/cli.py": "from bench import report\nfrom bench.report import page\nfrom bench.report import x",
        "methods/coop.py": "",
        "methods/mine.py": "from bench.methods.coop import CoOp\nfrom bench import report",
    }
    made(tmp_path, files)
    (tmp_path / "bench/methods").symlink_to("../methods")
    tree = imports.read(tmp_path)
    assert {tree.name(file) for file in tree.files.values()} == set(files)
    graph = imports.arrows(tree)
    targets = {tree.name(file): sorted(map(tree.name, graph[file])) for file in graph if graph[file]}
    assert targets == {
        "bench/report/__init__.py": ["bench/report/page.py"],
        "bench/report/page.py": ["bench/lazy.py", "bench/report/rows.py"],
        "bench/cli.py": ["bench/report/__init__.py", "bench/report/page.py"],
        "methods/mine.py": ["bench/report/__init__.py", "methods/coop.py"],
    }
    assert imports.circles(graph) == []
    assert imports.main(tmp_path) == 1
    shown = capsys.readouterr().out
    assert "forbidden arrows: 1\n  methods/mine.py: line 2: bench.report\n" in shown
    assert re.search(r"^  report +3 files +3 lines +imports ground$", shown, re.MULTILINE)


@pytest.mark.parametrize(
    "code",
    [
        "from pickle import loads",
        "import pickle\npickle.loads(data)",
        "import joblib",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.save(state, path)",
        "np.load(path, allow_pickle=True)",
        "try:\n    f()\nexcept Exception:\n    pass",
        "for x in y:\n    try:\n        f()\n    except:\n        continue",
        "torch.manual_seed(1)",
        "np.random.shuffle(x)",
        "random.shuffle(x)",
    ],
)
def test_an_unsafe_line_is_found(code: str) -> None:
    assert len(unsafe(ast.parse(code))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "try:\n    f()\nexcept KeyError:\n    pass",
        "random.Random(seed).shuffle(x)",
        "np.random.default_rng(3).normal()",
        "torch.Generator().manual_seed(3)",
        "with torch.random.fork_rng():\n    torch.manual_seed(3)",
        "import pickle\ntry:\n    f()\nexcept pickle.UnpicklingError as e:\n    raise E from e",
    ],
)
def test_a_safe_line_is_not(code: str) -> None:
    assert unsafe(ast.parse(code)) == []


def code_lines(text: str) -> int:
    """Count the lines of a module that are neither blank nor part of a comment or a docstring."""
    lines = text.splitlines()
    documented: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            documented |= set(range(first.lineno, (first.end_lineno or 0) + 1))
    return sum(
        bool(line.strip()) and not line.lstrip().startswith("#") and i not in documented
        for i, line in enumerate(lines, 1)
    )


def test_median_module_is_short() -> None:
    """Docstrings do not count, so that nobody saves words to keep a module short."""
    assert code_lines('"""A.\n\nB."""\n\n# why\nx = 1\n\ndef f():\n    """C."""\n    return 2\n') == 3
    lengths = [n for n in (code_lines(f.read_text(encoding="utf-8")) for f in SOURCES) if n > 3]
    assert statistics.median(lengths) < 90


def test_harness_knows_no_method_or_dataset_by_name() -> None:
    names = {f.stem for f in (ROOT / "datasets").glob("*.toml")} | {
        f.stem for f in (ROOT / "methods").glob("*.py")
    }
    names |= {name.replace("_", "-") for name in names} | {name.replace("-", "_") for name in names}
    assert (
        compared_names(ast.parse("if name == 'safe_a' or x in ('emoji',): pass"), {"safe_a", "emoji"}) != []
    )
    harness = (
        "plan",
        "run",
        "executors",
        "train",
        "features",
        "report",
        "stats",
        "metrics",
        "suite",
        "interface",
        "registry",
        "prompts",
        "recipe",
        "values",
        "records",
        "sources",
    )
    by_file = {
        str(f.relative_to(ROOT)): hits
        for f in SOURCES
        if room(f) in harness and (hits := compared_names(parsed(f), names))
    }
    assert by_file == {}


def test_no_file_names_somebodys_home_folder() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    home = re.compile(r"/(?:home|Users)/(?!\.)\w|/ro{2}t/|C:\\+Users", re.IGNORECASE)
    files = []
    for name in filter(None, listed.stdout.split("\0")):
        file = ROOT / name
        if (
            file.suffix in {".py", ".toml", ".md", ".json", ".csv", ".txt", ".cff", ".yml", ".sh"}
            and file.is_file()
        ):
            files += [name] if home.search(file.read_text(encoding="utf-8")) else []
    assert files == []


def test_help_imports_no_torch() -> None:
    code = (
        "import sys\nsys.argv = ['bench', '--help']\nfrom bench.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('LOADED', sorted({'torch', 'open_clip', 'pandas', 'sklearn', 'scipy', 'seaborn'} & "
        "set(sys.modules)))"
    )
    wide = {**os.environ, "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=wide, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "LOADED []" in done.stdout
    assert "run" in done.stdout and "table" in done.stdout


def top_imports(tree: ast.Module) -> list[str]:
    """The import statements at the top of a module, those for type checkers alone included."""
    blocks = [node.body if isinstance(node, ast.If) else [node] for node in tree.body]
    statements = [node for block in blocks for node in block if isinstance(node, ast.Import | ast.ImportFrom)]
    return [line for line in map(ast.unparse, statements) if not line.startswith("from __future__ ")]


@pytest.mark.parametrize("file", sorted((ROOT / "methods").glob("*.py")), ids=lambda f: f.stem)
def test_a_method_opens_with_few_imports(file: Path) -> None:
    assert len(top_imports(parsed(file))) <= 8


def test_every_file_that_the_page_names_is_there() -> None:
    """Files below bench/ or the root; after the first of a folder the others may stand by name alone."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    names = [n for n in re.findall(r"`([\w/]+\.py)`", page) if n not in ("methods/name.py", "utils.py")]
    assert len(names) > 40
    folder = ROOT / "bench"
    for name in names:
        places = [ROOT / name, ROOT / "bench" / name, *([folder / name] if "/" not in name else [])]
        file = next((place for place in places if place.is_file()), None)
        assert file is not None, f"docs/architecture.md names {name}"
        folder = file.parent


def test_no_name_of_the_public_face_is_a_module() -> None:
    """Importing a module ``bench.x`` sets the attribute ``x`` of the package, in place of a function."""
    import bench

    modules = {path.stem for path in (ROOT / "bench").iterdir() if path.is_dir() or path.suffix == ".py"}
    assert not modules & set(bench.__all__)
