"""The picture that the imports draw: rooms, the arrows between them, circles between files.

``python -m tests.imports`` (``make rooms``) prints it from the ground up. Everything is read from the source:
imports at the top of a module, lazy ones inside functions, those for type checkers alone, and
``import_module`` with a constant.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

GROUND = {
    "children",
    "errors",
    "files",
    "lazy",
    "names",
    "paths",
    "process",
    "replaced",
    "source_digest",
    "typed",
    "unpack",
}  # one room
FACE = {"__init__", "__main__"}  # the lazy public face, and `python -m bench`
# The rooms from the ground up, and what each may import besides itself and the ground: only rooms above it.
# "prompts.fill" allows that name of prompts alone.
_ROOMS = {
    "ground": "",
    "stats": "",
    "metrics": "",
    "recipe": "",
    "clip": "",
    "data": "",
    "pocket": "data",
    "prompts": "data",
    "values": "",
    "interface": "recipe values clip prompts.fill",
    "sources": "",
    "suite": "",
    "registry": "interface sources",
    "features": "data clip",
    "records": "metrics features clip registry",
    "imported": "records metrics features data clip.spec",
    "plan": "records features data clip recipe interface prompts sources registry",
    "train": "recipe interface",
    "run": "metrics plan records train features data clip interface prompts sources registry",
    "executors": "run plan records registry",
    "report": "stats metrics records data.catalog data.dataset prompts",
    "contract": "executors run plan records train features data clip interface registry",
    "explain": "executors run plan records pocket data clip interface registry stats",
    "classifier": "executors run plan records features data clip interface registry",
    "methods": "interface clip",
}
ALONE = {"stats", "metrics"}  # they know no other part of bench, the ground included
MAY_IMPORT = {name: set(others.split()) for name, others in _ROOMS.items()}
ON_TOP = ("cli", "face")  # they may import every room


@dataclass(frozen=True)
class Tree:
    """The modules below one checkout by dotted name, as their files: bench, and methods as bench.methods."""

    root: Path
    files: Mapping[str, Path]

    def name(self, file: Path) -> str:
        """A file as it is printed: its path below the checkout."""
        return file.relative_to(self.root).as_posix()

    def module(self, dotted: str) -> Path | None:
        """The file of a module or a package; None where there is none."""
        return self.files.get(dotted) or self.files.get(f"{dotted}.__init__")

    def target(self, dotted: str) -> Path | None:
        """The file that importing ``dotted`` reads: the module of that name, else the one that holds it."""
        return self.module(dotted) or self.module(dotted.rpartition(".")[0])


def read(root: Path = ROOT) -> Tree:
    """The tree of a checkout."""
    here = {*(root / "bench").rglob("*.py"), *(root / "methods").rglob("*.py")}
    files = {}
    for file in sorted(here):
        parts = file.relative_to(root).with_suffix("").parts
        if "methods" not in parts[1:2]:  # bench/methods is a link to methods/
            files[".".join(parts if parts[0] == "bench" else ("bench", *parts))] = file
    return Tree(root, files)


def parsed(file: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def room(file: Path, root: Path = ROOT) -> str:
    """The room that a file stands in: a row of MAY_IMPORT, or one of ON_TOP."""
    first, *rest = file.relative_to(root).with_suffix("").parts
    name = "methods" if first == "methods" else rest[0]
    return "ground" if name in GROUND else "face" if name in FACE else name


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name below ``bench``) of every import of bench's modules, lazy and type-only ones
    included.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import; write the full name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {
            "import_module",
            "__import__",
        }:
            names = [
                a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)
            ]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            if top == "bench" and rest:
                yield node.lineno, rest


def forbidden(part: str, tree: ast.AST) -> list[str]:
    """What a module of the room ``part`` imports although MAY_IMPORT does not let it, with its line; a room
    that has no row is said instead.
    """
    if part in ON_TOP:
        return []
    if part not in MAY_IMPORT:
        return [f"bench/{part} is new: add it to _ROOMS and say what it may import"]
    allowed = MAY_IMPORT[part] | {part} | (set() if part in ALONE else GROUND)
    lines = []
    for line, name in imported(tree):
        pieces = name.split(".")
        if not {".".join(pieces[:i]) for i in range(1, len(pieces) + 1)} & allowed:
            lines.append(f"line {line}: bench.{name}")
    return lines


Arrows = dict[Path, set[Path]]  # each file, and the files that it imports


def arrows(tree: Tree) -> Arrows:
    """What each file imports. A package is not imported by importing what is in it."""
    graph: Arrows = {}
    for file in tree.files.values():
        targets = (tree.target(f"bench.{name}") for _, name in imported(parsed(file)))
        graph[file] = {target for target in targets if target is not None and target != file}
    return graph


def circles(graph: Mapping[Path, Iterable[Path]]) -> list[list[Path]]:
    """The groups of files that import each other, directly or by way of others; by Tarjan's algorithm."""
    number: dict[Path, int] = {}
    lowest: dict[Path, int] = {}  # the smallest number that a file reaches
    stack: list[Path] = []
    groups: list[list[Path]] = []

    def visit(file: Path) -> None:
        number[file] = lowest[file] = len(number)
        stack.append(file)
        for target in sorted(graph.get(file, ())):
            if target not in number:
                visit(target)
                lowest[file] = min(lowest[file], lowest[target])
            elif target in stack:
                lowest[file] = min(lowest[file], number[target])
        if lowest[file] == number[file]:
            group = stack[stack.index(file) :]
            del stack[stack.index(file) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for file in sorted(graph):
        if file not in number:
            visit(file)
    return sorted(groups)


def between_rooms(tree: Tree, graph: Arrows) -> dict[str, dict[str, int]]:
    """How many arrows between files lead from a room to each other room."""
    counts: dict[str, dict[str, int]] = {}
    for file, targets in graph.items():
        row = counts.setdefault(room(file, tree.root), {})
        for target in targets:
            other = room(target, tree.root)
            if other != room(file, tree.root):
                row[other] = row.get(other, 0) + 1
    return counts


def main(root: Path = ROOT) -> int:
    """Print the picture; 1 where an arrow is forbidden or files go round in a circle, else 0."""
    tree = read(root)
    graph = arrows(tree)
    counts = between_rooms(tree, graph)
    order = [*MAY_IMPORT, *ON_TOP]
    order += sorted(set(counts) - set(order))
    print("rooms, from the ground up")
    for name in filter(counts.__contains__, order):
        files = [file for file in graph if room(file, root) == name]
        lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
        others = ", ".join(other for other in order if other in counts[name])
        print(f"  {name:<10}{len(files):>4} files {lines:>6} lines   imports {others or 'nothing'}")
    print("arrows between rooms, with the number of arrows between their files")
    for name in filter(counts.__contains__, order):
        for other in filter(counts[name].__contains__, order):
            print(f"  {name} -> {other} ({counts[name][other]})")
    refused = [
        f"{tree.name(file)}: {line}" for file in graph for line in forbidden(room(file, root), parsed(file))
    ]
    rounds = [" ".join(map(tree.name, group)) for group in circles(graph)]
    for title, problems in (("forbidden arrows", refused), ("circles between files", rounds)):
        print(f"{title}: {len(problems) or 'none'}")
        for problem in problems:
            print(f"  {problem}")
    return 1 if refused or rounds else 0


if __name__ == "__main__":
    sys.exit(main())
