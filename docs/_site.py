"""What `make docs` adds to MkDocs: links of a page that leave docs/ lead somewhere on the site too.

MkDocs knows files of docs/ alone, but the pages link to results/, methods/ and the sources too, as is right
where the repository is read. So every file that a link names is put on the site under ``project/`` and its
own path, a Markdown file as a page. A link to a folder leads to the nearest README.md, in it or above it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
# A link's target up to "#"; no scheme ("https:"), no bare anchor.
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside docs/ that its pages link to, and those that these link to in turn."""
    waiting = [Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path]
    while waiting:
        page = waiting.pop()
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            target = _file(page, link)
            if target is None or target.is_relative_to(DOCS) or files.get_file_from_path(_uri(target)):
                continue
            files.append(File.generated(config, _uri(target), abs_src_path=str(target)))
            if target.suffix == ".md":
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point every link of a page at the place of its target on the site."""
    source = Path(str(page.file.abs_src_path))
    here = posixpath.dirname(page.file.src_uri)

    def moved(match: re.Match[str]) -> str:
        target = _file(source, match[1])
        return f"]({posixpath.relpath(_uri(target), here or '.')}" if target else match[0]

    return LINK.sub(moved, markdown)


def _file(page: Path, link: str) -> Path | None:
    """Return the file that a link of a page names, or None if the project has no such file."""
    target = (page.parent / link).resolve()
    if target.is_dir():
        above = (folder / "README.md" for folder in (target, *target.parents))
        target = next((file for file in above if file.is_file()), target)
    return target if target.is_file() and target.is_relative_to(ROOT) else None


def _uri(file: Path) -> str:
    """Return the path of a file of the project on the site, with "/" between its parts."""
    inside = file.is_relative_to(DOCS)
    return (file.relative_to(DOCS) if inside else "project" / file.relative_to(ROOT)).as_posix()
