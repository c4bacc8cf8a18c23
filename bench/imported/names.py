"""Find the images and classes of a dataset by the names that other programs write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.data.dataset import Dataset
from bench.names import canonical, nearest, shown

_PREFIX = "p_"  # may stand before a class in the name of a column
SHARED = -1  # what several classes have in place of a number


class Images:
    """The test images of a dataset by path, with or without folders before it, or by base name.

    Example: ``test/three/0013.png`` is also found as ``/data/digits/test/three/0013.png``, and as
    ``0013.png`` if no other test image has this base name.
    """

    def __init__(self, target: Dataset) -> None:
        self.name = target.name
        self.paths = {path.replace("\\", "/"): i for i, path in enumerate(target.test.paths)}
        self.others = {
            path.replace("\\", "/"): part
            for part, items in (("validation", target.val), ("training", target.train))
            for path in items.paths
        }
        self.bases: dict[str, int] = {}
        for path, i in self.paths.items():
            base = path.rpartition("/")[2]
            self.bases[base] = SHARED if base in self.bases else i

    def find(self, name: str) -> tuple[int | None, str]:
        """Return an image's position in the test list; else None, and why it is not found, with the mend."""
        path = name.replace("\\", "/")
        parts = path.split("/")
        tails = ["/".join(parts[i:]) for i in range(len(parts))]
        for tail in tails:
            if tail in self.paths:
                return self.paths[tail], ""
        if len(parts) == 1 and path in self.bases:
            if self.bases[path] != SHARED:
                return self.bases[path], ""
            alike = [p for p in self.paths if p.endswith(f"/{path}")]
            return None, (
                f"is the base name of {len(alike)} test images: write the path, such as '{shown(alike[0])}'"
            )
        for tail in tails:
            if tail in self.others and tail not in self.paths:
                return None, f"is a {self.others[tail]} image of {self.name}: leave it out"
        return None, (
            f"is no test image of {self.name}: write its path as the dataset lists it, such as "
            f"'{shown(next(iter(self.paths), ''))}', and leave other images out"
        )


class Classes:
    """The classes of a test set by name or number.

    A name is compared without regard to case, and with hyphens, underscores and blanks as one letter. Numbers
    count from 0, in the order of the class list. If a class is itself called by a number, as in a folder
    ``7``, numbers are names and nothing else.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.exact = _numbered(names)
        self.loose = _numbered([_loosely(name) for name in names])
        self.by_number = not any(name.strip().isdecimal() for name in names)

    def find(self, text: str) -> int | None:
        """Return the number of a class; None if there is none, and ``SHARED`` if several have this name."""
        if text in self.exact:
            return self.exact[text]
        if _loosely(text) in self.loose:
            return self.loose[_loosely(text)]
        number = int(text) if self.by_number and text.isdecimal() and len(text) < 10 else len(self.names)
        return number if number < len(self.names) else None

    def column(self, name: str) -> int | None:
        """Return the class whose probabilities stand in the column of that name; None if it is not clear."""
        found = self.find(name)
        if found is None and name.lower().startswith(_PREFIX):
            found = self.find(name[len(_PREFIX) :].strip())
        return None if found == SHARED else found

    def hint(self, text: str) -> str:
        """Return a hint at the class whose name is nearest; empty if none is near."""
        bare = text[len(_PREFIX) :] if text.lower().startswith(_PREFIX) else text
        if self.column(text) is None and SHARED in (self.find(text), self.find(bare)):
            return " (several classes have that name: write the class's number)"
        return nearest(bare, map(shown, self.names))


def _numbered(names: Sequence[str]) -> dict[str, int]:
    count = Counter(names)
    return {name: SHARED if count[name] > 1 else k for k, name in enumerate(names)}


def _loosely(name: str) -> str:
    return canonical(name).replace(" ", "-")
