"""Read BibTeX files. The field ``keywords`` of an entry names the methods or datasets that it belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.names import canonical

FILE = "papers.bib"
_BEGIN = re.compile(r"^@(\w+)\s*\{\s*([^\s,{}]+)\s*,", re.M)
_KEYWORDS = re.compile(r"^[ \t]*keywords\s*=\s*\{([^{}]*)\},?[ \t]*\n", re.M | re.I)


@dataclass(frozen=True)
class Entry:
    """An entry of a BibTeX file: its key, its text without the keywords, and the names it belongs to."""

    key: str
    text: str
    names: frozenset[str]


def entries(file: Path) -> list[Entry]:
    """Return the entries of a BibTeX file in their order; none where there is no such file.

    Raises BenchError if the file cannot be read, or if a brace of an entry is never closed.
    """
    if not file.is_file():
        return []
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{file}: cannot be read as UTF-8 text ({error}); mend or remove it") from error
    found = []
    for begin in _BEGIN.finditer(text):
        whole = text[begin.start() : _end(text, begin, file)]
        words = [word for names in _KEYWORDS.findall(whole) for word in names.split(",")]
        names = frozenset(canonical(" ".join(word.split())) for word in words if word.strip())
        found.append(Entry(begin[2], _KEYWORDS.sub("", whole), names))
    return found


def _end(text: str, begin: re.Match[str], file: Path) -> int:
    """Return the position behind the brace that closes the entry."""
    depth = 0
    for brace in re.finditer(r"[{}]", text[begin.start() :]):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return begin.start() + brace.end()
    raise BenchError(f"{file}: entry '{begin[2]}' has no closing brace; add it")


def of(name: str, known: Iterable[Entry]) -> list[Entry]:
    """Return the entries that belong to a method or dataset."""
    return [entry for entry in known if canonical(name) in entry.names]
