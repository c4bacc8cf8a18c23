"""Walk through a user's folders, and list sub-folders, pictures, and what is passed over with the reason."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bench.data.endings import is_picture, why_not
from bench.data.reading import HIDDEN
from bench.errors import BenchError
from bench.names import shown

# Folders that systems and programs make by themselves. They are passed over like hidden files.
LITTER = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})


class Unlisted(BenchError):
    """An error for a folder whose content cannot be listed.

    ``reason`` is the system's reason, in lower case.
    """

    def __init__(self, folder: Path, error: OSError) -> None:
        self.reason = f"cannot be read ({(error.strerror or str(error)).lower()})"
        super().__init__(f"{shown(str(folder))}: this folder {self.reason}")


@dataclass(frozen=True)
class Listing:
    """The content of one folder, in plain (case-sensitive) order.

    ``passed`` holds what was passed over, as pairs (reason, path below the root). ``links`` are the pictures
    and folders that are symbolic links.
    """

    folders: tuple[str, ...]
    pictures: tuple[str, ...]
    passed: tuple[tuple[str, str], ...]
    links: tuple[str, ...] = ()


def look(root: Path, folder: str = "", links: bool = False) -> Listing:
    """List what is in ``root/folder``. With ``links``, links to folders count as folders. Raises Unlisted."""
    folders: list[str] = []
    pictures: list[str] = []
    passed: list[tuple[str, str]] = []
    linked: list[str] = []
    try:
        with os.scandir(root / folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            reason = ""
            if entry.name.startswith(".") or entry.name in LITTER:
                reason = HIDDEN
            elif entry.is_symlink() and not os.path.exists(entry.path):
                reason = "behind a dangling link"
            elif entry.is_dir():
                if links or not entry.is_symlink():
                    folders.append(entry.name)
                else:
                    reason = "behind a link to a folder"
            elif not is_picture(entry.name):
                reason = why_not(entry.name)
            elif entry.is_file():
                pictures.append(entry.name)
            else:
                reason = "that are no regular files"
            if entry.is_symlink() and not reason:
                linked.append(entry.name)
            if reason:
                passed.append((reason, f"{folder}/{entry.name}" if folder else entry.name))
    except OSError as error:
        raise Unlisted(root / folder, error) from error
    return Listing(tuple(folders), tuple(pictures), tuple(passed), tuple(linked))


def below(root: Path, folder: str) -> Listing:
    """List the pictures below ``root/folder`` at any depth, what was passed over, and links.

    Paths are relative to ``root``. The pictures of a folder come before those of its sub-folders. Raises
    Unlisted.
    """
    pictures: list[str] = []
    passed: list[tuple[str, str]] = []
    links: list[str] = []
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        listing = look(root, here)
        pictures += [f"{here}/{name}" for name in listing.pictures]
        passed += listing.passed
        links += [f"{here}/{name}" for name in listing.links]
        waiting += [f"{here}/{name}" for name in reversed(listing.folders)]
    return Listing((), tuple(pictures), tuple(passed), tuple(links))
