"""The source of a plugin: its file, the modules it imports from its own folder, and the program's methods it
builds on.

One digest of them is in the fit key, so that an edited plugin is never answered from old records. Imports are
read from the source, so that those inside functions count too. What a plugin reads by itself, data files and
modules that it imports by a string, is not seen: it must raise its ``version`` when they change.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.files import digest, sha256_file
from bench.paths import methods_dir

METHODS = "bench.methods"


def digest_of(file: Path) -> str:
    """SHA-256 (hex) of a plugin's file and modules, by their place in its folder, and of the methods that
    they build on.
    """
    root, modules = _root(file), own_modules(file)
    parts = {part.relative_to(root).as_posix(): sha256_file(part) for part in modules}
    return digest(
        {**parts, **{f"{METHODS}.{part.stem}": sha256_file(part) for part in methods_below(modules)}}
    )


def methods_below(modules: Iterable[Path]) -> list[Path]:
    """The program's own methods that modules import, and those that these import, sorted."""
    found: set[Path] = set()
    waiting = list(modules)
    while waiting:
        file = waiting.pop()
        for name in _named(file):
            below = methods_dir() / f"{name}.py"
            if below.is_file() and below not in found:
                found.add(below)
                waiting.append(below)
    return sorted(found)


def _named(file: Path) -> Iterator[str]:
    """The names of the program's methods that a file imports, as ``bench.methods.x`` or, in a lone plugin, as
    ``.x``.
    """
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # such a plugin is loaded among the methods
            lone = node.level == 1 and not (file.parent / "__init__.py").is_file()
            base = ".".join(filter(None, (METHODS if lone else "." * node.level, node.module)))
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[2] for name in names if name.startswith(f"{METHODS}."))


def own_modules(file: Path) -> list[Path]:
    """The file itself and what it imports from its own folder (of a package: from the package), sorted."""
    file = file.resolve()
    root = _root(file)
    around = [
        p / "__init__.py" for p in file.parents if p.is_relative_to(root) and (p / "__init__.py").is_file()
    ]
    found, waiting = {file, *around}, [file, *around]  # loading a module of a package runs the package
    while waiting:
        for other in _imports(waiting.pop(), _root(file)):
            if other not in found:
                found.add(other)
                waiting.append(other)
    return sorted(found)


def names(file: Path) -> dict[str, Path]:
    """What Python calls the own modules of a plugin, besides the plugin itself, once their folder is on its
    path.
    """
    root, parts = _root(file), {}
    for part in own_modules(file):
        at = part.relative_to(root).with_suffix("")
        if part != file.resolve() and at.parts != ("__init__",):
            parts[".".join(at.parts[:-1] if at.name == "__init__" else at.parts)] = part
    return parts


def _root(file: Path) -> Path:
    """The folder that a plugin's own modules lie in: that of the file, or what holds the outermost package
    around it.
    """
    folder = file.resolve().parent
    while (folder / "__init__.py").is_file() and folder.parent != folder:
        folder = folder.parent
    return folder


def _parsed(file: Path) -> ast.Module:
    """The file's syntax tree; an empty one where it does not parse, for then it does not load either, and
    loading says so.
    """
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def _imports(file: Path, root: Path) -> Iterator[Path]:
    """The modules below ``root`` that a file imports, wherever in it the import stands."""
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.Import):
            names = [(alias.name, [root, file.parent]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            place = file.parents[node.level - 1] if node.level <= len(file.parents) else root
            names = [(".".join(filter(None, (node.module, alias.name))), [place]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(f"{node.module}.{alias.name}", [root, file.parent]) for alias in node.names]
        else:
            continue
        for name, places in names:
            if name.split(".")[0] == "bench":
                continue  # the program itself, also for a plugin that lies in its checkout
            for place in places:
                if place.is_relative_to(root):
                    yield from _modules(place, name.split("."))


def _modules(place: Path, parts: list[str]) -> Iterator[Path]:
    """The files that importing ``a.b.c`` from ``place`` runs: packages on the way, and the module at the end
    if it is one.
    """
    if (place / "__init__.py").is_file():
        yield place / "__init__.py"
    for part in parts:
        if (place / f"{part}.py").is_file() and not (
            place / part / "__init__.py"
        ).is_file():  # a package comes first
            yield place / f"{part}.py"
            return
        place = place / part
        if not place.is_dir():
            return
        if (place / "__init__.py").is_file():
            yield place / "__init__.py"
