"""The tables of results/benchmarks/README.md, made of the files beside it.

python -m tests.benchmarks.page FILE...
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


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


def main() -> None:
    """Print the tables of the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    print("\n".join(block(file) for file in parser.parse_args().files), end="")


if __name__ == "__main__":
    main()
