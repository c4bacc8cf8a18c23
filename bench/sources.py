"""Digests of methods' source code.

A plugin's source is its file, the modules that it imports from its own folder, and the program's methods that
it builds on. Their digest is in the fit key, so that an edited plugin is never answered from old records. A
method of the program has ``version`` in its key; a digest of its code is in its records alone and shows an
edit under the same version.

Imports are read from the source text, so that those inside functions count too. Data files that a plugin
reads and modules that it imports by a string are not seen: it must raise its ``version`` when they change.
This module reads files and imports only the ground; it imports no method.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.files import digest, sha256_file
from bench.paths import methods_dir
from bench.source_digest import code_digest

METHODS = "bench.methods"
# By method class; a plugin that is loaded again has another class.
_codes: dict[type, str] = {}
_tops: dict[type, set[str]] = {}


def digest_of(file: Path) -> str:
    """Return the SHA-256 (hex) of a plugin's modules, by place, and of the program's methods below them."""
    root, modules = _root(file), own_modules(file)
    parts = {part.relative_to(root).as_posix(): sha256_file(part) for part in modules}
    return digest(
        {**parts, **{f"{METHODS}.{part.stem}": sha256_file(part) for part in methods_below(modules)}}
    )


def code_of(method: object) -> str:
    """Return the digest of the code in the file that defines a method's class.

    It is recorded with every fit but is in no key, so that an edited method of the program shows as drifted.
    It is empty if there is no file, or if the file is no longer valid Python.
    """
    cls = type(method)
    if cls not in _codes:
        file = inspect.getsourcefile(sys.modules[cls.__module__])
        try:
            _codes[cls] = code_digest(Path(file).read_bytes()) if file else ""
        # The file may have been edited since it was loaded; recording a fit must not fail for that.
        except (OSError, SyntaxError, ValueError, RecursionError):
            _codes[cls] = ""
    return _codes[cls]


def methods_below(modules: Iterable[Path]) -> list[Path]:
    """Return the files of the program's methods that modules import, and of those below them, sorted."""
    methods: set[Path] = set()
    waiting = list(modules)
    while waiting:
        file = waiting.pop()
        for name in _named(file):
            below = methods_dir() / f"{name}.py"
            if below.is_file() and below not in methods:
                methods.add(below)
                waiting.append(below)
    return sorted(methods)


def _named(file: Path) -> Iterator[str]:
    """Yield the names of the program's methods that a file imports.

    A file imports them as ``bench.methods.x``; a plugin that is a single file can also write ``.x``.
    """
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # A plugin that is a single file is loaded as a module of bench.methods.
            lone = node.level == 1 and not (file.parent / "__init__.py").is_file()
            base = ".".join(filter(None, (METHODS if lone else "." * node.level, node.module)))
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[2] for name in names if name.startswith(f"{METHODS}."))


def own_modules(file: Path) -> list[Path]:
    """Return the file and the modules that it imports from its own folder or package, sorted."""
    file = file.resolve()
    root = _root(file)
    around = [
        p / "__init__.py" for p in file.parents if p.is_relative_to(root) and (p / "__init__.py").is_file()
    ]
    modules, waiting = {file, *around}, [file, *around]  # importing a module runs its package too
    while waiting:
        for other in _imports(waiting.pop(), _root(file)):
            if other not in modules:
                modules.add(other)
                waiting.append(other)
    return sorted(modules)


def tops(file: Path) -> set[str]:
    """Return the top-level names of a plugin's own modules besides itself."""
    return {name.partition(".")[0] for name in names(file)}


def tops_of(method: object) -> set[str]:
    """Return the top-level names of the modules that belong to a method.

    For a method of an installed package this is the package's name.
    """
    cls = type(method)
    if cls not in _tops:
        top = cls.__module__.partition(".")[0]
        file = getattr(sys.modules.get(cls.__module__), "__file__", None)
        _tops[cls] = {top} if top != "bench" or file is None else tops(Path(file))
    return _tops[cls]


def names(file: Path) -> dict[str, Path]:
    """Return a plugin's own modules besides itself, by the names that Python gives them."""
    root, parts = _root(file), {}
    for part in own_modules(file):
        at = part.relative_to(root).with_suffix("")
        if part != file.resolve() and at.parts != ("__init__",):
            parts[".".join(at.parts[:-1] if at.name == "__init__" else at.parts)] = part
    return parts


def _root(file: Path) -> Path:
    """Return the folder of a plugin's own modules: its own, or the one that holds its outermost package."""
    folder = file.resolve().parent
    while (folder / "__init__.py").is_file() and folder.parent != folder:
        folder = folder.parent
    return folder


def _parsed(file: Path) -> ast.Module:
    """Return the file's syntax tree, empty if it cannot be parsed; loading the file reports the error."""
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])


def _imports(file: Path, root: Path) -> Iterator[Path]:
    """Yield the modules below ``root`` that a file imports, also inside functions."""
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
                continue  # the program itself is no module of the plugin, even beside it in a checkout
            for place in places:
                if place.is_relative_to(root):
                    yield from _modules(place, name.split("."))


def _modules(place: Path, parts: list[str]) -> Iterator[Path]:
    """Yield the files that ``import a.b.c`` from ``place`` runs: packages on the way, and the module."""
    if (place / "__init__.py").is_file():
        yield place / "__init__.py"
    for part in parts:
        # A package comes before a module of the same name.
        if (place / f"{part}.py").is_file() and not (place / part / "__init__.py").is_file():
            yield place / f"{part}.py"
            return
        place = place / part
        if not place.is_dir():
            return
        if (place / "__init__.py").is_file():
            yield place / "__init__.py"
