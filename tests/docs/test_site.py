"""The site of `make docs`: it builds without a warning, has every page, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted(p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site once; a broken link, a missing page or an unknown anchor ends the build."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return out


def listed(nav: list[object]) -> Iterator[str]:
    """Yield the paths of a navigation, however deep."""
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        elif isinstance(entry, dict):
            for inside in entry.values():
                yield from listed(inside if isinstance(inside, list) else [inside])


def test_make_docs_is_as_strict() -> None:
    """Asked to be quiet, MkDocs hears no warnings either, and ``--strict`` does nothing."""
    recipe = next(x for x in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines() if "mkdocs" in x)
    assert "build --strict" in recipe and not re.search(r"\s(--quiet|-q)\b", recipe)


def test_every_page_is_in_the_navigation_once() -> None:
    nav = list(listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert sorted(path for path in nav if not path.startswith("project/")) == PAGES


def test_every_page_is_on_the_site(site: Path) -> None:
    for page in PAGES:
        assert (site / page).with_suffix(".html").is_file(), page


def test_links_to_files_outside_docs_lead_to_copies_of_them(site: Path) -> None:
    assert (site / "project/results/pocket/index.html").is_file()
    shown = (site / "project/results/pocket/index.html").read_text(encoding="utf-8")
    assert 'src="figures/beta.svg"' in shown
    copy = site / "project/results/pocket/figures/beta.svg"
    assert copy.read_bytes() == (ROOT / "results/pocket/figures/beta.svg").read_bytes()


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loads = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=\"?((?:https?:)?//[^\s\">]+)")
    for page in site.rglob("*.html"):
        assert loads.findall(page.read_text(encoding="utf-8")) == [], page.name
