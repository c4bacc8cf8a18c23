"""The tables of results/benchmarks/README.md and of docs/speed.md, made of the files in results/benchmarks.

python -m tests.benchmarks.page FILE...     prints the tables of ratio files
python -m tests.benchmarks.page --speed     projects the newest GPU's hours anew, fills docs/speed.md
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tests.benchmarks.gpu import digest
from tests.benchmarks.gpu.watch import read, write

ROOT = Path(__file__).resolve().parents[2]
MEASURED = ROOT / "results" / "benchmarks"
SPEED = ROOT / "docs" / "speed.md"
MARKS = (
    "<!-- from here to the end: made by python -m tests.benchmarks.page --speed -->\n",
    "<!-- end -->\n",
)


def shown(ratio: float) -> str:
    """A ratio as text: three digits where there are as many."""
    return f"{ratio:.{2 if ratio < 9.995 else 1 if ratio < 99.95 else 0}f}x"


def block(file: Path) -> str:
    """A measurement as Markdown: where it was made, and a row a ratio; what falls short names its goal."""
    measured: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    lines = [
        f"Commit {measured['commit']}, {measured['device']}, torch {measured['versions']['torch']} "
        f"([{file.name}]({file.name})):",
        "",
        "| what | against | ratio | notes |",
        "|---|---|---|---|",
    ]
    for r in measured["rows"]:
        ratio, least = shown(r["ratio"]), r.get("least")
        if least and r["ratio"] < least and ratio != shown(least):
            ratio += f", goal {least:g}x"
        lines.append(f"| {r['name']} | {r['baseline']} | {ratio} | {r.get('note', '')} |")
    return "\n".join(lines) + "\n"


def newest(measured: Path = MEASURED) -> Path:
    """The folder of the newest measurement of a GPU in true sizes, by its day, then by name."""
    folders = [f for f in measured.iterdir() if read(f, "machine").get("found", {}).get("sizes") == "true"]
    return max(folders, key=lambda f: (str(read(f, "machine")["found"].get("day", "")), f.name))


def speed(text: str, folder: Path) -> str:
    """A page with the tables of a folder between its marks."""
    before, _, rest = text.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    assert end, "the page lacks its marks"
    link = f"[results/benchmarks/{folder.name}](../results/benchmarks/{folder.name})"
    return f"{before}{MARKS[0]}\nFindings in {link}. {digest.tables(folder)}\n{MARKS[1]}{after}"


def main() -> None:
    """Print the tables of the files, or fill the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--speed", action="store_true", help="fill docs/speed.md")
    options = parser.parse_args()
    if options.speed:
        from tests.benchmarks.gpu import hours

        folder = newest()
        write(folder, "hours", {**read(folder, "hours"), "found": dict(hours.project(folder))})
        SPEED.write_text(speed(SPEED.read_text(encoding="utf-8"), folder), encoding="utf-8")
    elif not options.files:
        parser.error("name files, or --speed")
    print("\n".join(block(file) for file in options.files), end="")


if __name__ == "__main__":
    main()
