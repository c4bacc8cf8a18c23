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
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*(ROOT / "bench").rglob("*.py"), *(ROOT / "methods").glob("*.py")])

BASE = {"errors", "lazy", "files", "names", "paths"}
# What each part of bench may import besides itself and BASE. "train.optim" allows that module alone.
MAY_IMPORT = {
    "errors": set(),
    "lazy": set(),
    "files": set(),
    "names": set(),
    "paths": set(),
    "stats": set(),
    "clip": set(),
    "data": {"pocket"},
    "pocket": {"data", "clip"},
    "features": {"data", "clip"},
    "interface": {"clip", "train.optim", "train.schedule", "train.batches", "train.recipe"},
    "train": {"interface"},
    "prompts": {"data"},
    "sources": set(),
    "registry": {"interface", "sources"},
    "suite": {"interface", "registry", "data", "clip", "prompts"},
    "records": {"features", "data", "clip", "registry"},
    "run": {
        "records",
        "train",
        "features",
        "data",
        "clip",
        "interface",
        "prompts",
        "registry",
        "suite",
        "stats",
    },
    "contract": {"plan", "run", "records", "train", "features", "data", "clip", "interface", "registry"},
    "explain": {
        "run",
        "records",
        "clip",
        "data",
        "interface",
        "stats",
        "features",
        "registry",
        "prompts",
        "pocket",
    },
    "report": {"stats", "records", "data.catalog", "prompts"},
    "methods": {
        "interface",
        "clip",
        "train.optim",
        "train.schedule",
        "train.batches",
        "train.recipe",
        "prompts.fill",
    },
}
ANYTHING = {"cli", "__init__", "__main__"}  # the command line, and the lazy public face


def part_of(file: Path) -> str:
    """The row of MAY_IMPORT a file belongs to."""
    inside = file.relative_to(ROOT)
    return "methods" if inside.parts[0] == "methods" else inside.with_suffix("").parts[1]


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name below ``bench``) of every import of bench's modules, lazy and type-only ones
    included.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import; write the full name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {
            "import_module",
            "__import__",
        }:
            names = [
                a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)
            ]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            if top == "bench" and rest:
                yield node.lineno, rest


def forbidden_imports(part: str, tree: ast.AST) -> list[str]:
    """What a module of ``part`` imports although MAY_IMPORT does not let it."""
    if part in ANYTHING:
        return []
    assert part in MAY_IMPORT, f"bench/{part} is new: add it to MAY_IMPORT and say what it may import"
    base = set() if part == "stats" else BASE
    allowed = MAY_IMPORT[part] | base | {part}
    found = []
    for line, name in imported(tree):
        pieces = name.split(".")
        if not {".".join(pieces[:i]) for i in range(1, len(pieces) + 1)} & allowed:
            found.append(f"line {line}: bench.{name}")
    return found


def unsafe(tree: ast.AST) -> list[str]:
    """Pickles, unguarded torch.load, swallowed exceptions and global random state in a module."""
    found = []
    guarded = [n for n in ast.walk(tree) if isinstance(n, ast.With) and "fork_rng" in ast.unparse(n.items[0])]
    own_state = {id(inner) for block in guarded for inner in ast.walk(block)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            plain = isinstance(node, ast.Import)
            names = {alias.name for alias in node.names} - {"pickle"} if plain else {node.module}
            if names & {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}:
                found.append(f"line {node.lineno}: pickles")
        if (
            isinstance(node, ast.Attribute)
            and ast.unparse(node.value) == "pickle"
            and node.attr != "UnpicklingError"
        ):
            found.append(f"line {node.lineno}: pickles")
        if isinstance(node, ast.ExceptHandler):
            caught = {"BaseException"} if node.type is None else {ast.unparse(node.type)}
            silent = all(isinstance(s, ast.Pass | ast.Continue) or ast.unparse(s) == "..." for s in node.body)
            if caught & {"Exception", "BaseException"} and silent:
                found.append(f"line {node.lineno}: swallows every exception")
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name == "torch.load" and given.get("weights_only") != "True":
                found.append(f"line {node.lineno}: torch.load without weights_only=True")
            if name == "torch.save":
                found.append(f"line {node.lineno}: torch.save pickles")
            if given.get("allow_pickle") == "True":
                found.append(f"line {node.lineno}: allow_pickle")
            if (
                re.fullmatch(r"torch\.(manual_seed|seed|cuda\.manual_seed(_all)?)", name)
                and id(node) not in own_state
            ):
                found.append(f"line {node.lineno}: {name} seeds the global generator")
            if re.fullmatch(r"(np|numpy)\.random\.[a-z_]+", name) and not name.endswith(".default_rng"):
                found.append(f"line {node.lineno}: {name} uses the global generator")
            if re.fullmatch(r"random\.[a-z_]+", name):
                found.append(f"line {node.lineno}: {name} uses the global generator")
    return found


def compared_names(tree: ast.AST, names: set[str]) -> list[str]:
    """Comparisons and match cases against a string that is a method's or a dataset's name."""
    found = []
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
        found += [f"line {node.lineno}: '{name}'" for name in hit]
    return found


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: str(f.relative_to(ROOT)))
def test_module_keeps_the_rules(file: Path) -> None:
    tree = parsed(file)
    assert forbidden_imports(part_of(file), tree) == []
    assert unsafe(tree) == []
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= 400, f"{lines} lines; split it"


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ("stats", "from bench.files import read_json"),
        ("stats", "import bench.errors"),
        ("run", "from bench.cli import app"),
        ("run", "def f():\n    from bench.report import tables"),
        ("methods", "from bench.data.dataset import Dataset"),
        ("methods", "import importlib\nimportlib.import_module('bench.run.fit')"),
        ("methods", "from bench.train.loop import train"),
        ("data", "from bench import features"),
    ],
)
def test_a_forbidden_import_is_found(part: str, code: str) -> None:
    assert len(forbidden_imports(part, ast.parse(code))) == 1


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


def test_median_module_is_short() -> None:
    lengths = [n for n in (len(f.read_text(encoding="utf-8").splitlines()) for f in SOURCES) if n > 3]
    assert statistics.median(lengths) < 120


def test_harness_knows_no_method_or_dataset_by_name() -> None:
    names = {f.stem for f in (ROOT / "datasets").glob("*.toml")} | {
        f.stem for f in (ROOT / "methods").glob("*.py")
    }
    names |= {name.replace("_", "-") for name in names} | {name.replace("-", "_") for name in names}
    assert (
        compared_names(ast.parse("if name == 'safe_a' or x in ('emoji',): pass"), {"safe_a", "emoji"}) != []
    )
    harness = ("run", "train", "features", "report", "stats", "suite", "interface", "registry", "prompts")
    found = {
        str(f.relative_to(ROOT)): hits
        for f in SOURCES
        if part_of(f) in harness and (hits := compared_names(parsed(f), names))
    }
    assert found == {}


def test_no_file_names_somebodys_home_folder() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    home = re.compile(r"/(?:home|Users)/(?!\.)\w|/ro{2}t/|C:\\+Users", re.IGNORECASE)
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        file = ROOT / name
        if (
            file.suffix in {".py", ".toml", ".md", ".json", ".csv", ".txt", ".cff", ".yml", ".sh"}
            and file.is_file()
        ):
            found += [name] if home.search(file.read_text(encoding="utf-8")) else []
    assert found == []


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
