"""Write into a page what its commands print.

``python -m tests.docs.outputs docs/quickstart.md README.md`` does it for these pages. Lines ``...`` of a page
stay where they are: the output before and after them keeps its number of lines.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.test_readme import ROOT, Command, commands, prepare, reads_records, run, same

ANY = "..."


def shortened(shown: Sequence[str], printed: Sequence[str]) -> list[str]:
    """Return the printed lines, with ``...`` for the ones that the page leaves out."""
    if ANY not in shown:
        return list(printed)
    first = list(shown).index(ANY)
    last = len(shown) - 1 - list(reversed(shown)).index(ANY)
    after = len(shown) - 1 - last
    return [*printed[:first], ANY, *printed[len(printed) - after :]]


def anew(command: Command, folder: Path, environment: dict[str, str]) -> list[str]:
    """Run a command and return the output to show. Raises SystemExit if it fails."""
    done = run(command, ROOT) if reads_records(command) else run(command, folder, **environment)
    if done.returncode:
        sys.exit(f"$ {command}\n{done.stderr}")
    printed = [line.rstrip() for line in done.stdout.rstrip().splitlines()]
    if not reads_records(command) and same(command.shown, printed):
        return list(command.shown)
    return shortened(command.shown, printed)


def rewritten(text: str) -> str:
    """Return a page with its output made anew."""
    at = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "work"
        environment = prepare(text, folder)
        for command in commands(text):
            runs = command.words[0] == "bench" and not command.reason
            if not runs and not reads_records(command):
                continue
            lines = anew(command, folder, environment)
            if command.shown:
                old = "".join(f"{line}\n" for line in command.shown)
                at = text.index(old, at)
                new = "".join(f"{line}\n" for line in lines)
                text = text[:at] + new + text[at + len(old) :]
                at += len(new)
    return text


if __name__ == "__main__":
    for name in sys.argv[1:]:
        file = Path(name)
        file.write_text(rewritten(file.read_text(encoding="utf-8")), encoding="utf-8")
