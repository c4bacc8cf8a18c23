"""Find pictures of equal content in two parts of a split or in two classes; each finding is one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.names import few, shown

Rows = Sequence[tuple[str, int]]  # pairs (path, label)

PAIRS = (("test", "train"), ("test", "val"), ("val", "train"))


def repeats(parts: Mapping[str, Rows], hashes: Mapping[str, str], folders: Mapping[str, str]) -> list[str]:
    """Return one line for each two parts that share pictures, and one line about pictures in several classes.

    ``hashes`` maps every path to the digest of its content. ``folders`` maps a part to the folder that it was
    read from, if there is one.
    """
    lines = []
    for part, other in PAIRS:
        there = {hashes[path]: path for path, _ in reversed(parts[other])}
        shared = [(path, there[hashes[path]]) for path, _ in parts[part] if hashes[path] in there]
        if shared:
            where = f"in {shown(folders[other])}/" if other in folders else f"among the {other} images"
            lines.append(
                f"{len(shared)} of {len(parts[part])} {part} images are also {where}; "
                f"for example, {shown(shared[0][0])} equals {shown(shared[0][1])}"
            )
    return lines + _several_classes(parts, hashes)


def alike(paths: Sequence[str], hashes: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    """Return the groups of two or more pictures of equal content, in the order of ``paths``."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(hashes[path], []).append(path)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _several_classes(parts: Mapping[str, Rows], hashes: Mapping[str, str]) -> list[str]:
    """Return one line about pictures that lie in more than one class; no line if there are none."""
    by_content: dict[str, dict[int, str]] = {}
    for rows in parts.values():
        for path, label in rows:
            by_content.setdefault(hashes[path], {}).setdefault(label, path)
    several = [list(owners.values()) for owners in by_content.values() if len(owners) > 1]
    if not several:
        return []
    examples = few((" is ".join(paths) for paths in several), between="; ")
    return [f"{len(several)} pictures lie in more than one class: {examples}"]
