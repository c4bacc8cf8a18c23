"""Split a user's images into train, val and test.

The split depends on the contents of the image files alone, so the same images give the same split on every
machine.
"""

from __future__ import annotations

from collections.abc import Mapping

# Notes on a split that the program made.
NO_SPLIT = "no split given: each class is cut 50/20/30 by the contents of its images"
NO_VAL = "no val folder: a fifth of train, chosen by content, is set aside for validation"
SHARES = {"train": 0.5, "val": 0.2, "test": 0.3}


def cut(hashes: Mapping[str, str]) -> dict[str, list[str]]:
    """Split the paths of one class into 50 % train, 20 % val and 30 % test, in the order of content hashes.

    Identical files come into the same part, and every part gets at least one image. ``hashes`` maps a path to
    the SHA-256 of its content; it must have at least 3 different contents.
    """
    groups: dict[str, list[str]] = {}
    for path, content in sorted(hashes.items(), key=lambda item: (item[1], item[0])):
        groups.setdefault(content, []).append(path)
    assert len(groups) >= len(SHARES), "one different image for each part"
    result: dict[str, list[str]] = {part: [] for part in SHARES}
    order = list(SHARES)
    current = 0
    for done, group in enumerate(groups.values()):
        part, later = result[order[current]], len(order) - current - 1
        full = len(part) >= round(SHARES[order[current]] * len(hashes))
        if later and part and (full or len(groups) - done <= later):
            current += 1
        result[order[current]] += group
    return result


def carved(
    hashes: Mapping[str, str], rows: list[tuple[str, int]]
) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Divide the training ``rows`` into train and val; val gets a fifth of each class, by content hash."""
    train: list[tuple[str, int]] = []
    val: list[tuple[str, int]] = []
    for label in sorted({label for _, label in rows}):
        own = [path for path, row_label in rows if row_label == label]
        contents = sorted({hashes[path] for path in own})
        held_out = set(contents[: max(1, round(0.2 * len(contents)))])
        train += [(path, label) for path in own if hashes[path] not in held_out]
        val += [(path, label) for path in own if hashes[path] in held_out]
    return train, val
